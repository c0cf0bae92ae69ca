"""One text a line to a `Dataset`, in the pieces of a model that is already there.

Nothing is left out: a line with what the model does not know, or with more tokens than a canvas, is refused by its
number, since who learns an order for a model should know what it was not asked about.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unveil.model.errors import PromptError, UnveilError
from unveil.model.tokenizers.pieces import PieceTokenizer
from unveil.model.tokenizers.text import TextTokenizer
from unveil.training.data.config import LinesData
from unveil.training.data.dataset import Dataset, Rows
from unveil.training.data.files import named, read_bytes
from unveil.training.data.packing import decode
from unveil.training.data.splits import draw_out

LineTokenizer = TextTokenizer | PieceTokenizer
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Line:
    """A text and where it stands, for error lines."""

    text: str
    place: str


def load_lines(config: LinesData, tokenizer: LineTokenizer) -> Dataset:
    """Raises UnveilError naming the file and the line."""
    raw = {path: read_bytes(path) for path in config.files}
    lines = [line for path, content in raw.items() for line in _lines(path, content)]
    if len(lines) < len(SPLITS):
        raise UnveilError(f"{config.files[0]}: {len(lines)} lines; one for each of {', '.join(SPLITS)} is needed")
    tokenizer = _resized(tokenizer, config.length)
    parts = draw_out(len(lines), shares=(config.validation_share, config.test_share), seed=config.seed)
    ids = [_encode([lines[i] for i in part], tokenizer) for part in parts]
    train, validation, test = (_padded(split, tokenizer.length) for split in ids)
    return Dataset(
        name=config.files[0].stem,
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        test=test,
        lengths={name: np.array([len(row) for row in split]) for name, split in zip(SPLITS, ids, strict=True)},
        summary={
            "source": ", ".join(named(config.files)),
            "license": "not stated",
            "sha256": {name: hashlib.sha256(raw[path]).hexdigest() for name, path in named(config.files).items()},
            **{name: {"rows": len(split)} for name, split in zip(SPLITS, ids, strict=True)},
        },
    )


def _resized(tokenizer: LineTokenizer, length: int | None) -> LineTokenizer:
    """The tokenizer for canvases of `length`, None for its own. Raises UnveilError for more than that."""
    if length is not None and length > tokenizer.length:
        raise UnveilError(f"data.length: {length}, but the model of start.artifact takes at most {tokenizer.length}")
    return tokenizer if length is None else tokenizer.resized(length)


def _lines(path: Path, content: bytes) -> list[Line]:
    texts = [text.removesuffix("\r") for text in decode(content, path).split("\n")]
    return [Line(text, f"{path} line {number}") for number, text in enumerate(texts, start=1) if text.strip()]


def _encode(lines: Sequence[Line], tokenizer: LineTokenizer) -> list[NDArray[np.int64]]:
    found = []
    for line in lines:
        try:
            ids = tokenizer.line_ids(line.text)
        except PromptError as error:
            raise UnveilError(f"{line.place}: {error}") from None
        if not 1 <= len(ids) <= tokenizer.length:
            raise UnveilError(f"{line.place}: {len(ids)} tokens, a canvas takes 1 to {tokenizer.length}")
        found.append(np.array(ids, dtype=np.int64))
    return found


def _padded(rows: Sequence[NDArray[np.int64]], length: int) -> Rows:
    """[N, L], each row filled up with its own first id: padding is never looked at, but it must be an id on offer."""
    filled = np.empty((len(rows), length), dtype=np.int64)
    for into, row in zip(filled, rows, strict=True):
        into[: len(row)], into[len(row) :] = row, row[0]
    return filled
