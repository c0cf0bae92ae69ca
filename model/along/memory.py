"""The cache's memory: keys and values of what is revealed. A function of canvases and weights, never the truth."""

from typing import NamedTuple

import torch

LATER = 1 << 30  # the rank of what nobody reads


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


class Memory:
    """Keys and values of `num_rows` rows, and of each column the rank and the position of what stands there.

    `contents` [layers, 2, R, H, S, E]: keys, then values. `table` [2, R, S] int64: ranks, then positions.
    """

    def __init__(self, size: RowSize, num_rows: int) -> None:
        self.size, self.num_rows, device = size, num_rows, size.device
        self.contents = torch.zeros(
            size.layers, 2, num_rows, size.heads, size.num_columns, size.E, dtype=size.dtype, device=device
        )
        self.table = torch.zeros(2, num_rows, size.num_columns, dtype=torch.int64, device=device)
        self.table[0] = LATER
        rows, halves = torch.arange(num_rows, device=device), torch.arange(2, device=device)[:, None] * num_rows
        heads = (halves + rows[:, None, None]) * size.heads + torch.arange(size.heads, device=device)
        self.row_starts = rows[:, None] * size.num_columns  # [R, 1], in a table
        self.head_starts = heads * size.num_columns  # [R, 2, H], in the contents of a layer

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
