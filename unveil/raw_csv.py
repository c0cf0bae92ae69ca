"""A CSV file record by record, every cell as it is written, so that what is not changed stays byte for byte.

Only one record is in memory.
"""

import csv
import io
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unveil.model.errors import UnveilError
from unveil.training.data.files import check_delimiter, check_names, column_names

_LONGEST_RECORD = 2**24  # characters; a quote that is never closed should not take all memory
_OPEN_QUOTE = re.compile(r'"[^"]*(?:""[^"]*)*')


@dataclass(frozen=True)
class RawRecord:
    """The line at which it begins, counted from 1, its cells as written, quotes included, its line ending, and its
    size in the file. A blank line has no cells."""

    line: int
    cells: list[str]
    ending: str
    num_bytes: int

    def text(self, index: int) -> str:
        """What a cell says: without quotes and spaces around it."""
        raw = self.cells[index].removeprefix("\ufeff")
        return (raw[1:-1].replace('""', '"') if raw.startswith('"') else raw).strip()


@dataclass(frozen=True)
class RawCsv:
    """A file of which the header has been looked at; `header` is its first line as written, a byte order mark
    included."""

    path: Path
    delimiter: str
    header: str
    names: list[str]

    @classmethod
    def open(cls, path: Path, *, delimiter: str) -> "RawCsv":
        """Raises UnveilError in one line naming file and line."""
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UnveilError(f"{path} is a pipe or a device: must be a file, which is read twice")
        first = next(_records(path, delimiter), None)
        if first is None or not first.cells:
            raise UnveilError(f"{path} {'is empty' if first is None else 'line 1 is blank: the header is needed'}")
        names = column_names([first.text(i) for i in range(len(first.cells))])
        check_delimiter(names, path, delimiter=delimiter)
        check_names(names, f"{path} line 1")
        return cls(path, delimiter, delimiter.join(first.cells) + first.ending, names)

    def records(self) -> Iterator[RawRecord]:
        """Every record after the header. Raises UnveilError naming the line."""
        records = _records(self.path, self.delimiter)
        next(records, None)
        for record in records:
            if record.cells and len(record.cells) != len(self.names):
                cells = f"{len(record.cells)} cell{'s' * (len(record.cells) != 1)}"
                raise UnveilError(f"{self.path} line {record.line} has {cells}, the header {len(self.names)}")
            yield record

    def written(self, cell: object) -> str:
        """A cell as this file writes it, in quotes where it needs them."""
        return csv_line([cell], delimiter=self.delimiter)

    def joined(self, record: RawRecord, cells: list[str]) -> str:
        """A record with these cells."""
        return self.delimiter.join(cells) + record.ending

    @cached_property
    def num_bytes(self) -> int:
        return self.path.stat().st_size


def csv_line(cells: Sequence[object], *, delimiter: str = ",") -> str:
    """A record without its line end. The library puts in quotes what holds a character of the line end that it is told,
    and so is told both of them."""
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return file.getvalue().removesuffix("\r\n")


def _records(path: Path, delimiter: str) -> Iterator[RawRecord]:
    pattern = _cell_pattern(delimiter)
    line, pending, begun = 0, "", 1
    try:
        with path.open("rb") as file:
            for raw in file:
                line += 1
                pending += _decode(raw, path, line)
                may_end = line == begun or b'"' in raw  # a quote that is open is closed by no line without one
                record = _split(pending, pattern, f"{path} line {begun}") if may_end else None
                if record is not None:
                    cells, ending = record
                    yield RawRecord(begun, cells, ending, len(pending.encode()))
                    pending, begun = "", line + 1
                elif len(pending) > _LONGEST_RECORD:
                    break
    except OSError as error:
        raise UnveilError(f"{path} cannot be read: {error.strerror}") from None
    if pending:
        raise UnveilError(f"{path} line {begun}: a quote is not closed")


def _decode(raw: bytes, path: Path, line: int) -> str:
    if line == 1 and raw.startswith(b"PAR1"):
        raise UnveilError(f"{path}: must be a CSV file, and this is Parquet; {_conversion(path)} makes one of it")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UnveilError(f"{path} line {line} is not UTF-8 text") from None


def _conversion(path: Path) -> str:
    """A command that writes a Parquet file as CSV, dates and times as training reads them."""
    into = path.with_suffix(".text.csv" if path.suffix == ".csv" else ".csv")  # never over the file itself
    source, target = (json.dumps(str(file), ensure_ascii=False) for file in (path, into))
    formats = 'datetime_format="%FT%T", time_format="%T"'
    return f"python -c {shlex.quote(f'import polars; polars.read_parquet({source}).write_csv({target}, {formats})')}"


def _cell_pattern(delimiter: str) -> re.Pattern[str]:
    end = re.escape(delimiter)
    return re.compile(rf'(\ufeff?(?:"[^"]*(?:""[^"]*)*"|(?!")[^{end}\r\n]*))({end}|\r\n|\r|\n|\Z)')


def _split(text: str, pattern: re.Pattern[str], place: str) -> tuple[list[str], str] | None:
    """Cells and line ending of one whole record, None where a quote is still open. Raises UnveilError."""
    cells: list[str] = []
    at = 0
    while True:
        match = pattern.match(text, at)
        if match is None:
            if _OPEN_QUOTE.fullmatch(text, at):
                return None
            raise UnveilError(f"{place}: something follows a closing quote in cell {len(cells) + 1}")
        cells.append(match[1])
        at = match.end()
        if match[2] in ("\r\n", "\r", "\n", ""):
            break
    if at != len(text):
        raise UnveilError(f"{place}: a carriage return stands inside the line")
    return ([] if cells == [""] else cells), match[2]
