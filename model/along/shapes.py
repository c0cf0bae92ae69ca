"""The shapes in which slots are computed, checked to agree: a row's bits must not depend on what is computed with it.

The rounding of a product may depend on its shape. A forward's slots are filled up to one of a few shapes, and it is
measured, bit for bit, which of these agree with each other: all of them at warm-up, or each when it is first needed.
Layers are alike in shape, so that one of them tells of all.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from unveil.model.along.forward import LEAST_ROWS, WIDTH_STEP, Along
from unveil.model.along.memory import Memory
from unveil.model.network.fixed_shapes import AgreeingSizes, batch_sizes

_CELLS = 8_000_000  # logits computed at a time
CPU_SLOTS, DEVICE_SLOTS = 2048, 16_384  # of a forward


class Shapes:
    """Numbers of rows, and of contents and queries a row, in which forwards run: the cheapest that is large enough and
    agrees.

    `counts`: numbers of slots in all, and of states whose logits are computed at once, of which those that `agreeing`
    knows are used. `pairs`: numbers of rows and slots a row, of either kind; `agrees` tells whether attention agrees in
    one.
    """

    def __init__(
        self,
        agreeing: AgreeingSizes,
        counts: Sequence[int],
        pairs: Sequence[tuple[int, int]],
        agrees: Callable[[int, int], bool],
        *,
        vocabulary: int,
    ) -> None:
        self._agreeing, self._counts, self.pairs = agreeing, set(counts), tuple(sorted(pairs))
        self._agrees = lru_cache(maxsize=None)(agrees)
        self._vocabulary = vocabulary
        self.most_rows = max(rows for rows, _ in self.pairs)
        self.most_contents = max(slots for rows, slots in self.pairs if rows == 1)
        self.fit = lru_cache(maxsize=4096)(self._fit)
        self.filled = lru_cache(maxsize=4096)(self._filled)
        self.rows_of = lru_cache(maxsize=4096)(self._rows_of)

    def check(self) -> bool:
        """Checks all that there is. False if what one row needs does not agree: then everything is used."""
        self.used()
        return not self._agreeing.is_empty and self._is_whole

    def used(self) -> list[tuple[int, int]]:
        """The pairs in use, all of them checked."""
        return [pair for pair in self.pairs if self._is_used(*pair)]

    def at_once(self, num_states: int) -> int:
        """How many states' logits to compute at once, of so many."""
        return min(self.filled(num_states), self._most_at_once)

    def _fit(self, num_rows: int, num_contents: int, num_asked: int) -> tuple[int, int, int]:
        """Rows, contents a row and queries a row. ValueError if no shape is so large."""
        large = [
            (B * (C + A), B, C, A)
            for B in {B for B, _ in self.pairs if num_rows <= B}
            for C in self._large(B, num_contents)
            for A in self._large(B, num_asked)
        ]
        for _, B, C, A in sorted(large):
            if all(self._is_used(B, Q) for Q in (C, A) if Q):
                return B, C, A
        raise ValueError(f"no shape for {num_rows} rows of {num_contents} contents and {num_asked} queries")

    def _large(self, num_rows: int, num: int) -> list[int]:
        """How many slots each of so many rows may have for `num`."""
        return [Q for B, Q in self.pairs if num_rows == B and num <= Q] if num else [0]

    def _rows_of(self, num_slots: int) -> int:
        """How many rows of so many slots a forward takes at most."""
        return next(B for B, Q in reversed(self.pairs) if num_slots <= Q and self._is_used(B, Q))

    def _filled(self, num_states: int) -> int:
        """So many states or more; beyond the largest count a multiple of it."""
        largest = self._agreeing.largest
        return self._agreeing.fitting(num_states) if num_states <= largest else -(-num_states // largest) * largest

    @cached_property
    def _most_at_once(self) -> int:
        few = [n for n in sorted(self._counts, reverse=True) if n * self._vocabulary <= _CELLS]
        return next((n for n in few if self.is_count(n)), self._agreeing.fitting(1))

    @cached_property
    def _is_whole(self) -> bool:
        """Whether whatever one row needs agrees."""
        return all(self.is_count(B * Q) and self._agrees(B, Q) for B, Q in self.pairs if B == 1)

    def _is_used(self, num_rows: int, num_slots: int) -> bool:
        is_agreed = self.is_count(num_rows * num_slots) and self._agrees(num_rows, num_slots)
        return is_agreed or not self._is_whole

    def is_count(self, num: int) -> bool:
        """Whether so many slots may be computed at once."""
        return num in self._counts and num <= self._agreeing.largest and self._agreeing.fitting(num) == num


def shapes_of(network: Along, max_rows: int) -> Shapes:
    """For forwards of up to `max_rows` rows, or as many as a forward takes; nothing is checked yet."""
    most = CPU_SLOTS if network.size.device.type == "cpu" else DEVICE_SLOTS
    max_rows = min(max_rows, most)
    slots = [2, LEAST_ROWS]
    while slots[-1] <= network.architecture.length:  # and the beginning
        slots += [slots[-1] * 3 // 2, slots[-1] * 2]
    pairs = {(rows, 1) for rows in batch_sizes(max_rows)}
    powers = {size for size in batch_sizes(max_rows) if size & (size - 1) == 0} | {max_rows}
    pairs |= {(rows, of) for rows in powers for of in slots if rows * of <= most or rows == 1}
    pairs = {(rows, of) for rows, of in pairs if rows * of >= LEAST_ROWS}
    counts = {rows * of for rows, of in pairs} | {size for size in batch_sizes(most) if size >= LEAST_ROWS}
    vocabulary = max(network.architecture.vocabulary_sizes)
    most_at_once = max([n for n in counts if n * vocabulary <= _CELLS], default=min(counts))
    agreeing = AgreeingSizes(_products(network, max(counts), most_at_once), max(counts), sorted(counts))
    return Shapes(agreeing, sorted(counts), sorted(pairs), _Attention(network, pairs).agrees, vocabulary=vocabulary)


def _products(network: Along, num_slots: int, most_at_once: int) -> Callable[[Tensor], Tensor]:
    """What is computed of a slot outside attention: [N, ...] of random states by their numbers.

    Of logits, which a large vocabulary has many of, a weighted sum stands for all; no more than `most_at_once` states'
    are computed at a time, as in use.
    """
    generator = torch.Generator().manual_seed(num_slots)
    D, device, dtype = network.architecture.width, network.size.device, network.size.dtype
    x, y = (torch.randn(num_slots, D, generator=generator).to(device, dtype) for _ in range(2))
    positions = torch.arange(num_slots, device=device) % network.architecture.length
    layer, late = network.layers[0], network.query_layers[0]

    def summed(states: Tensor, index: Tensor) -> Tensor:
        logits = network.logits(states, positions[index]).double().nan_to_num(nan=torch.nan, neginf=0.0)
        weights = torch.linspace(1.0, 2.0, logits.shape[1], dtype=torch.float64, device=device)
        return logits.mul_(weights).sum(-1)  # each row by itself, as a product would not be

    def run(index: Tensor) -> Tensor:
        index = index.to(device)
        states, num = network.finished(layer, x[index], y[index]), min(most_at_once, len(index))
        norms = late.places[positions[index]]
        answered = network.answered(late, x[index], y[index], norms)
        filled = [F.pad(of, (*(0, 0) * (of.dim() - 1), 0, -len(index) % num)) for of in (states, index)]
        parts = zip(*(torch.split(of, num) for of in filled), strict=True)
        sums = torch.cat([summed(*of) for of in parts])[: len(index)]
        written = layer.qkv(network.norm(x[index])), network.late_keys(network.norm(x[index]))
        return torch.cat([*written, states, network.query(late, x[index], norms), answered, sums[:, None]], 1)

    return run


class _Attention:
    """Of random slots over random rows of memory, of which the narrowest forward reads as much as the widest."""

    def __init__(self, network: Along, pairs: set[tuple[int, int]]) -> None:
        self._network = network
        self._rows, self._slots = (max(of) for of in zip(*pairs, strict=True))

    @torch.inference_mode()
    def agrees(self, B: int, Q: int) -> bool:
        """Whether every slot gets what it gets with the most slots: one row at every width, several rows at the
        narrowest and the widest."""
        few, narrow, columns = min(B, 2), self._network.width(0), self._network.size.num_columns
        for width in range(narrow, columns + 1, WIDTH_STEP if B == 1 else max(columns - narrow, 1)):
            if not torch.equal(self.attended(B, Q, width)[:few], self._expected[:few, :Q]):
                return False
        return True

    @cached_property
    def _expected(self) -> Tensor:
        """Of the first two rows with the most slots."""
        columns = self._network.size.num_columns
        return torch.stack([self.attended(b + 1, self._slots, columns)[b] for b in range(min(self._rows, 2))])

    @cached_property
    def _random(self) -> tuple[Memory, Tensor, Tensor]:
        """Memory of one layer; of two rows, which others repeat, queries [2, Q, D] and bias [2, H, Q, S]."""
        size, generator = self._network.size, torch.Generator().manual_seed(0)
        memory = Memory(size._replace(layers=1), self._rows)
        memory.contents.copy_(torch.randn(memory.contents.shape, generator=generator).to(size.device))
        q = torch.randn(2, self._slots, self._network.architecture.width, generator=generator)
        bias = torch.randn(2, size.heads, self._slots + LEAST_ROWS - 1, size.num_columns, generator=generator)
        bias[..., self._network.width(0) :] = -torch.inf
        return memory, q.to(size.device, size.dtype), bias.to(size.device, size.dtype)

    def attended(self, B: int, Q: int, width: int) -> Tensor:
        """[B, Q, D]."""
        memory, q, bias = self._random
        (stored,) = memory.seen(0, B, width).stored
        rows = torch.arange(B, device=q.device) % 2
        bias = bias[:, :, : Q + LEAST_ROWS - 1, :width][rows].flatten(0, 1)
        return self._network.attended(q[rows, :Q], stored, bias).view(B, Q, -1)
