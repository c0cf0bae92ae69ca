"""How the text of a file is packed: compressed or plain, UTF-8 or UTF-16. The first bytes decide, not the name.

What is refused, an Excel workbook say, is refused in one line that says what to do.
"""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from unveil.model.errors import UnveilError

LINE_END = re.compile(r"\r\n|\r|\n")
BYTE_ORDER_MARK = "\ufeff"
_PEEKED = 16
_DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)
_SHEET = "save the sheet as CSV (in Excel: Save As, CSV UTF-8)"
_REFUSED = {
    b"\xd0\xcf\x11\xe0": f"is an Excel workbook, which is not read; {_SHEET}",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd, which is not read; unpack it (zstd -d)",
}

_Unpacked = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile


class ParquetError(UnveilError):
    """A file of text was wanted, and this is Parquet."""


def _compression(head: bytes) -> Callable[[BinaryIO], _Unpacked] | None:
    if head.startswith(b"\x1f\x8b"):
        return lambda file: gzip.GzipFile(fileobj=file, mode="rb")
    if re.match(rb"BZh[1-9]1AY&SY", head):
        return lambda file: bz2.BZ2File(file, "rb")
    if head.startswith(b"\xfd7zXZ\x00"):
        return lambda file: lzma.LZMAFile(file, "rb")
    return None


def _encoding(head: bytes) -> str:
    """By the byte order mark, or by the zeros that ASCII has in UTF-16."""
    if head.startswith(b"\xff\xfe") or (len(head) > 3 and head[0] != 0 == head[1] and head[2] != 0 == head[3]):
        return "utf-16-le"
    if head.startswith(b"\xfe\xff") or (len(head) > 3 and head[0] == 0 != head[1] and head[2] == 0 != head[3]):
        return "utf-16-be"
    return "utf-8"


def unpack(raw: bytes, path: Path) -> bytes:
    """A file's bytes without their compression. Raises UnveilError for damaged ones, and for workbooks and archives."""
    _check(raw, path)
    decompress = _compression(raw[:_PEEKED])
    if decompress is None:
        return raw
    try:
        return decompress(io.BytesIO(raw)).read()
    except (*_DAMAGED, OSError):
        raise _damaged(path) from None


def decode(raw: bytes, path: Path) -> str:
    """The text of a file's bytes, compressed or not, without a byte order mark. Raises UnveilError naming the line."""
    raw = unpack(raw, path)
    encoding = _encoding(raw[:_PEEKED])
    try:
        return raw.decode(encoding).removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode(encoding)
        raise _no_text(path, len(LINE_END.findall(before)) + 1, encoding) from None


@contextmanager
def opened(path: Path) -> Iterator[tuple[TextIO, BinaryIO]]:
    """A file's text, in constant memory, and the file itself, which tells how far it has been read.

    Line ends and a byte order mark stay. `checked_line` finds what is no UTF-8. Raises UnveilError and
    OSError, ParquetError for Parquet.
    """
    with path.open("rb") as file:
        head = file.peek(_PEEKED)[:_PEEKED]
        _check(head, path)
        decompress = _compression(head)
        plain = file if decompress is None else io.BufferedReader(cast(io.RawIOBase, decompress(file)))
        try:
            start = plain.peek(_PEEKED)[:_PEEKED]
            if start.startswith(b"PAR1"):
                raise ParquetError(f"{path} is Parquet")
            encoding = _encoding(start)
            errors = "surrogateescape" if encoding == "utf-8" else "strict"
            yield io.TextIOWrapper(plain, encoding, errors=errors, newline=""), file
        except UnicodeDecodeError:
            raise UnveilError(f"{path} is not {encoding[:6].upper()} text") from None
        except _DAMAGED:
            raise _damaged(path) from None


def checked_line(line: str, path: Path, number: int) -> str:
    """A line that `opened` gave. Raises UnveilError where its bytes are no UTF-8."""
    if not line.isascii() and any("\udc80" <= sign <= "\udcff" for sign in line):
        raise _no_text(path, number, "utf-8")
    return line


def _check(head: bytes, path: Path) -> None:
    """Raises UnveilError for what is no text and no Parquet."""
    if head.startswith(b"PK\x03\x04"):
        raise UnveilError(f"{path} is an Excel workbook or a zip archive, which is not read; {_SHEET}, or unpack it")
    for magic, reason in _REFUSED.items():
        if head.startswith(magic):
            raise UnveilError(f"{path} {reason}")


def _damaged(path: Path) -> UnveilError:
    return UnveilError(f"{path} is compressed, and damaged or cut short")


def _no_text(path: Path, line: int, encoding: str) -> UnveilError:
    return UnveilError(f"{path} line {line} is not {encoding[:6].upper().removesuffix('-')} text")
