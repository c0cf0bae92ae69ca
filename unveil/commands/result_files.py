"""Result files that are whole or not there.

While it is written, OUT is OUT.partial, and takes its name when whole; an interrupted run leaves OUT.partial with the
rows it had, and the next run writes it anew. What is no regular file, a pipe or /dev/stdout say, is written directly.
A name that ends in .gz, .bz2 or .xz has the file compressed; `-` is stdout.
"""

import bz2
import gzip
import io
import lzma
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from unveil.commands.output import UsageError

COMPRESSED = (".gz", ".bz2", ".xz")
STANDARD = Path("-")  # stdin where something is read, stdout where something is written


def check_target(path: Path, *, force: bool, option: str = "--out") -> None:
    """Raises UsageError where a file stands that nobody said to replace."""
    if path != STANDARD and path.is_file() and not force:
        raise UsageError(f"{option} {path}: exists; --force replaces it")


def partial_of(path: Path) -> Path:
    """What OUT is called while it is written."""
    return path.with_name(path.name + ".partial")


def shown(path: Path) -> str:
    """What a result is called in a message."""
    return "stdout" if path == STANDARD else str(path)


def run_folder(out: Path) -> Path:
    """Where what belongs to a training run is kept while it lasts: beside the artifact that it writes."""
    return out.absolute().with_name(out.absolute().name + ".run")


@contextmanager
def written(path: Path, *, encoding: str = "utf-8") -> Iterator[TextIO]:
    """A text file to write, without newline translation. Raises OSError naming the file."""
    with written_bytes(path) as binary, _compressed(binary, path.suffix) as packed:
        file = io.TextIOWrapper(packed, encoding, newline="")
        try:
            yield file
        finally:
            file.flush()
            file.detach()  # or it would close what it writes into


@contextmanager
def written_bytes(path: Path) -> Iterator[BinaryIO]:
    """A file to write, uncompressed. Raises OSError naming the file."""
    if path == STANDARD:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from None
    partial.replace(path)


@contextmanager
def _compressed(file: BinaryIO, suffix: str) -> Iterator[BinaryIO]:
    """What is written into it goes into the file, which stays open. The same content gives the same bytes."""
    if suffix == ".gz":
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            yield cast(BinaryIO, packed)
    elif suffix in COMPRESSED:
        with bz2.BZ2File(file, "wb") if suffix == ".bz2" else lzma.LZMAFile(file, "wb") as packed:
            yield cast(BinaryIO, packed)
    else:
        yield file
