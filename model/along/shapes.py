"""The shapes in which slots are computed, checked to agree: a row's bits must not depend on what is computed with it.

The rounding of a product may depend on its shape. A forward's slots are filled up to one of a few shapes, and at
warm-up it is measured, bit for bit, which of these agree with each other.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from unveil.model.along.forward import LEAST_ROWS, WIDTH_STEP, Along
from unveil.model.along.memory import Memory
from unveil.model.network.fixed_shapes import agreeing_sizes, batch_sizes

_CELLS = 8_000_000  # logits computed at a time
CPU_SLOTS, DEVICE_SLOTS = 2048, 16_384  # of a forward


class Shapes:
    """Allowed numbers of rows and of slots a row, by what was measured.

    `counts`: allowed numbers of slots in all, and of states whose logits are computed at once, ascending. `pairs`:
    allowed numbers of rows and slots a row.
    """

    def __init__(self, counts: Sequence[int], pairs: Sequence[tuple[int, int]], *, vocabulary: int) -> None:
        self.counts, self.pairs = tuple(sorted(counts)), tuple(sorted(pairs))
        self._at_once = max([n for n in self.counts if n * vocabulary <= _CELLS], default=self.counts[0])
        self.most_rows = max(rows for rows, _ in self.pairs)
        self._fit = lru_cache(maxsize=4096)(self._find)
        self._rows_of = lru_cache(maxsize=4096)(self._most_rows)
        self._filled = lru_cache(maxsize=4096)(self._next_count)

    def spare(self) -> int:
        """The most rows that a batch is filled up by, one more for exchanges."""
        return max(self.fit(B, 1, 1)[0] - B for B in range(1, self.most_rows + 1)) + 1

    def fit(self, num_rows: int, num_contents: int, num_asked: int) -> tuple[int, int, int]:
        """Rows, slots a row, and how many of these, from the end, are finished: the questions, or more.

        ValueError if no shape is so large.
        """
        return self._fit(num_rows, num_contents, num_asked)

    @property
    def most_contents(self) -> int:
        """How many contents of one row a forward takes."""
        return max(slots for rows, slots in self.pairs if rows == 1)

    def rows_of(self, num_slots: int) -> int:
        """How many rows of so many slots a forward takes at most."""
        return self._rows_of(num_slots)

    def filled(self, num_states: int) -> int:
        """So many states or more; beyond the largest count a multiple of it."""
        return self._filled(num_states)

    def at_once(self, num_states: int) -> int:
        """How many states' logits to compute at once, of so many."""
        return min(self._filled(num_states), self._at_once)

    def _most_rows(self, num_slots: int) -> int:
        return max(rows for rows, slots in self.pairs if slots >= num_slots)

    def _next_count(self, num_states: int) -> int:
        largest = self.counts[-1]
        return next((n for n in self.counts if n >= num_states), -(-num_states // largest) * largest)

    def _find(self, num_rows: int, num_contents: int, num_asked: int) -> tuple[int, int, int]:
        options = []
        for rows, slots in self.pairs:
            asked = next((n for n in range(num_asked, slots + 1) if not n or rows * n in self.counts), None)
            if rows >= num_rows and asked is not None and slots >= num_contents + num_asked:
                options.append((rows * slots, rows, slots, asked))
        if not options:
            raise ValueError(f"no shape for {num_rows} rows of {num_contents} contents and {num_asked} questions")
        return min(options)[1:]


def wanted_shapes(network: Along, max_rows: int) -> Shapes:
    """All that could be used."""
    most = CPU_SLOTS if network.size.device.type == "cpu" else DEVICE_SLOTS
    longest = network.architecture.length + network.size.first
    queries = [LEAST_ROWS]
    while queries[-1] < longest:
        queries += [queries[-1] * 3 // 2, queries[-1] * 2]
    pairs = {(rows, 2) for rows in batch_sizes(max_rows) if 2 * rows >= LEAST_ROWS}
    powers = {size for size in batch_sizes(max_rows) if size & (size - 1) == 0} | {max_rows}
    pairs |= {(rows, slots) for rows in powers for slots in queries if rows * slots <= most or rows == 1}
    counts = {rows * slots for rows, slots in pairs} | {size for size in batch_sizes(most) if size >= LEAST_ROWS}
    return Shapes(sorted(counts), sorted(pairs), vocabulary=max(network.architecture.vocabulary_sizes))


@torch.inference_mode()
def agreeing_shapes(network: Along, max_rows: int) -> tuple[Shapes, bool]:
    """Those that agree; all of them and False if none do."""
    wanted = wanted_shapes(network, max_rows)
    counts = agreeing_sizes(_products(network, max(wanted.counts)), max(wanted.counts), wanted.counts)
    agreeing = set(counts)
    pairs = [pair for pair in _agreeing_pairs(network, wanted.pairs) if pair[0] * pair[1] in agreeing]
    alone = {pair for pair in wanted.pairs if pair[0] == 1}
    if not alone <= set(pairs):
        return wanted, False
    return Shapes(counts, pairs, vocabulary=max(network.architecture.vocabulary_sizes)), True


def _products(network: Along, num_slots: int) -> Callable[[Tensor], Tensor]:
    """What is computed of a slot outside attention: [N, ...] of random states by their numbers."""
    generator = torch.Generator().manual_seed(num_slots)
    D, device = network.architecture.width, network.size.device
    x, y = (torch.randn(num_slots, D, generator=generator).to(device, network.size.dtype) for _ in range(2))
    positions = torch.arange(num_slots, device=device) % network.architecture.length
    layer = network.layers[0]

    def run(index: Tensor) -> Tensor:
        index = index.to(device)
        states = network.finished(layer, x[index], y[index])
        return torch.cat([layer.qkv(network.norm(x[index])), states, network.logits(states, positions[index])], 1)

    return run


def _agreeing_pairs(network: Along, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pairs in which attention gives every slot what it gives it with the most slots: one row at every width,
    several rows at the narrowest and the widest."""
    rows, slots = (max(of) for of in zip(*pairs, strict=True))
    attention, few = _Attention(network, rows, slots), min(rows, 2)
    columns = network.size.num_columns
    within = torch.stack([attention.within(b + 1, slots, columns)[b] for b in range(few)])
    apart = torch.stack([attention.apart(b + 1, slots, columns, 0.0)[b] for b in range(few)])

    def agrees(B: int, Q: int) -> bool:
        for width in range(network.width(0), columns + 1, WIDTH_STEP if B == 1 else max(columns - network.width(0), 1)):
            found = [(attention.within(B, Q, width), within)]
            if Q >= LEAST_ROWS:  # questions never stand apart in fewer
                found.append((attention.apart(B, Q, width, 0.0), apart))
                found.append((attention.apart(B, Q, width, -torch.inf), within))  # contents read themselves in a column
            if not all(torch.equal(own[:few], expected[:B, :Q]) for own, expected in found):
                return False
        return True

    return [pair for pair in pairs if agrees(*pair)]


class _Attention:
    """Of random slots over random rows of memory, of which the narrowest forward reads as much as the widest."""

    def __init__(self, network: Along, num_rows: int, num_slots: int) -> None:
        size, generator = network.size, torch.Generator().manual_seed(0)
        self._attended, self._heads = network.attended, size.heads
        self._memory = Memory(size._replace(layers=1), num_rows)
        self._memory.contents.copy_(torch.randn(self._memory.contents.shape, generator=generator))
        qkv = torch.randn(num_rows, num_slots, 3 * network.architecture.width, generator=generator)
        bias = torch.randn(num_rows * size.heads, num_slots, size.num_columns, generator=generator)
        bias[:, :, network.width(0) :] = -torch.inf
        self._qkv, self._bias = (x.to(size.device, size.dtype) for x in (qkv, bias))

    def within(self, B: int, Q: int, width: int) -> Tensor:
        """[B, Q, D] of slots that read themselves in columns."""
        return self._given(B, Q, width, None)

    def apart(self, B: int, Q: int, width: int, score: float) -> Tensor:
        """[B, Q, D] of slots that read themselves beside the columns, with this added to the score."""
        return self._given(B, Q, width, torch.full_like(self._bias[: B * self._heads, :Q, :1], score))

    def _given(self, B: int, Q: int, width: int, own: Tensor | None) -> Tensor:
        (stored,) = self._memory.seen(0, B, width).stored
        bias = self._bias[: B * self._heads, :, :width]
        return self._attended(self._qkv[:B, :Q], stored, bias, own).view(B, Q, -1)
