"""A user's own table to a `Dataset`: columns chosen, rows split, bins and levels fitted on training rows alone.

The kinds of columns are inferred from the whole file, and so are the ranges that prompts may have. A level that no
training row has takes one to them. Nothing else of the validation and test rows is looked at.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial

import numpy as np
import polars as pl

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.table.numbers import NumberStyle
from unveil.model.tokenizers.table.table import Cells, TableTokenizer
from unveil.model.tokenizers.wording import listed, quoted
from unveil.training.data.config import TableData
from unveil.training.data.dataset import Dataset
from unveil.training.data.files import RawTable, check_names, read_table
from unveil.training.data.splits import (
    EncodedSplits,
    Index,
    draw_out,
    fit_and_encode,
    notices_of,
    take,
    with_every_level,
)
from unveil.training.data.table.inference import ColumnReader, Dropped, Kept
from unveil.training.data.table.rules import found_rules, with_rules

MIN_ROWS = 10
MAX_COLUMNS = 512  # attention grows with their square
_MANY_COLUMNS = 200


def load_table(config: TableData) -> Dataset:
    """Raises UnveilError, in one line, naming the file and where possible row and column."""
    raw = _read(config)
    found = _split(raw, config)
    choice, columns, parts = found.choice, found.columns, found.parts
    encoded = fit_and_encode(
        take(columns, parts["train"]),
        validation=take(columns, parts["validation"]),
        test=take(columns, parts["test"]),
        max_bins=_max_bins(config, columns),
        date_formats=choice.date_formats,
        number_styles=choice.number_styles,
        whole=columns,
    )
    _check_not_empty(encoded, raw)
    left_out = notices_of(encoded, lambda split, row: raw.place(int(parts[split][row])))
    tokenizer, broken = with_rules(encoded.tokenizer, config.rules, columns)
    return Dataset(
        name=config.path.stem,
        tokenizer=tokenizer,
        train=encoded.rows["train"],
        validation=encoded.rows["validation"],
        test=encoded.rows["test"],
        summary={
            "source": config.path.name,
            "license": "not stated",
            "sha256": {config.path.name: raw.sha256},
            **encoded.fates,
            "dropped_columns": choice.dropped,
            "notices": [
                *raw.notices,
                *choice.notices,
                *_moved(found.moved, raw),
                *left_out,
                *_wide(len(columns)),
                *broken,
            ],
        },
    )


def rules_found(config: TableData, tokenizer: TableTokenizer) -> list[str]:
    """Rules that hold in every row of a table; see `found_rules`. Raises UnveilError."""
    return found_rules(tokenizer, _split(_read(config), config).columns, seed=config.seed)


def cells_of(config: TableData) -> dict[str, dict[str, Cells]]:
    """The cells of each split by column, as `load_table` splits and reads them. Raises UnveilError."""
    found = _split(_read(config), config)
    return {name: take(found.columns, part) for name, part in found.parts.items()}


def _read(config: TableData) -> RawTable:
    raw = read_table(
        config.path,
        delimiter=config.delimiter,
        header=config.header,
        check=partial(_check_columns, drop=config.drop),
    )
    _check(raw, config)
    return raw


@dataclass(frozen=True, slots=True)
class _Split:
    """The rows of each split, those that went to training, and the columns that training rows have cells in."""

    choice: "_Choice"
    columns: dict[str, Cells]
    parts: dict[str, Index]
    moved: Index


def _split(raw: RawTable, config: TableData) -> _Split:
    choice = _choose(raw, config)
    drawn = draw_out(raw.frame.height, shares=(config.validation_share, config.test_share), seed=config.seed)
    parts, moved = with_every_level(choice.columns, drawn)
    columns = _without_empty(choice, parts[0])
    _check_bins(columns, choice, config)
    if not columns:
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(choice.dropped.items())[:5])
        raise UnveilError(f"{raw.path}: no column is left; {reasons}")
    return _Split(choice, columns, dict(zip(("train", "validation", "test"), parts, strict=True)), moved)


@dataclass(frozen=True, slots=True)
class _Choice:
    """The columns to model, why others are dropped, and what the user should know of that."""

    columns: dict[str, Cells] = field(default_factory=dict)
    date_formats: dict[str, str] = field(default_factory=dict)
    number_styles: dict[str, NumberStyle] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def drop(self, name: str, reason: str, *, keep_by: str | None = None) -> None:
        self.dropped[name] = reason
        advice = "" if keep_by is None else f" ({keep_by} {quoted(name)} keeps it)"
        self.notices.append(f'column "{name}" {reason}: dropped{advice}')

    def keep(self, name: str, found: Kept) -> None:
        self.columns[name] = found.cells
        if found.date_format is not None:
            self.date_formats[name] = found.date_format
        if found.style is not None:
            self.number_styles[name] = found.style
        if found.notice:
            self.notices.append(f'column "{name}" {found.notice}')

    def could_hold(self, name: str, cells: Cells) -> bool:
        """Whether a column's name could as well be one of its cells."""
        if cells.dtype == object:
            return name in set(cells)
        known = self.date_formats.get(name)
        style = self.number_styles.get(name, NumberStyle())
        number = style.parse(name) if known is None else FORMATS[known].parse(name)
        return number is not None and bool(np.nanmin(cells) <= number <= np.nanmax(cells))


