"""CSV and Parquet files as they stand: a frame of cells, and where each row is."""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import polars as pl

from unveil.model.errors import UnveilError
from unveil.training.data.packing import decode, unpack

LONGEST_RECORD = 2**24  # characters; a quote that is never closed should not take all memory
DELIMITERS = (",", ";", "\t", "|")
_BLOCK_ROWS = 50_000
_DELIMITER_LINE = re.compile(r'\ufeff?("?)sep=(.)\1(?:\r\n|\r|\n|\Z)', re.IGNORECASE)

CheckNames = Callable[[list[str], str], None]  # the names of all columns, and where they stand; raises UnveilError


@dataclass(frozen=True, slots=True)
class RawTable:
    """`frame` holds text columns (CSV) or typed ones (Parquet); `lines` the line at
    which each row of a CSV begins, counted from 1, and is empty for Parquet."""

    path: Path
    frame: pl.DataFrame
    lines: tuple[int, ...]
    sha256: str
    delimiter: str | None = None  # of a CSV
    notices: tuple[str, ...] = ()

    def place(self, row: int) -> str:
        """`people.csv line 7`, for error lines; `row` counts from 0."""
        return f"{self.path} line {self.lines[row]}" if self.lines else f"{self.path} row {row + 1}"


def check_names(names: list[str], place: str) -> None:
    """Raises UnveilError for no names, and for those that two columns share or that cannot be shown."""
    if not names:
        raise UnveilError(f"{place}: no columns")
    seen = set()
    for i, name in enumerate(names, start=1):
        if not name or not name.isprintable():
            raise UnveilError(f"{place}: the name of column {i} is empty or has control characters")
        if name in seen:
            hint = "; is it data? --no-header takes it for a row" if name.isdecimal() else ""
            raise UnveilError(f'{place}: two columns are named "{name}"{hint}')
        seen.add(name)


def read_table(path: Path, *, delimiter: str, header: bool = True, check: CheckNames = check_names) -> RawTable:
    """Raises UnveilError. What the file holds decides, not how it is called: Parquet says so in its first bytes. Of a
    CSV the header is checked before any row is read; without one, columns are called by their numbers."""
    raw = read_bytes(path)
    sha256 = hashlib.sha256(raw).hexdigest()
    raw = unpack(raw, path)
    if raw.startswith(b"PAR1"):
        if delimiter != ",":
            raise UnveilError(f"{path}: a delimiter is given, and this is Parquet, which has none")
        return RawTable(path, _parquet(raw, path, check), (), sha256)
    text = io.StringIO(decode(raw, path), newline="")
    named = delimiter_line(text.readline(), path)
    if named is None:
        text.seek(0)
    layout = Layout(named or delimiter, has_header=header, first_line=1 if named is None else 2)
    frame, lines = _csv(text, path, layout=layout, check=check)
    notices = () if named is None else (f"line 1 names the delimiter, {named!r}, as Excel does",)
    return RawTable(path, frame, tuple(lines), sha256, layout.delimiter, notices)


def read_bytes(path: Path) -> bytes:
    """A file that is not empty, of a name that a card can have. Raises UnveilError."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="replace").decode()
        raise UnveilError(f"{shown}: the file's name is not UTF-8; rename it") from None
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UnveilError(f"{path} cannot be read: {error.strerror}") from None
    if not raw.strip():
        raise UnveilError(f"{path} is empty")
    return raw


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by their names, or by their paths where two have the same name."""
    names = [path.name for path in paths]
    return {name if names.count(name) == 1 else str(path): path for name, path in zip(names, paths, strict=True)}


def _parquet(raw: bytes, path: Path, check: CheckNames) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(io.BytesIO(raw))
    except pl.exceptions.DuplicateError as error:
        raise UnveilError(f"{path}: {str(error).splitlines()[0]}") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnveilError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None
    check(frame.columns, str(path))
    if frame.height == 0:
        raise UnveilError(f"{path} has no rows")
    return frame


@dataclass(frozen=True, slots=True)
class Layout:
    """How a CSV file is written; `first_line` is the number of the first line that holds cells."""

    delimiter: str
    has_header: bool = True
    first_line: int = 1


def delimiter_line(line: str, path: Path) -> str | None:
    """The delimiter that Excel's `sep=;` names, None where the first line of a file is no such line."""
    found = _DELIMITER_LINE.fullmatch(line)
    if found is None:
        return None
    if found[2] not in DELIMITERS:
        raise UnveilError(f"{path} line 1: the delimiter must be , ; | or a tab, got {found[2]!r}")
    return found[2]


def _csv(text: io.StringIO, path: Path, *, layout: Layout, check: CheckNames) -> tuple[pl.DataFrame, list[int]]:
    with _long_cells():
        records = _records(text, path, layout)
        first = next((record for record in records if record[1]), None)
        if first is None:
            raise UnveilError(f"{path} is empty")
        names = column_names(first[1] if layout.has_header else [""] * len(first[1]))
        check_delimiter(first[1], path, delimiter=layout.delimiter)
        check(names, f"{path} line {first[0]}")
        blocks = list(_frames(records if layout.has_header else chain([first], records), names, path))
    if not blocks:
        raise UnveilError(f"{path} has a header but no rows")
    return pl.concat([frame for frame, _ in blocks]), [line for _, lines in blocks for line in lines]


def _frames(
    records: Iterable[tuple[int, list[str]]], names: list[str], path: Path
) -> Iterator[tuple[pl.DataFrame, list[int]]]:
    """Blocks of rows, which bound the memory that Python's strings take, and the lines at which they begin."""
    schema = dict.fromkeys(names, pl.String)
    lines: list[int] = []
    block: list[list[str]] = []
    for line, written in records:
        cells = written or [""] * (len(names) == 1)  # a lone cell without a value is a blank line
        if not cells:
            continue
        if len(cells) != len(names):
            raise UnveilError(f"{path} line {line} has {_counted(len(cells), 'cell')}, the header {len(names)}")
        lines.append(line)
        block.append(cells)
        if len(block) == _BLOCK_ROWS:
            yield pl.DataFrame(block, schema=schema, orient="row"), lines
            lines, block = [], []
    if block:
        yield pl.DataFrame(block, schema=schema, orient="row"), lines


@contextmanager
def _long_cells() -> Iterator[None]:
    """The csv library takes no cell above 131,072 characters by itself."""
    before = csv.field_size_limit(LONGEST_RECORD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _records(text: io.StringIO, path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """The line at which each record begins, and its cells; a blank line has none."""
    reader = csv.reader(text, delimiter=layout.delimiter, strict=True)
    line = layout.first_line
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + layout.first_line
    except csv.Error as error:
        raise UnveilError(f"{path} line {line}: {error}") from None


def column_names(header: Sequence[str]) -> list[str]:
    """The names of a CSV's columns; one without a name is called by its number."""
    return [name.strip() or f"column {i}" for i, name in enumerate(header, start=1)]


def check_delimiter(cells: Sequence[str], path: Path, *, delimiter: str) -> None:
    """Raises UnveilError where one column only is found, and another delimiter in it."""
    others = [sign for sign in DELIMITERS if sign != delimiter and sign in cells[0]]
    if len(cells) == 1 and others:
        raise UnveilError(f"{path}: one column only; is {others[0]!r} the delimiter? (--delimiter; data.delimiter)")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
