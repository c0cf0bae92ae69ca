"""The cache's memory: keys, values and last states of what is revealed. A function of canvases and weights, never the
truth.

A row has a column a content, in the order of arrival, from `FIRST` on: the beginning first. What stands in front of
them takes what slots without work write.
"""

from typing import NamedTuple

import torch
from torch import Tensor

LATER = 1 << 30  # the rank of what nobody reads
FIRST = 1
_VIEWS_KEPT = 256


class RowSize(NamedTuple):
    """Of a row: layers of contents and of queries together, heads of width E, and columns."""

    layers: int
    heads: int
    E: int
    num_columns: int
    dtype: torch.dtype
    device: torch.device

    @property
    def num_bytes(self) -> int:
        """What a row takes."""
        num_values = (2 * self.layers + 1) * self.heads * self.E  # keys and values of all layers, and a state
        return self.num_columns * (num_values * self.dtype.itemsize + 16)


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
    """Keys and values of `num_rows` rows, last states, and of each column the rank and the place of what stands there.

    `contents` [layers, 2, R, H, S, E]: keys, then values. `states` [R, S, D]. `table` [2, R, S] int64: ranks, then
    places. `state_cells` [R * S, D] and `cells` [2, R * S] are the same.
    """

    def __init__(self, size: RowSize, num_rows: int) -> None:
        self.size, self.num_rows, device = size, num_rows, size.device
        self.contents = torch.zeros(
            size.layers, 2, num_rows, size.heads, size.num_columns, size.E, dtype=size.dtype, device=device
        )
        self.states = torch.zeros(num_rows, size.num_columns, size.heads * size.E, dtype=size.dtype, device=device)
        self.state_cells = self.states.flatten(0, 1)
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
        own = slice(FIRST, FIRST + num_contents)
        self.contents[:, :, target, :, own] = self.contents[:, :, source, :, own]
        self.states[target, own] = self.states[source, own]
        self.clear(target)
        self.table[:, target, own] = self.table[:, source, own]

    def grown(self, num_rows: int) -> "Memory":
        """The same with more rows."""
        memory = Memory(self.size, num_rows)
        memory.contents[:, :, : self.num_rows] = self.contents
        memory.states[: self.num_rows] = self.states
        memory.table[:, : self.num_rows] = self.table
        return memory