def _choose(raw: RawTable, config: TableData) -> _Choice:
    is_typed = raw.delimiter is None
    reader = ColumnReader(
        missing=config.missing, place=raw.place, prefers_comma=raw.delimiter in (";", "\t"), is_typed=is_typed
    )
    choice = _Choice(dropped=dict.fromkeys(config.drop, "is in the recipe's drop list"))
    choice.notices.extend(_missing_notices(raw, config))
    for series in raw.frame:
        if series.name in config.drop:
            continue
        found = reader.infer(series, config.columns.get(series.name))
        if isinstance(found, Dropped):
            choice.drop(series.name, found.reason, keep_by=found.keep_by)
        else:
            choice.keep(series.name, found)
    choice.notices.extend(_header_notice(raw, choice, has_header=config.header))
    return choice


def _missing_notices(raw: RawTable, config: TableData) -> list[str]:
    """Nothing is silently changed: NA may be a country."""
    texts = raw.frame.select(pl.col(pl.String).exclude(config.drop).str.strip_chars())
    counts = {marker: sum(int((text == marker).sum()) for text in texts) for marker in config.missing}
    return [f"cells {quoted(marker)} read as missing values: {number}" for marker, number in counts.items() if number]


def _moved(rows: Index, raw: RawTable) -> list[str]:
    """What is said of held-out rows that went to the training rows."""
    if not len(rows):
        return []
    noun = "row has a level" if len(rows) == 1 else "rows have levels"
    return [f"{len(rows)} {noun} that no other training row has: taken for training (the first: {raw.place(rows[0])})"]


def _header_notice(raw: RawTable, choice: _Choice, *, has_header: bool) -> list[str]:
    """Names that could be a row of their own table are told."""
    if not raw.lines or not has_header or not choice.columns:
        return []
    alike = [name for name, cells in choice.columns.items() if choice.could_hold(name, cells)]
    if 2 * len(alike) < len(choice.columns):
        return []
    return [f"line 1, the names of the columns, looks like data ({listed(alike)}); --no-header takes it for a row"]


def _wide(num_columns: int) -> list[str]:
    """A row is evaluated in as many forwards as it has columns, each over all of them."""
    if num_columns <= _MANY_COLUMNS:
        return []
    advice = "--set optimizer.batch_size=16 and --set run.evaluate_rows=10 make it less, and --drop fewer columns"
    return [f"{num_columns} columns: training and evaluation take long, more than in proportion; {advice}"]


def _without_empty(choice: _Choice, train: Index) -> dict[str, Cells]:
    columns = dict(choice.columns)
    for name, cells in choice.columns.items():
        if _is_all_missing(cells[train]):
            choice.drop(name, "has no values in the training rows")
            del columns[name]
    return columns


def _check_columns(names: list[str], place: str, *, drop: Sequence[str]) -> None:
    check_names(names, place)
    num_left = len(set(names) - set(drop))
    if num_left > MAX_COLUMNS:
        dropped = f", {num_left} without those that are dropped" if num_left < len(names) else ""
        way = f"leave {num_left - MAX_COLUMNS} {'more ' if dropped else ''}out, with --drop or data.drop"
        raise UnveilError(f"{place}: {len(names)} columns{dropped}, at most {MAX_COLUMNS} are taken; {way}")


def _check(raw: RawTable, config: TableData) -> None:
    for part, given in (("drop", config.drop), ("columns", config.columns)):
        for name in given:
            if name not in raw.frame.columns:
                close = get_close_matches(name, raw.frame.columns, n=1)
                hint = f'; did you mean "{close[0]}"?' if close else ""
                raise UnveilError(f'{raw.path} has no column "{name}" (data.{part}){hint}')
    both = sorted(set(config.drop) & set(config.columns))
    if both:
        raise UnveilError(f'column "{both[0]}" is in data.drop and in data.columns')
    num_rows = raw.frame.height
    if num_rows < MIN_ROWS:
        raise UnveilError(f"{raw.path}: {num_rows} row{'s' * (num_rows > 1)}, at least {MIN_ROWS} are needed")


def _check_bins(columns: dict[str, Cells], choice: _Choice, config: TableData) -> None:
    texts = {name for name, cells in columns.items() if cells.dtype == object and name not in choice.date_formats}
    for name, chosen in config.columns.items():
        if chosen.max_bins is not None and name in texts:
            raise UnveilError(f'{config.path}: column "{name}" holds text, and bins are of numbers and dates (--bins)')


def _check_not_empty(encoded: EncodedSplits, raw: RawTable) -> None:
    for name, fate in encoded.fates.items():
        if fate["rows"] == 0:
            unseen = listed(fate["unseen_levels"])
            raise UnveilError(f"{raw.path}: every {name} row has a level that no training row has ({unseen}); drop it")


def _max_bins(config: TableData, names: Iterable[str]) -> dict[str, int]:
    chosen = {name: choice.max_bins for name, choice in config.columns.items()}
    return {name: chosen.get(name) or config.max_bins for name in names}


def _is_all_missing(cells: Cells) -> bool:
    return all(cell is None for cell in cells) if cells.dtype == object else bool(np.isnan(cells).all())
