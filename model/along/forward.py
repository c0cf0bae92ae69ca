"""Late queries along their order: what is revealed is computed once, and what is asked reads it from memory.

A forward computes slots: contents, whose keys, values and last states stay in memory, and queries, whose last states
say what a hidden position holds. A content of rank r reads the contents of ranks below r and itself, one of rank 0 all
of rank 0, the beginning among them. A query starts as the last content of its state and reads the contents of ranks
below its turn; nobody reads it, so that a forward takes any number of them, at any turns. So a row's past is one
forward or many, whichever way it is cut: `LateQueries.read_in_turn` is the same function over whole rows, and its
definition.

A forward reads no further than the fullest row of its batch (`model.along.memory` has the columns).
"""

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unveil.model.along.memory import FIRST, LATER, Memory, RowSize, Seen, Stored
from unveil.model.denoiser import sent
from unveil.model.network.attention import PairBias, PlaceBias, SlotBias
from unveil.model.network.folded import Folded, QueryLayer, folded, product, query_layer
from unveil.model.network.late import LateQueries, QueryBlock

Ints = NDArray[np.int64]
LEAST_ROWS = 4  # of a product: one of fewer rows is another kernel, which rounds otherwise
WIDTH_STEP = 16  # of the columns that a forward reads
NOBODY = -1  # the column of a query


class Slots:
    """What one forward computes, [5, B, C + A] int64: C contents of each row stand first, A queries behind them.

    `sources`: a content's row of the embedding; the column of a query's first state. `columns`: where a content is
    written, and read by itself; NOBODY for queries. `turns`: a slot reads the columns of ranks below. `ranks`: of what
    is written. `places`: `Along.places` of contents, positions of queries. Slots without work stand in column 0.
    """

    def __init__(self, B: int, num_contents: int, num_asked: int) -> None:
        """Slots without work."""
        self.num_contents, self.num_asked = num_contents, num_asked
        self.all: Ints = np.zeros((5, B, num_contents + num_asked), np.int64)
        self.sources, self.columns, self.turns, self.ranks, self.places = self.all
        self.ranks[:] = LATER


class Run(Protocol):
    """See `Along.run`."""

    def __call__(self, memory: Memory, first: int, slots: Slots, *, num_contents: int) -> Tensor: ...


