"""JSON as the service writes it, whole or in pieces, none of which takes long to write.

Writing JSON holds the interpreter from beginning to end, in a thread too, and nobody else is served meanwhile.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ENTRIES = 256  # of a list, written at once: well under a millisecond


def as_json(value: Any) -> bytes:
    """Without spaces."""
    return _ENCODER.encode(value).encode()


def json_pieces(fields: Iterable[tuple[str, Any]]) -> Iterator[bytes]:
    """`as_json(dict(fields))` bit by bit. A value may be an iterator: its entries are written one by one as they come.
    Long lists are written in slices, those in the fields of such entries, too."""
    pairs = (_chain(as_json(name) + b":", _pieces(value)) for name, value in fields)
    return _joined(b"{", pairs, b"}")


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, Iterator):
        return _joined(b"[", map(_pieces, value), b"]")
    if isinstance(value, dict) and any(_is_long(entry) for entry in value.values()):
        return json_pieces(value.items())
    if _is_long(value):
        slices = (value[i : i + _ENTRIES] for i in range(0, len(value), _ENTRIES))
        return _joined(b"[", (iter([as_json(entries)[1:-1]]) for entries in slices), b"]")
    return iter([as_json(value)])


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and len(value) > _ENTRIES


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _joined(begin: bytes, parts: Iterable[Iterator[bytes]], end: bytes) -> Iterator[bytes]:
    """What the parts come to, with commas between them."""
    yield begin
    for i, part in enumerate(parts):
        if i:
            yield b","
        yield from part
    yield end
