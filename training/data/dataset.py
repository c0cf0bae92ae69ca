"""What the trainer gets: encoded rows in three splits, their tokenizer and where they come from. Knows no file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.tokenizers.base import Tokenizer

Rows = NDArray[Any]  # whole numbers of any width
_BLOCK_ROWS = 65_536  # of ids widened at once


@dataclass(frozen=True)
class Dataset:
    """`train`, `validation` and `test` hold ids [N, L], in bytes where rows are many; `lengths` the [N] lengths of each
    split where rows are padded, and nothing where every row has all L positions.

    `summary` is JSON for the model card: source, licence, sha256, rows, dropped columns, rows left out, notices.
    """

    name: str
    tokenizer: Tokenizer
    train: Rows
    validation: Rows
    test: Rows
    lengths: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
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
        for name, array in arrays.items():
            digest.update(f"{name} {array.shape}".encode())
            for start in range(0, len(array), _BLOCK_ROWS):
                digest.update(np.ascontiguousarray(array[start : start + _BLOCK_ROWS], dtype="<i8").tobytes())
        return digest.hexdigest()
