"""The transformer along its order: what is revealed is computed once, and what is asked reads it from memory.

For networks that attend to what was revealed earlier. A forward computes slots: contents, whose keys and values stay in
memory, and questions, whose last states say what a hidden position holds. A content of rank r reads the contents of
ranks below r and itself, one of rank 0 all of rank 0; a question reads the contents of ranks below its turn, and
itself. So a row's past is one forward or many, whichever way it is cut: `Transformer.in_turn` is the same function over
whole rows, and its definition.

A row of memory has a column a content, in the order of arrival, so that a forward reads no further than the fullest
row of its batch. In front stand columns that hold no contents: column 0 takes what slots without work write; a question
writes to and reads its own, which follows from its position, so that sums run in one order whatever else is asked.
Where a canvas is asked for everything that it hides, questions stand apart: they write nothing that is read, and read
themselves beside the columns.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unveil.model.along.memory import LATER, Memory, RowSize, Stored
from unveil.model.denoiser import sent
from unveil.model.network.attention import PlaceBias, RelativeBias
from unveil.model.network.folded import Folded
from unveil.model.network.transformer import Transformer

Ints = NDArray[np.int64]
LEAST_ROWS = 4  # of a product: one of fewer rows is another kernel, which rounds otherwise
WIDTH_STEP = 16  # of the columns that a forward reads
_SHORT = 256


class Slots:
    """What one forward computes, [5, B, Q] int64: contents stand first in a row, questions last.

    `ids`: rows of the embedding, the mask's for questions. `columns`: where a slot's key and value are written, and
    read by itself, 0 for a question that stands apart. `turns`: it reads the columns of ranks below. `ranks`: of what
    it writes, LATER for questions.
    """

    def __init__(self, B: int, Q: int, *, mask: int) -> None:
        """Slots without work."""
        self.all: Ints = np.zeros((5, B, Q), np.int64)
        self.ids, self.columns, self.turns, self.ranks, self.positions = self.all
        self.ids[:], self.ranks[:] = mask, LATER


class Run(Protocol):
    """See `Along.run`."""

    def __call__(
        self, memory: Memory, first: int, slots: Slots, *, num_contents: int, num_asked: int, is_apart: bool = False
    ) -> Tensor: ...


class Along(Folded):
    """A transformer's forward over slots. Its weights must not change any more."""

    def __init__(self, network: Transformer) -> None:
        assert network.architecture.attends == "earlier"
        super().__init__(network)
        length, sizes = self.architecture.length, torch.tensor(self.architecture.vocabulary_sizes)
        weight, H = network.embedding.weight, self.architecture.heads
        first = 16 if length <= _SHORT else 64
        num_columns = first + -(-length // WIDTH_STEP) * WIDTH_STEP
        shape = (len(self.layers), H, self.architecture.width // H, num_columns, first)
        self.size = RowSize(*shape, weight.dtype, weight.device)
        with torch.no_grad():
            self._embedding = torch.cat([weight, network.mask[None]])
            self._position = network.position.detach()
            self._bias = _biases([block.attention.relative for block in self.blocks])
        self.mask = int(sizes.sum())
        self.offsets: list[int] = (sizes.cumsum(0) - sizes).expand(length).tolist()
        self._columns = torch.arange(num_columns, device=weight.device)
        self._columns_apart = self._columns.clone()
        self._columns_apart[0] = -1  # nobody's
        self.is_fused = weight.device.type != "cpu"  # attention in one kernel, which on a CPU is slower

    def empty(self, B: int, Q: int) -> Slots:
        """Slots without work."""
        return Slots(B, Q, mask=self.mask)

    def own_column(self, position: int) -> int:
        """The column of the question of a position."""
        return position % (self.size.first - 1) + 1

    def width(self, num_contents: int) -> int:
        """How many columns a forward reads, so many contents being in its fullest row."""
        return self.size.first + max(-(-num_contents // WIDTH_STEP), 1) * WIDTH_STEP

    @torch.inference_mode()
    def run(
        self, memory: Memory, first: int, slots: Slots, *, num_contents: int, num_asked: int, is_apart: bool = False
    ) -> Tensor:
        """Computes slots [B, Q] of the rows from `first` on, and gives the last `num_asked` slots' last states
        [B, num_asked, D]. `num_contents`: the most of any row, what is written now included. `is_apart`: whether
        questions stand apart."""
        given, width = sent(slots.all, self.size.device), self.width(num_contents)
        return self.compute(memory, first, given, width=width, num_asked=num_asked, is_apart=is_apart)

    def compute(
        self, memory: Memory, first: int, given: Tensor, *, width: int, num_asked: int, is_apart: bool
    ) -> Tensor:
        """`run` of slots [5, B, Q] that are on the device, over so many columns. Their values are read on the device
        alone, so that what is done there can be recorded and replayed (`model.along.graphs`)."""
        (_, B, Q), D = given.shape, self.architecture.width
        ids, columns, turns, _, positions = given
        seen = memory.seen(first, B, width)
        memory.cells.index_copy_(1, (columns + seen.row_starts).view(-1), given[3:].flatten(1))
        own_columns = self._columns_apart if is_apart else self._columns
        is_read = (seen.ranks[:, None] < turns[..., None]) | (columns[..., None] == own_columns[:width])  # [B, Q, S]
        biases = self._scores(is_read, seen.places, positions)
        own: Sequence[Tensor | None] = [None] * len(self.layers)
        if is_apart:
            own = self._own_scores(columns, positions)
        target = (columns[..., None, None] + seen.head_starts).view(-1)  # of each slot's keys and values
        x = F.embedding(ids, self._embedding).add_(F.embedding(positions, self._position)).view(B * Q, D)
        *layers, last = zip(self.layers, seen.stored, biases, own, strict=True)
        for layer, stored, bias, itself in layers:
            qkv = self._written(layer.qkv(self.norm(x)), stored, target).view(B, Q, -1)
            x = self.finished(layer, x, self.attended(qkv, stored, bias, itself))
        layer, stored, bias, itself = last
        qkv = self._written(layer.qkv(self.norm(x)), stored, target)
        if not num_asked:  # nobody reads the contents' last states
            return x.new_zeros(B, 0, D)
        asked = slice(Q - num_asked, None)
        if num_asked < Q:
            x, bias = x.view(B, Q, D)[:, asked].reshape(-1, D), bias[:, asked]
        itself = None if itself is None else itself[:, asked]
        attended = self.attended(qkv.view(B, Q, -1)[:, asked], stored, bias, itself)
        return self.finished(layer, x, attended).view(B, num_asked, D)

    def _written(self, qkv: Tensor, stored: Stored, target: Tensor) -> Tensor:
        """qkv [N, 3 D], whose keys and values have been stored."""
        stored.cells.index_copy_(0, target, qkv[:, self.architecture.width :].reshape(-1, self.size.E))
        return qkv

    def attended(self, qkv: Tensor, stored: Stored, bias: Tensor, own: Tensor | None = None) -> Tensor:
        """qkv [B, Q, 3 D] and bias [B * H, Q or more, S] -> [B * Q, D]. `own` [B * H, Q, 1]: added to the score of each
        slot beside the columns, for itself; None where it reads itself in a column."""
        (B, Q, _), D, H, E = qkv.shape, self.architecture.width, self.size.heads, self.size.E
        if own is not None:
            return self._attended_apart(qkv, stored, bias[:, :Q], own)
        q = qkv[..., :D]
        if self.is_fused:
            return self._fused(q, stored, bias[:, :Q]).transpose(1, 2).reshape(B * Q, D)
        if Q < LEAST_ROWS:
            q = F.pad(q, (0, 0, 0, LEAST_ROWS - Q))
        rows = q.shape[1]
        if bias.shape[1] > rows:
            bias = bias[:, :rows]
        q = q.view(B, rows, H, E).transpose(1, 2).reshape(B * H, rows, E)
        scores = torch.baddbmm(bias, q, stored.keys, alpha=E**-0.5).softmax(-1)
        attended = torch.bmm(scores, stored.values).view(B, H, rows, E).transpose(1, 2)
        return (attended if rows == Q else attended[:, :Q]).reshape(B * Q, D)

    def _attended_apart(self, qkv: Tensor, stored: Stored, bias: Tensor, own: Tensor) -> Tensor:
        (B, Q, D3), H, E, S = qkv.shape, self.size.heads, self.size.E, bias.shape[-1]
        q, k, v = qkv.view(B, Q, 3, H, E).permute(2, 0, 3, 1, 4).reshape(3, B * H, Q, E)
        itself = (q * k).sum(-1, keepdim=True).mul_(E**-0.5).add_(own)
        if self.is_fused:
            return self._fused_apart(qkv, stored, bias, itself)
        weights = torch.cat([torch.baddbmm(bias, q, stored.keys, alpha=E**-0.5), itself], -1).softmax(-1)
        read = torch.bmm(weights[..., :S].contiguous(), stored.values)
        return read.addcmul_(weights[..., S:], v).view(B, H, Q, E).transpose(1, 2).reshape(B * Q, D3 // 3)

    def _fused(self, q: Tensor, stored: Stored, bias: Tensor) -> Tensor:
        """Queries [B, Q, D] and bias [B * H, Q, S] -> [B, H, Q, E], in one kernel."""
        (B, Q, _), H = q.shape, self.size.heads
        k, v, mask = (x.view(B, H, *x.shape[1:]) for x in (stored.keys.mT, stored.values, bias))
        return F.scaled_dot_product_attention(q.view(B, Q, H, -1).transpose(1, 2), k, v, mask)

    def _fused_apart(self, qkv: Tensor, stored: Stored, bias: Tensor, itself: Tensor) -> Tensor:
        """What the columns say, weighed against what a slot says of itself: nothing for contents, whose bits are those
        of `_fused`. The columns' scores are computed once more, since the kernel keeps them."""
        (B, Q, _), D, H, E = qkv.shape, self.architecture.width, self.size.heads, self.size.E
        q, _, v = qkv.view(B, Q, 3, H, E).permute(2, 0, 3, 1, 4)
        scores = torch.baddbmm(bias, q.reshape(B * H, Q, E), stored.keys, alpha=E**-0.5)
        share = torch.cat([itself, scores], -1).softmax(-1)[..., :1].view(B, H, Q, 1)
        read = self._fused(qkv[..., :D], stored, bias).masked_fill(share == 1, 0.0)  # who reads no column has no number
        return (read * (1 - share)).addcmul_(share, v).transpose(1, 2).reshape(B * Q, D)

    def _own_scores(self, columns: Tensor, positions: Tensor) -> Sequence[Tensor]:
        """For each layer [B * H, Q, 1]: what is added to the score of a question that stands apart for itself; minus
        infinity for contents, which read themselves in their columns. columns and positions [B, Q]."""
        (B, Q), layers, H, length = columns.shape, len(self.layers), self.size.heads, self.architecture.length
        own = torch.zeros(layers, B, H, Q, dtype=self.size.dtype, device=self.size.device)
        if self._bias is not None:
            index = (
                torch.full_like(positions, length - 1) if self.architecture.relative_bias else positions * (length + 1)
            )
            own = self._bias.index_select(1, index.view(-1)).view(layers, H, B, Q).transpose(1, 2)
        own = own.masked_fill(columns[:, None] > 0, -torch.inf)
        return own.reshape(layers, B * H, Q, 1).unbind(0)

    def _scores(self, is_read: Tensor, places: Tensor, positions: Tensor) -> Sequence[Tensor]:
        """What is added to the scores, for each layer [B * H, Q + LEAST_ROWS - 1, S]: is_read [B, Q, S], places [B, S]
        of what is read, positions [B, Q] of what reads."""
        (B, Q, S), layers, H = is_read.shape, len(self.layers), self.size.heads
        bias = torch.zeros(layers, B, H, Q + LEAST_ROWS - 1, S, dtype=self.size.dtype, device=self.size.device)
        if self._bias is not None:
            places, positions, length = places[:, None], positions[..., None], self.architecture.length
            is_relative = self.architecture.relative_bias
            index = places - positions + (length - 1) if is_relative else positions * length + places
            found = self._bias.index_select(1, index.view(-1)).view(layers, H, B, Q, S)
            bias[:, :, :, :Q] = found.transpose(1, 2)
        bias[:, :, :, :Q].masked_fill_(~is_read[:, None], -torch.inf)
        return bias.flatten(1, 2).unbind(0)


def _biases(modules: Sequence[PlaceBias | None]) -> Tensor | None:
    """Of all layers and heads, [layers * H, distances or pairs]: what is added to the scores."""
    if modules[0] is None:
        return None
    rows = []
    for module in modules:
        assert module is not None
        rows.append(module.embedding if isinstance(module, RelativeBias) else module(module.length).flatten(1))
    return torch.cat(rows).contiguous()