class Along(Folded):
    """A network of late queries, its forward over slots. Its weights must not change any more."""

    def __init__(self, network: LateQueries) -> None:
        super().__init__(network)
        length, sizes = self.architecture.length, torch.tensor(self.architecture.vocabulary_sizes)
        weight, H = network.embedding.weight, self.architecture.heads
        query_blocks = [cast(QueryBlock, block) for block in network.query_blocks]
        num_columns = -(-(FIRST + 1 + length) // WIDTH_STEP) * WIDTH_STEP
        shape = (len(self.blocks) + len(query_blocks), H, self.architecture.width // H, num_columns)
        self.size = RowSize(*shape, weight.dtype, weight.device)
        self.offsets: list[int] = [*(sizes.cumsum(0) - sizes).expand(length).tolist(), int(sizes.sum())]
        with torch.no_grad():
            self._bias = _Scores([block.attention.relative for block in self.blocks], self.size, length)
            self._query_bias = _Scores([block.place_bias for block in query_blocks], self.size, length)
            self.places = [*range(length), self._bias.beginning]
            self._embedding = torch.cat([weight, network.beginning[None]])
            self._position = F.pad(network.position, (0, 0, 0, self._bias.beginning + 1 - length))
            self._target = network.target.detach()
            self.query_layers = [query_layer(block, self.architecture.activation) for block in query_blocks]
            self._query_places = torch.stack([layer.places for layer in self.query_layers], 1)  # [L, layers, 4, D]
            weights = [folded(block.content_norm, block.key_value)[0] for block in query_blocks]
            self.late_keys = product(torch.cat(weights), None)
        self._columns = torch.arange(num_columns, device=weight.device)
        self.is_fused = weight.device.type != "cpu"  # attention in one kernel, which on a CPU is slower

    def width(self, num_contents: int) -> int:
        """How many columns a forward reads, so many contents being in its fullest row."""
        return -(-(FIRST + num_contents) // WIDTH_STEP) * WIDTH_STEP

    @torch.inference_mode()
    def run(self, memory: Memory, first: int, slots: Slots, *, num_contents: int) -> Tensor:
        """Computes slots [B, C + A] of the rows from `first` on, and gives the queries' last states [B, A, D].
        `num_contents`: the most of any row, what is written now and the beginning included."""
        given, width = sent(slots.all, self.size.device), self.width(num_contents)
        return self.compute(memory, first, given, width=width, num_asked=slots.num_asked)

    def compute(self, memory: Memory, first: int, given: Tensor, *, width: int, num_asked: int) -> Tensor:
        """`run` of slots [5, B, C + A] that are on the device, over so many columns. Their values are read on the
        device alone, so that what is done there can be recorded and replayed (`model.along.graphs`)."""
        _, B, Q = given.shape
        seen, C = memory.seen(first, B, width), Q - num_asked
        if C:
            self._write(memory, seen, given[..., :C])
        if not num_asked:
            return memory.states.new_zeros(B, 0, self.architecture.width)
        return self._ask(memory, seen, given[..., C:])

    def _write(self, memory: Memory, seen: Seen, given: Tensor) -> None:
        """Contents [5, B, C], to be read from now on."""
        (_, B, C), D = given.shape, self.architecture.width
        sources, columns, _, _, places = given
        cells = (columns + seen.row_starts).view(-1)
        memory.cells.index_copy_(1, cells, given[3:].flatten(1))
        biases = self._bias.of(self._is_read(seen, given), seen.places, places)
        target = (columns[..., None, None] + seen.head_starts).view(-1)  # of each slot's keys and values
        x = F.embedding(sources, self._embedding).add_(F.embedding(places, self._position)).view(B * C, D)
        for layer, stored, bias in zip(self.layers, seen.stored, biases, strict=False):
            qkv = layer.qkv(self.norm(x))
            self._store(qkv[:, D:], stored, target)
            x = self.finished(layer, x, self.attended(qkv[:, :D].view(B, C, D), stored, bias))
        memory.state_cells.index_copy_(0, cells, x)
        keys = torch.split(self.late_keys(self.norm(x)), 2 * D, -1)
        for of, stored in zip(keys, seen.stored[len(self.layers) :], strict=True):
            self._store(of, stored, target)

    def _ask(self, memory: Memory, seen: Seen, given: Tensor) -> Tensor:
        """Queries [5, B, A] -> last states [B, A, D]."""
        (_, B, A), D = given.shape, self.architecture.width
        sources, _, _, _, places = given
        positions = places.reshape(-1)
        biases = self._query_bias.of(self._is_read(seen, given), seen.places, places)
        x = memory.state_cells.index_select(0, (sources + seen.row_starts).view(-1))
        x = x.add_(self._target.index_select(0, positions))
        norms = self._query_places.index_select(0, positions).unbind(1)  # [N, 4, D] a layer
        for layer, stored, bias, own in zip(
            self.query_layers, seen.stored[len(self.layers) :], biases, norms, strict=True
        ):
            attended = self.attended(self.query(layer, x, own).view(B, A, D), stored, bias)
            x = self.answered(layer, x, attended, own)
        return x.view(B, A, D)

    def query(self, layer: QueryLayer, x: Tensor, norms: Tensor) -> Tensor:
        """What a query looks for: [N, D] of states [N, D], gains and shifts [N, 4, D]."""
        return layer.query(torch.addcmul(norms[:, 1], self.norm(x), norms[:, 0]))

    def answered(self, layer: QueryLayer, x: Tensor, attended: Tensor, norms: Tensor) -> Tensor:
        """The rest of a block of queries, [N, D] each; gains and shifts [N, 4, D]."""
        x = layer.out(attended).add_(x)
        return layer.narrow(layer.widen(torch.addcmul(norms[:, 3], self.norm(x), norms[:, 2]))).add_(x)

    def attended(self, q: Tensor, stored: Stored, bias: Tensor) -> Tensor:
        """Queries [B, Q, D] and bias [B * H, Q + LEAST_ROWS - 1, S] -> [B * Q, D]."""
        (B, Q, D), H, E = q.shape, self.size.heads, self.size.E
        if self.is_fused:
            k, v, mask = (x.view(B, H, *x.shape[1:]) for x in (stored.keys.mT, stored.values, bias[:, :Q]))
            read = F.scaled_dot_product_attention(q.reshape(B, Q, H, E).transpose(1, 2), k, v, mask)
            return read.transpose(1, 2).reshape(B * Q, D)
        if Q < LEAST_ROWS:
            q = F.pad(q, (0, 0, 0, LEAST_ROWS - Q))
        rows = q.shape[1]
        q = q.reshape(B, rows, H, E).transpose(1, 2).reshape(B * H, rows, E)
        scores = torch.baddbmm(bias[:, :rows], q, stored.keys, alpha=E**-0.5).softmax(-1)
        attended = torch.bmm(scores, stored.values).view(B, H, rows, E).transpose(1, 2)
        return (attended if rows == Q else attended[:, :Q]).reshape(B * Q, D)

    def _is_read(self, seen: Seen, given: Tensor) -> Tensor:
        """Which columns slots [5, B, Q] read: [B, Q, S]."""
        _, columns, turns, _, _ = given
        S = seen.ranks.shape[1]
        is_read: Tensor = (seen.ranks[:, None] < turns[..., None]) | (columns[..., None] == self._columns[:S])
        return is_read

    def _store(self, keys: Tensor, stored: Stored, target: Tensor) -> None:
        """Keys and values [N, 2 D]."""
        stored.cells.index_copy_(0, target, keys.reshape(-1, self.size.E))


class _Scores:
    """What is added to the scores by places, in all layers, and minus infinity where nothing is read.

    `_values` [layers, H, all]: at the place read minus the one that reads, or at their pair. `beginning` is the place
    of the beginning: where distances count, so far off that its distances are its own. Where it reads, one
    value is added to all that it reads, on which attention does not depend.
    """

    def __init__(self, modules: Sequence[PlaceBias | None], size: RowSize, length: int) -> None:
        self._size, self._layers = size, len(modules)
        self._is_relative = isinstance(modules[0], SlotBias)
        self.beginning = 2 * length if self._is_relative else length
        own = [_values(module, length) for module in modules if module is not None]
        self._values = torch.cat(own).contiguous() if own else None

    def of(self, is_read: Tensor, places: Tensor, reading: Tensor) -> Sequence[Tensor]:
        """For each layer [B * H, Q + LEAST_ROWS - 1, S]: is_read [B, Q, S], places [B, S] of what is read and [B, Q] of
        what reads."""
        (B, Q, S), layers, H = is_read.shape, self._layers, self._size.heads
        bias = torch.zeros(layers, B, H, Q + LEAST_ROWS - 1, S, dtype=self._size.dtype, device=self._size.device)
        if self._values is not None:
            reads = self.beginning - reading if self._is_relative else reading * (self.beginning + 1)
            index = (places[:, None] + reads[..., None]).view(-1)
            found = self._values.index_select(1, index).view(layers, H, B, Q, S)
            bias[:, :, :, :Q] = found.transpose(1, 2)
        bias[:, :, :, :Q].masked_fill_(~is_read[:, None], -torch.inf)
        return bias.flatten(1, 2).unbind(0)


def _values(module: PlaceBias, length: int) -> Tensor:
    """One layer's, [H, all]; see `_Scores`. The modules count slots, of which the beginning is the first."""
    if isinstance(module, SlotBias):
        distances, read = module.places.embedding, module.front[:, None]  # [H, 2 L - 1]
        reads = distances[:, length - 1 : length].expand(-1, length + 1)  # as the beginning reads itself
        return torch.cat([reads, distances, read.expand(-1, length + 1)], 1)  # at 0, L + 1, 3 L
    assert isinstance(module, PairBias)
    values: Tensor = module(length + 1)
    return values.roll((-1, -1), (1, 2)).flatten(1)  # by places, of which the beginning's is the last
