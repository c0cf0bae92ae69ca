"""Rows of a table: a JSON object with some columns known to a template, and ids back to values.

A position is a column's index. Ids count from 0 in each column (see `columns`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers.base import Share, Template, Value
from unveil.model.tokenizers.table.bins import coarsest_step, fit_bins, num_decimals
from unveil.model.tokenizers.table.columns import CategoricalColumn, Column, DateColumn, NumericColumn, outward
from unveil.model.tokenizers.table.conditions import shares_of
from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.table.numbers import NumberStyle
from unveil.model.tokenizers.table.rules.book import RuleBook, Together
from unveil.model.tokenizers.wording import listed, one_line, quoted, shown

DEFAULT_MAX_BINS = 64
_LONGEST_PARAM = 100

Cells = NDArray[Any]
"""One column [N]: float64 with NaN where missing (of dates, units since 1970), or object (strings) with None."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """`tokens` [N, L] int64, of which the rows `is_known` [N] could be encoded (the others hold -1 somewhere).

    `num_unseen` counts by column the cells whose level (or whose being missing) training never saw, `num_moved` the
    numbers that went to the nearest bin because none holds them: outside the training range, or between the values of a
    column that has a bin for each.
    """

    tokens: NDArray[np.int64]
    is_known: NDArray[np.bool_]
    num_unseen: Mapping[str, int]
    num_moved: Mapping[str, int]


class _File(BaseModel):
    """`tokenizer.json` of a table."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal["unveil-table"] = "unveil-table"
    version: Literal[1] = 1
    columns: tuple[Column, ...] = Field(min_length=1)
    example: dict[str, str | int | float]
    rules: tuple[str, ...] = ()
    together: tuple[Together, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [column.name for column in self.columns]
        if not all(a < b for a, b in pairwise(sorted(names))) or not all(names):
            raise ValueError("columns must have names, each another one")
        by_name = {column.name: column for column in self.columns}
        for name, value in self.example.items():
            if name not in by_name:
                raise ValueError("the example names no column")
            by_name[name].encode(value)
        sizes = {column.name: column.vocabulary_size for column in self.columns}
        for own in self.together:
            if not all(name in sizes for name in own.columns):
                raise ValueError("what stood together names no column")
            limits = [sizes[name] for name in own.columns]
            if any(not 0 <= i < limit for row in own.rows for i, limit in zip(row, limits, strict=True)):
                raise ValueError("what stood together are no ids of these columns")
        book = RuleBook(self.columns, known=self.together)
        for rule in self.rules:
            book.read(rule)
        return self


class TableTokenizer:
    """A `Tokenizer` whose prompts are objects `{column: value}`; null or absent columns are hidden."""

    domain: ClassVar[Literal["table"]] = "table"

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        example: Mapping[str, Value] | None = None,
        rules: Sequence[str] = (),
        known: Sequence[Together] = (),
    ) -> None:
        """`rules` are kept where a request does not say otherwise; `known` is what stood together in training rows."""
        self._file = _File(
            columns=tuple(columns), example=dict(example or {}), rules=tuple(rules), together=tuple(known)
        )
        self._positions = {column.name: i for i, column in enumerate(self.columns)}
        self._book = RuleBook(self.columns, known=self._file.together)

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, Cells],
        *,
        max_bins: int | Mapping[str, int] = DEFAULT_MAX_BINS,
        date_formats: Mapping[str, str] | None = None,
        number_styles: Mapping[str, NumberStyle] | None = None,
        whole: Mapping[str, Cells] | None = None,
    ) -> Self:
        """From training cells: float64 arrays become numeric columns, written as `number_styles` says, or columns of
        dates where `date_formats` names the format (see `dates`), object arrays categorical ones.

        `max_bins` for every numeric column, or by name (the default where a name is absent). Every column needs a cell
        that is not missing, numbers must be finite. `whole` are the cells of all rows, held-out ones too: they decide
        which numbers a prompt may have.
        """
        bins = max_bins if isinstance(max_bins, Mapping) else dict.fromkeys(columns, max_bins)
        formats, styles = date_formats or {}, number_styles or {}
        fitted = [
            _fit_column(
                name,
                cells,
                max_bins=bins.get(name, DEFAULT_MAX_BINS),
                date_format=formats.get(name),
                style=styles.get(name),
                whole=(whole or columns)[name],
            )
            for name, cells in columns.items()
        ]
        ends = {0, len(fitted) - 1} if len(fitted) > 1 else set()
        return cls(fitted, example={fitted[i].name: _typical(fitted[i], columns[fitted[i].name]) for i in sorted(ends)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads `tokenizer.json`. Raises ArtifactError in one line for anything but a whole, consistent one."""
        try:
            file = _File.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ArtifactError(f"{path.name} cannot be read: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            reason = first["msg"].removeprefix("Value error, ")
            raise ArtifactError(f"{path.name} is not a table tokenizer: {shown(place)}: {reason}") from None
        return cls(file.columns, example=file.example, rules=file.rules, known=file.together)

    def with_rules(self, rules: Sequence[str], *, known: Sequence[Together] = ()) -> Self:
        """The same columns with these rules, and with what stood together beside what was known. Raises
        PromptError."""
        names = {own.columns for own in known}
        every = [own for own in self._file.together if own.columns not in names] + [*known]
        book = RuleBook(self.columns, known=every)
        for rule in rules:
            book.read(rule)
        return type(self)(self.columns, example=self._file.example, rules=rules, known=every)

    def save(self, path: Path) -> None:
        path.write_text(self._file.model_dump_json() + "\n", encoding="utf-8")

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._file.columns

    @property
    def length(self) -> int:
        return len(self.columns)

    @property
    def default_length(self) -> int:
        return self.length

    @property
    def end_id(self) -> None:
        return None

    @property
    def vocabulary_sizes(self) -> tuple[int, ...]:
        return tuple(column.vocabulary_size for column in self.columns)

    @property
    def rules(self) -> tuple[str, ...]:
        """Those that the model was trained with."""
        return self._file.rules

    @property
    def rule_book(self) -> RuleBook:
        """What reads rules about these columns."""
        return self._book

    @property
    def missing_ids(self) -> dict[int, int]:
        """The id that stands for a missing value, by position; nothing for columns that had none."""
        return {i: column.vocabulary_size - 1 for i, column in enumerate(self.columns) if column.missing}

    def encode(self, prompt: object, *, length: int | None = None, append: bool = True) -> Template:  # noqa: ARG002
        """Raises PromptError; `param` is the column to blame, or "length", which a table does not take."""
        if length is not None:
            raise PromptError("length is not valid with a table: its rows have all their columns", param="length")
        if not isinstance(prompt, Mapping):
            raise PromptError(f"a table's prompt must be an object of columns and values, got {quoted(prompt)}")
        known: dict[int, Value] = {}
        tokens = [0] * self.length
        for name, value in prompt.items():
            position = self.position(name)
            if value is not None:
                column = self.columns[position]
                tokens[position] = column.encode(value)
                known[position] = _as_value(column, value, tokens[position])
        return Template(tuple(tokens), tuple(i not in known for i in range(self.length)), known)

    def condition(self, where: object, *, length: int) -> dict[int, tuple[Share, ...]]:  # noqa: ARG002
        """See `base.condition_of`: an object of columns and what they must be like (`conditions`)."""
        if not isinstance(where, Mapping) or not where:
            raise PromptError(f"a table's condition must be an object of columns, got {quoted(where)}")
        return {self.position(name): shares_of(self.columns[self.position(name)], own) for name, own in where.items()}

    def encode_rows(self, columns: Mapping[str, Cells]) -> EncodedRows:
        """All this tokenizer's columns, each [N] as in `fit` -> ids. More columns than these are not looked at."""
        ids = [column.ids(columns[column.name]) for column in self.columns]
        tokens = np.stack(ids, axis=1)  # [N, L]
        unseen = {c.name: int((i < 0).sum()) for c, i in zip(self.columns, ids, strict=True)}
        moved = {
            c.name: int(c.is_foreign(columns[c.name], i).sum())
            for c, i in zip(self.columns, ids, strict=True)
            if not isinstance(c, CategoricalColumn)
        }
        return EncodedRows(
            tokens=tokens,
            is_known=np.all(tokens >= 0, axis=1),
            num_unseen={name: n for name, n in unseen.items() if n},
            num_moved={name: n for name, n in moved.items() if n},
        )

    def token(self, position: int, token_id: int) -> str:
        return self.columns[position].token(token_id)

    def value(self, position: int, token_id: int, uniform: float) -> Value:
        return self.columns[position].value(token_id, uniform)

    def name(self, position: int) -> str:
        return self.columns[position].name

    def output(self, values: Sequence[Value]) -> tuple[dict[str, Value | None], str]:
        """A missing value is None in the row."""
        row = {column.name: value for column, value in zip(self.columns, values, strict=True)}
        texts = [column.written(value) for column, value in zip(self.columns, values, strict=True)]
        text = ", ".join(f"{one_line(name)}: {one_line(own)}" for name, own in zip(row, texts, strict=True))
        return {name: outward(value) for name, value in row.items()}, text

    def written(self, values: Sequence[Value | None]) -> list[str]:
        """All values of a row as a file of text shows them; None, which is missing, is an empty cell."""
        pairs = zip(self.columns, values, strict=True)
        return ["" if value is None else column.written(value) for column, value in pairs]

    def describe(self) -> dict[str, Any]:
        rules = {"rules": list(self.rules)} if self.rules else {}
        return {"columns": [column.describe() for column in self.columns], **rules}

    def example_prompt(self) -> dict[str, Value]:
        return dict(self._file.example)

    def position(self, name: object) -> int:
        """Of a column. Raises PromptError for one that is not there."""
        if isinstance(name, str) and name in self._positions:
            return self._positions[name]
        text = str(name)[:_LONGEST_PARAM]
        close = get_close_matches(text, self._positions, n=1)
        hint = f'did you mean "{shown(close[0])}"?' if close else f"the columns are {listed(self._positions)}"
        raise PromptError(f'unknown column "{shown(text)}"; {hint}', param=one_line(text))


def _as_value(column: Column, value: Any, token: int) -> Value:
    """A known value as it was given; where JSON has another type for it, as the column has it."""
    if isinstance(value, str) or isinstance(column, NumericColumn):
        known: Value = value
        return known
    return column.token(token) if isinstance(column, CategoricalColumn) else str(value)


def _fit_column(
    name: str, cells: Cells, *, max_bins: int, date_format: str | None, style: NumberStyle | None, whole: Cells
) -> Column:
    if cells.dtype == object:
        present = {cell for cell in cells if cell is not None}
        return CategoricalColumn(name=name, levels=tuple(sorted(present)), missing=bool((cells == None).any()))  # noqa: E711
    is_missing = np.isnan(cells)
    values, every = cells[~is_missing], whole[~np.isnan(whole)] + 0.0
    bins, missing = fit_bins(values, max_bins=max_bins), bool(is_missing.any())
    ends = float(every.min()), float(every.max())
    span = None if ends == (bins[0].low, bins[-1].high) else ends
    if date_format is not None:
        step = coarsest_step(values, FORMATS[date_format].unit)
        return DateColumn(name=name, format=date_format, bins=bins, missing=missing, span=span, step=step)
    decimals = num_decimals(every)
    return NumericColumn(name=name, decimals=decimals, bins=bins, missing=missing, span=span, style=style)


def _typical(column: Column, cells: Cells) -> Value:
    """The median of numbers or dates (a value that occurs), the commonest level of a categorical column."""
    if cells.dtype == object:
        counts: Counter[str] = Counter(cell for cell in cells if cell is not None)
        return min(counts, key=lambda level: (-counts[level], level))
    values = np.sort(cells[~np.isnan(cells)])
    median = float(values[(len(values) - 1) // 2])
    if isinstance(column, DateColumn):
        return FORMATS[column.format].show(median)
    return int(median) if num_decimals(values) == 0 else median
