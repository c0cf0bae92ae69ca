"""Tables from stdin and in Parquet: what the commands read and write beside CSV files."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import polars as pl

from unveil.commands.raw_csv import csv_line
from unveil.commands.result_files import STANDARD, shown, written, written_bytes
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.base import Value
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.wording import listed
from unveil.tables.cells import typed
from unveil.training.data.packing import ParquetError, opened

_BLOCK_ROWS = 50_000
_STDIN = "stdin"
Write = Callable[[Sequence[Value | None]], None]  # the values of a row


@contextmanager
def given_table(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """A file to read as often as is wanted: of `-` a copy of stdin, in a folder that keeps it, or for as long as the
    context lasts. Errors call it stdin then."""
    if path != STANDARD:
        yield path
        return
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unveil-")))
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / _STDIN
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield copy
        except UnveilError as error:
            raise type(error)(str(error).replace(str(copy), _STDIN), param=error.param) from None


def is_parquet(path: Path) -> bool:
    """By the first bytes, compressed or not. What cannot be read is not, nor is a pipe, which is read once."""
    if not path.is_file():
        return False
    try:
        with opened(path) as (_text, _):  # a wrapper without a name is gone before its file is closed
            return False
    except ParquetError:
        return True
    except (UnveilError, OSError):
        return False  # whoever reads it says why


@contextmanager
def row_writer(path: Path, tokenizer: TableTokenizer) -> Iterator[Write]:
    """What takes the rows of a table that a model draws: Parquet where the name ends in .parquet, else CSV."""
    if path.suffix == ".parquet":
        with _parquet_writer(path, tokenizer) as write:
            yield write
        return
    with written(path) as file:
        file.write(csv_line([column.name for column in tokenizer.columns]) + "\n")
        yield lambda row: _only(file.write(csv_line(tokenizer.written(row)) + "\n"))


def _only(_: int) -> None:
    """A call for what it does."""


@contextmanager
def _parquet_writer(path: Path, tokenizer: TableTokenizer) -> Iterator[Write]:
    """In columns, which are held in memory until all is there."""
    blocks, rows = list[pl.DataFrame](), list[Sequence[Value | None]]()

    def pack() -> None:
        columns = zip(tokenizer.columns, zip(*rows, strict=True), strict=True)
        blocks.append(pl.DataFrame([typed(column, cells) for column, cells in columns]))
        rows.clear()

    def write(row: Sequence[Value | None]) -> None:
        rows.append(row)
        if len(rows) == _BLOCK_ROWS:
            pack()

    with written_bytes(path) as file:
        yield write
        if rows:
            pack()
        pl.concat(blocks).write_parquet(file)


def check_frame(frame: pl.DataFrame, path: Path) -> None:
    """Raises UnveilError for a column that the file cannot hold."""
    unfit = [series.name for series in frame if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object)]
    if unfit and path.suffix != ".parquet":
        reason = f"a CSV file cannot hold lists, structs and bytes ({listed(unfit)}); write .parquet"
        raise UnveilError(f"{shown(path)}: {reason}")


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """As `row_writer` does."""
    if path.suffix == ".parquet":
        with written_bytes(path) as file:
            frame.write_parquet(file)
        return
    with written(path) as text:
        text.write(frame.write_csv())
