"""A CSV file record by record, every cell as it is written, so that what is not changed stays byte for byte.

Only one record is in memory. What it takes for a record, and what it refuses, is as in training (`data.files`).
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO

from unveil.model.errors import UnveilError
from unveil.training.data.files import LONGEST_RECORD, check_delimiter, check_names, column_names, delimiter_line
from unveil.training.data.packing import BYTE_ORDER_MARK, checked_line, opened

_OPEN_QUOTE = re.compile(r'"[^"]*(?:""[^"]*)*')


@dataclass(frozen=True)
class RawRecord:
    """The line at which it begins, counted from 1, its cells as written, quotes included, its line ending, and how many
    bytes of the file were read for it. A blank line has no cells."""

    line: int
    cells: list[str]
    ending: str
    num_bytes: int

    def text(self, index: int) -> str:
        """What a cell says: without quotes and spaces around it."""
        raw = self.cells[index]
        return (raw[1:-1].replace('""', '"') if raw.startswith('"') else raw).strip()


@dataclass(frozen=True)
class RawCsv:
    """A file of which the header has been looked at; `preamble` is all before the first row as written, a byte order
    mark included. Where there is no header, columns are called by their numbers."""

    path: Path
    delimiter: str
    encoding: str
    preamble: str
    names: list[str]
    num_leading: int  # records before the first row
    names_delimiter: bool  # by a first line as Excel writes it, which is no record

    @classmethod
    def open(cls, path: Path, *, delimiter: str, header: bool = True) -> "RawCsv":
        """Raises UnveilError in one line naming file and line."""
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UnveilError(f"{path} is a pipe or a device: must be a file, which is read twice")
        line, encoding = _first_line(path)
        named = delimiter_line(line, path)
        delimiter = named or delimiter
        preamble, num_leading = line if named else BYTE_ORDER_MARK * line.startswith(BYTE_ORDER_MARK), 0
        for first in _records(path, delimiter, skips=int(named is not None)):
            if first.cells:
                break
            preamble, num_leading = preamble + first.ending, num_leading + 1
        else:
            raise UnveilError(f"{path} is empty")
        given = [first.text(i) for i in range(len(first.cells))]
        names = column_names(given if header else [""] * len(given))
        check_delimiter(given, path, delimiter=delimiter)
        check_names(names, f"{path} line {first.line}")
        if header:
            preamble, num_leading = preamble + delimiter.join(first.cells) + first.ending, num_leading + 1
        return cls(path, delimiter, encoding, preamble, names, num_leading, named is not None)

    def records(self) -> Iterator[RawRecord]:
        """Every record after the header. Raises UnveilError naming the line."""
        records = _records(self.path, self.delimiter, skips=int(self.names_delimiter))
        for record in islice(records, self.num_leading, None):
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


def _first_line(path: Path) -> tuple[str, str]:
    """The first line of a file, and its encoding."""
    with _opened(path) as (text, _):
        return checked_line(text.readline(LONGEST_RECORD), path, 1), text.encoding


def _records(path: Path, delimiter: str, *, skips: int) -> Iterator[RawRecord]:
    """The records of a file after so many lines."""
    pattern = _cell_pattern(delimiter)
    pending, begun, done = "", skips + 1, 0
    with _opened(path) as (text, file):
        for line, raw in islice(enumerate(text, start=1), skips, None):
            pending += checked_line(raw.removeprefix(BYTE_ORDER_MARK) if line == 1 else raw, path, line)
            may_end = line == begun or '"' in raw  # a quote that is open is closed by no line without one
            record = _split(pending, pattern, f"{path} line {begun}") if may_end else None
            if record is not None:
                cells, ending = record
                yield RawRecord(begun, cells, ending, file.tell() - done)
                pending, begun, done = "", line + 1, file.tell()
            elif len(pending) > LONGEST_RECORD:
                break
    if pending:
        raise UnveilError(f"{path} line {begun}: a quote is not closed")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[TextIO, BinaryIO]]:
    try:
        with opened(path) as (text, file):
            yield text, file
    except OSError as error:
        raise UnveilError(f"{path} cannot be read: {error.strerror}") from None


def _cell_pattern(delimiter: str) -> re.Pattern[str]:
    end = re.escape(delimiter)
    return re.compile(rf'("[^"]*(?:""[^"]*)*"|(?!")[^{end}\r\n]*)({end}|\r\n|\r|\n|\Z)')


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
    return ([] if cells == [""] else cells), match[2]
