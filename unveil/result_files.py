"""Result files that are whole or not there.

While it is written, OUT is OUT.partial, and takes its name when whole; an interrupted run leaves OUT.partial with the
rows it had, and the next run writes it anew. What is no regular file, a pipe or /dev/stdout say, is written directly.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from unveil.output import UsageError


def check_target(path: Path, *, force: bool, option: str = "--csv") -> None:
    """Raises UsageError where a file stands that nobody said to replace."""
    if path.is_file() and not force:
        raise UsageError(f"{option} {path}: exists; --force replaces it")


def partial_of(path: Path) -> Path:
    """What OUT is called while it is written."""
    return path.with_name(path.name + ".partial")


@contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """A text file to write, without newline translation. Raises OSError naming the file."""
    if path.exists() and not path.is_file():
        with path.open("w", newline="", encoding="utf-8") as file:
            yield file
        return
    partial = partial_of(path)
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from None
    partial.replace(path)
