"""What the trainer gets: encoded rows in three splits, their tokenizer and where they come from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unveil.model.tokenizers.base import Tokenizer

Rows = NDArray[Any]  # whole numbers of any width
_BLOCK_ROWS = 65_536  # of ids widened at once
Known = NDArray[np.bool_]


class Symmetries(Protocol):
    """Random changes of rows that keep their law: another puzzle that is as good."""

    def __call__(self, rows: Rows, known: Known, generator: np.random.Generator) -> tuple[Rows, Known]: ...


@dataclass(frozen=True)
class Dataset:
    """`train`, `validation` and `test` hold ids [N, L], in bytes where rows are many; `lengths` the [N] lengths of each
    split where rows are padded, and nothing where every row has all L positions. `known` holds, where prompts belong to
    the data (a sudoku's clues), what each row of a split always shows: [N, L] each. `symmetries`, if there are any, are
    applied to training rows afresh in every step.

    `summary` is JSON for the model card: source, license, sha256, rows, dropped columns, rows left out, notices.
    """

    name: str
    tokenizer: Tokenizer
    train: Rows
    validation: Rows
    test: Rows
    lengths: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    known: Mapping[str, Known] = field(default_factory=dict)
    symmetries: Symmetries | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str | None, ...]:
        """The name of each position, None where positions have none."""
        return tuple(self.tokenizer.name(i) for i in range(self.train.shape[1]))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of everything the weights can depend on: all ids with their shapes, and what the ids mean."""
        digest = hashlib.sha256(json.dumps(self.tokenizer.describe(), sort_keys=True).encode())
        arrays = {"train": self.train, "validation": self.validation, "test": self.test, **self.lengths}
        arrays |= {f"{name} known": known.astype(np.int64) for name, known in self.known.items()}
        for name, array in arrays.items():
            digest.update(f"{name} {array.shape}".encode())
            for start in range(0, len(array), _BLOCK_ROWS):
                digest.update(np.ascontiguousarray(array[start : start + _BLOCK_ROWS], dtype="<i8").tobytes())
        return digest.hexdigest()
