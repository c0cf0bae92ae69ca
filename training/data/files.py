"""CSV and Parquet files as they stand: a frame of cells, and where each row is."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from unveil.model.errors import UnveilError

_BLOCK_ROWS = 50_000

CheckNames = Callable[[list[str], str], None]  # the names of all columns, and where they stand; raises UnveilError


@dataclass(frozen=True, slots=True)
class RawTable:
    """`frame` holds text columns (CSV) or typed ones (Parquet); `lines` the line at
    which each row of a CSV begins, counted from 1, and is empty for Parquet."""

    path: Path
    frame: pl.DataFrame
    lines: tuple[int, ...]
    sha256: str

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
            raise UnveilError(f'{place}: two columns are named "{name}"')
        seen.add(name)


def read_table(path: Path, *, delimiter: str, check: CheckNames = check_names) -> RawTable:
    """Raises UnveilError. What the file holds decides, not how it is called: Parquet says so in its first bytes. Of a
    CSV the header is checked before any row is read."""
    raw = read_bytes(path)
    sha256 = hashlib.sha256(raw).hexdigest()
    if raw.startswith(b"PAR1"):
        if delimiter != ",":
            raise UnveilError(f"{path}: a delimiter is given, and this is Parquet, which has none")
        return RawTable(path, _parquet(raw, path, check), (), sha256)
    frame, lines = _csv(decode(raw, path), path, delimiter=delimiter, check=check)
    return RawTable(path, frame, tuple(lines), sha256)


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


def decode(raw: bytes, path: Path) -> str:
    """UTF-8, with or without a byte order mark. Raises UnveilError naming the line."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UnveilError(f"{path} line {line} is not UTF-8 text") from None


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


def _csv(text: str, path: Path, *, delimiter: str, check: CheckNames) -> tuple[pl.DataFrame, list[int]]:
    records = _records(text, path, delimiter=delimiter)
    first = next((record for record in records if record[1]), None)
    if first is None:
        raise UnveilError(f"{path} is empty")
    header_line, header = first
    names = column_names(header)
    check_delimiter(names, path, delimiter=delimiter)
    check(names, f"{path} line {header_line}")
    schema = dict.fromkeys(names, pl.String)
    frames: list[pl.DataFrame] = []
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
        if len(block) == _BLOCK_ROWS:  # bounds the memory that Python's strings take
            frames.append(pl.DataFrame(block, schema=schema, orient="row"))
            block = []
    if not lines:
        raise UnveilError(f"{path} has a header but no rows")
    frames.append(pl.DataFrame(block, schema=schema, orient="row"))
    return pl.concat(frames), lines


def _records(text: str, path: Path, *, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The line at which each record begins, and its cells; a blank line has none."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UnveilError(f"{path} line {line}: {error}") from None


def column_names(header: Sequence[str]) -> list[str]:
    """The names of a CSV's columns; one without a name is called by its number."""
    return [name.strip() or f"column {i}" for i, name in enumerate(header, start=1)]


def check_delimiter(names: list[str], path: Path, *, delimiter: str) -> None:
    """Raises UnveilError where one column only is found, and another delimiter in it."""
    others = [sign for sign in (",", ";", "\t", "|") if sign != delimiter and sign in names[0]]
    if len(names) == 1 and others:
        raise UnveilError(f"{path}: one column only; is {others[0]!r} the delimiter? (--delimiter; data.delimiter)")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
