"""Clean canvases of one split as tensors, random known sets for them, and means over rows.

The evaluation, the batches and the benchmarks share these.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unveil.training.data.dataset import Dataset

BATCH_ROWS = 512
MOST_BORDERS = 6  # between what is known and what is not, in a prompt of `known_spans`


@dataclass(frozen=True)
class Rows:
    """Clean canvases: ids [N, L] and lengths [N]; positions from a row's length on are padding. `clues` [N, L] bool is
    what each row always shows, because its prompt belongs to the data; None where nothing is. `end_id` ends a sequence
    (`model.decoding.canvas`); None where no id does."""

    x: Tensor
    lengths: Tensor
    clues: Tensor | None = None
    end_id: int | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def padding(self) -> Tensor:
        return torch.arange(self.x.shape[1], device=self.x.device) >= self.lengths[:, None]

    def batches(self, *others: Tensor, size: int = BATCH_ROWS) -> Iterator[tuple["Rows", tuple[Tensor, ...]]]:
        for start in range(0, len(self), size):
            cut = slice(start, start + size)
            yield self.at(cut), tuple(other[cut] for other in others)

    @property
    def given(self) -> Tensor:
        """What is never hidden: padding and clues, [N, L] bool."""
        return self.padding if self.clues is None else self.padding | self.clues

    def at(self, index: slice | Tensor) -> "Rows":
        """Some of the rows."""
        clues = None if self.clues is None else self.clues[index]
        return replace(self, x=self.x[index], lengths=self.lengths[index], clues=clues)

    def subset(self, limit: int | None) -> "Rows":
        """At most `limit` of the rows, evenly spaced."""
        chosen = evenly_spaced(len(self), limit)
        return self if len(chosen) == len(self) else self.at(torch.from_numpy(chosen).to(self.x.device))

    def widened(self) -> "Rows":
        """Ids as int64, however they are kept."""
        return replace(self, x=self.x.long())

    def to(self, device: torch.device) -> "Rows":
        clues = None if self.clues is None else self.clues.to(device)
        return replace(self, x=self.x.to(device), lengths=self.lengths.to(device), clues=clues)


def evenly_spaced(num_rows: int, limit: int | None) -> NDArray[np.int64]:
    """Row numbers of a subset: min(limit, num_rows) of 0..num_rows-1, evenly spaced and ascending; all without a limit.

    Every subset of a split is taken by this function. The head of a split is not representative: files are sorted by
    length, by date or by chapter, and splits keep the order of their file.
    """
    if limit is None or limit >= num_rows:
        return np.arange(num_rows)
    return (2 * np.arange(limit) + 1) * num_rows // (2 * limit)  # the middle of each of `limit` equal stretches


def as_rows(
    ids: NDArray[Any],
    lengths: NDArray[np.int64] | None = None,
    *,
    clues: NDArray[np.bool_] | None = None,
    limit: int | None = None,
    is_packed: bool = False,
) -> Rows:
    """A split of a dataset as tensors; `limit` evenly spaced rows of it. Packed, ids stay as narrow as they come."""
    chosen = slice(None) if limit is None else evenly_spaced(len(ids), limit)
    x = torch.from_numpy(np.ascontiguousarray(ids[chosen]))
    x = x if is_packed else x.long()
    full = torch.full((len(x),), x.shape[1])
    shown = None if clues is None else torch.from_numpy(np.ascontiguousarray(clues[chosen]))
    return Rows(x, full if lengths is None else torch.from_numpy(np.ascontiguousarray(lengths[chosen])), shown)


def some_rows(rows: NDArray[np.int64], most: int, generator: np.random.Generator) -> Tensor:
    """Random rows of a split [N, L], at most so many."""
    return torch.from_numpy(np.ascontiguousarray(rows[generator.permutation(len(rows))[:most]]))


def split_rows(dataset: Dataset, split: str, *, limit: int | None = None, is_packed: bool = False) -> Rows:
    """A split with all that belongs to it."""
    lengths, clues = dataset.lengths.get(split), dataset.known.get(split)
    rows = as_rows(getattr(dataset, split), lengths, clues=clues, limit=limit, is_packed=is_packed)
    return replace(rows, end_id=dataset.tokenizer.end_id)


def known_sets(rows: Rows, *, seed: int) -> Tensor:
    """A random known set a row, |C| ~ U{0..n-1} and C uniform given its size: [N, L] bool, of the n positions that are
    neither padding nor clues."""
    generator = torch.Generator().manual_seed(seed)
    n = (~rows.given).sum(-1)
    drawn = torch.rand(len(rows), generator=generator, dtype=torch.float64).to(n.device)
    sizes = (drawn * n).long().clamp(max=n.max())
    scores = torch.rand(rows.x.shape, generator=generator).to(n.device).masked_fill(rows.given, 2.0)
    return scores.argsort(-1).argsort(-1) < sizes[:, None]


def known_spans(rows: Rows, *, seed: int) -> Tensor:
    """Known stretches a row, [N, L] bool: 1 to 6 borders, uniform in number and in place, between known and hidden
    stretches in turn. One border leaves a prefix or a suffix, two a text with a hole or its middle alone, and so on.
    A row that it would leave nothing to generate knows nothing beyond what is given."""
    generator = torch.Generator().manual_seed(seed)
    N, L = rows.x.shape
    places = (torch.rand((N, MOST_BORDERS), generator=generator, dtype=torch.float64) * rows.lengths[:, None]).long()
    counts = torch.randint(1, MOST_BORDERS + 1, (N, 1), generator=generator)
    is_used = torch.arange(MOST_BORDERS) < counts
    first = torch.randint(2, (N, 1), generator=generator)
    passed = (is_used[:, :, None] & (places[:, :, None] <= torch.arange(L))).sum(1)  # [N, L]
    known = ((passed + first) % 2 == 1) & ~rows.given
    return known & ~(known | rows.given).all(-1, keepdim=True)
