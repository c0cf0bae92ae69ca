"""The cache's memory: keys and values of what is revealed. A function of canvases and weights, never the truth."""

from typing import NamedTuple

import torch
from torch import Tensor

LATER = 1 << 30  # the rank of what nobody reads
_VIEWS_KEPT = 256


class RowSize(NamedTuple):
    """Of a row: layers, heads of width E, columns, and which of these is the first that may hold a content."""

    layers: int
    heads: int
    E: int
    num_columns: int
    first: int
    dtype: torch.dtype
    device: torch.device

    @property
    def num_bytes(self) -> int:
        """What a row takes."""
        return self.num_columns * (2 * self.layers * self.heads * self.E * self.dtype.itemsize + 16)


class Stored(NamedTuple):
    """One layer: `cells` [all, E] to write; of some rows and columns keys [B * H, E, S] and values [B * H, S, E]."""

    cells: Tensor
    keys: Tensor
    values: Tensor


class Seen(NamedTuple):
    """Some rows and columns: ranks and places [B, S]; each layer; where rows [B, 1] and heads [B, 1, 2, H] begin."""

    ranks: Tensor
    places: Tensor
    stored: tuple[Stored, ...]
    row_starts: Tensor
    head_starts: Tensor


class Memory:
    """Keys and values of `num_rows` rows, and of each column the rank and the position of what stands there.

    `contents` [layers, 2, R, H, S, E]: keys, then values. `table` [2, R, S] int64: ranks, then positions; `cells`
    [2, R * S] is the same.
    """

    def __init__(self, size: RowSize, num_rows: int) -> None:
        self.size, self.num_rows, device = size, num_rows, size.device
        self.contents = torch.zeros(
            size.layers, 2, num_rows, size.heads, size.num_columns, size.E, dtype=size.dtype, device=device
        )
        self.table = torch.zeros(2, num_rows, size.num_columns, dtype=torch.int64, device=device)
        self.table[0] = LATER
        self.cells = self.table.flatten(1)
        rows, halves = torch.arange(num_rows, device=device), torch.arange(2, device=device)[:, None] * num_rows
        heads = (halves + rows[:, None, None]) * size.heads + torch.arange(size.heads, device=device)
        self._row_starts = rows[:, None] * size.num_columns  # [R, 1], in a table
        self._head_starts = heads * size.num_columns  # [R, 2, H], in the contents of a layer
        self._seen: dict[tuple[int, int, int], Seen] = {}

    def seen(self, first: int, num_rows: int, width: int) -> Seen:
        """The first `width` columns of these rows."""
        key = first, num_rows, width
        found = self._seen.get(key)
        if found is None:
            if len(self._seen) == _VIEWS_KEPT:
                self._seen.clear()
            rows = slice(first, first + num_rows)
            stored = tuple(self._stored(layer, rows, width) for layer in self.contents)
            ranks, places = self.table[:, rows, :width]
            found = Seen(ranks, places, stored, self._row_starts[rows], self._head_starts[rows, None])
            self._seen[key] = found
        return found

    def _stored(self, layer: Tensor, rows: slice, width: int) -> Stored:
        keys, values = layer[:, rows, :, :width].flatten(1, 2)
        return Stored(layer.view(-1, self.size.E), keys.mT, values)

    def clear(self, row: int) -> None:
        """Nothing in this row is read any more."""
        self.table[0, row] = LATER

    def copy(self, source: int, target: int, num_contents: int) -> None:
        """The first contents of a row to another one, which has nothing else then."""
        own = slice(self.size.first, self.size.first + num_contents)
        self.contents[:, :, target, :, own] = self.contents[:, :, source, :, own]
        self.clear(target)
        self.table[:, target, own] = self.table[:, source, own]

    def grown(self, num_rows: int) -> "Memory":
        """The same with more rows."""
        memory = Memory(self.size, num_rows)
        memory.contents[:, :, : self.num_rows] = self.contents
        memory.table[:, : self.num_rows] = self.table
        return memory
