"""A denoiser whose rows do not depend on their neighbours: both its stages run in fixed shapes, checked to agree.

The rounding of a matrix product may depend on its shape, so the same canvas could get other logits in a batch of 1 than
in a batch of 8. Here a batch is padded to one of a few sizes and a canvas to its own length bucket, and at warm-up it
is measured, bit for bit, which sizes agree with each other in every row.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unveil.model.denoiser import Begun, Counts, Denoiser, Stages, in_stages
from unveil.model.network.architecture import Architecture, ImportedArchitecture

# On a CPU a forward over more positions gains nothing, and costs in warm-up: larger batches run in parts. Nor do
# several rows where a network computes them one by one: they are taken a few at a time, so that a step is short.
_CPU_POSITIONS, CPU_ROWS = 2048, 4
_FINISHED_POSITIONS, _FINISHED_CELLS = 1024, 8_000_000
_SHORTEST_BUCKET = 16
_CHECKED_ROWS = 16  # of each size, or two batches of it: bounds the warm-up to a few forwards of the largest one


class Inputs(NamedTuple):
    """A denoiser's arguments: tokens [B, L], hidden [B, L], lengths [B]."""

    tokens: Tensor
    hidden: Tensor
    lengths: Tensor

    def rows(self, index: Tensor) -> "Inputs":
        return Inputs(self.tokens[index], self.hidden[index], self.lengths[index])


class FixedShapes:
    """`Stages` around stages, with the batch sizes allowed at each length bucket, and the numbers of positions allowed
    to the second stage.

    All canvases of one call must belong to one length bucket. `counts` is of the first stage.
    """

    def __init__(self, stages: Stages, *, sizes: Mapping[int, Sequence[int]], finish_sizes: Sequence[int]) -> None:
        assert sizes
        assert all(sizes.values())
        self._stages = stages
        self._sizes = {length: tuple(sorted(sizes[length])) for length in sorted(sizes)}
        self._finish_sizes = tuple(sorted(finish_sizes))
        self.counts = Counts()
        self.end_id: int | None = None

    @property
    def sizes(self) -> Mapping[int, tuple[int, ...]]:
        """The batch sizes in use at each length bucket, ascending."""
        return self._sizes

    @property
    def finish_sizes(self) -> tuple[int, ...]:
        """The numbers of positions in use, ascending."""
        return self._finish_sizes

    def bucket(self, length: int) -> int:
        """The padded length at which a canvas of this length always runs."""
        return next(bucket for bucket in self._sizes if bucket >= length)

    def begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Begun:
        """See `model.denoiser.Stages`."""
        B, L = tokens.shape
        self._count(num_useful=int(lengths.sum()))
        bucket = self.bucket(L)
        if len(self._sizes) > 1:
            assert bucket == self.bucket(int(lengths.min())), "canvases of two length buckets in one call"
        inputs = Inputs(_wide(tokens, bucket), _wide(hidden, bucket), lengths)
        sizes = self._sizes[bucket]
        if B in sizes:
            self._count(num_positions=B * bucket)
            begun = self._stages.begin(*inputs)
        else:
            parts = [self._begin(inputs.rows(chunk), bucket) for chunk in _chunks(torch.arange(B), sizes[-1])]
            begun = Begun(*(torch.cat(part) for part in zip(*parts, strict=True)))
        return begun if bucket == L else Begun(begun.order_logits[:, :L], begun.states[:, :L])

    def _begin(self, inputs: Inputs, bucket: int) -> Begun:
        B = len(inputs.lengths)
        size = _fitting(self._sizes[bucket], B)
        self._count(num_positions=size * bucket)
        order_logits, states = self._stages.begin(
            _filled(inputs.tokens, size), _filled(inputs.hidden, size), _filled(inputs.lengths, size, bucket)
        )
        return Begun(order_logits[:B], states[:B])

    def _count(self, *, num_positions: int = 0, num_useful: int = 0) -> None:
        self.counts = Counts(self.counts.num_positions + num_positions, self.counts.num_useful + num_useful)

    def finish(self, states: Tensor, positions: Tensor) -> Tensor:
        """See `model.denoiser.Stages`."""
        R, largest = len(positions), self._finish_sizes[-1]
        if R in self._finish_sizes:
            return self._stages.finish(states, positions)
        if largest < R:
            starts = range(0, R, largest)
            return torch.cat([self.finish(states[i : i + largest], positions[i : i + largest]) for i in starts])
        size = _fitting(self._finish_sizes, R)
        return self._stages.finish(_filled(states, size), _filled(positions, size))[:R]

    def rounded(self, num: int) -> int:
        """See `model.denoiser.Stages`."""
        return _fitting(self._finish_sizes, num) if num < self._finish_sizes[-1] else num


def fixed_shapes(
    network: Denoiser | Stages,
    architecture: Architecture | ImportedArchitecture,
    max_batch: int,
    device: torch.device,
) -> tuple[FixedShapes, bool]:
    """Runs every shape, which is the warm-up, and keeps those that agree; False where nothing does."""
    stages = in_stages(network)
    buckets = length_buckets(architecture.length, is_padded=architecture.is_padded)
    sizes: dict[int, tuple[int, ...]] = {}
    is_deterministic = True
    for shortest, bucket in zip((0, *buckets), buckets, strict=False):
        lowest = shortest + 1 if architecture.is_padded else bucket
        largest = max_batch if device.type != "cpu" else min(max_batch, max(_CPU_POSITIONS // bucket, CPU_ROWS))
        inputs = random_inputs(
            largest, bucket, shortest=lowest, vocabulary_sizes=architecture.vocabulary_sizes, seed=bucket
        )
        inputs = Inputs(*(x.to(device) for x in inputs))
        agreeing = agreeing_sizes(partial(_begin_bits, stages, inputs), largest, batch_sizes(largest))
        is_deterministic &= bool(agreeing)
        sizes[bucket] = agreeing or batch_sizes(largest)
    finish_sizes, agree = _finish_sizes(stages, inputs, max_batch, max(architecture.vocabulary_sizes))
    return FixedShapes(stages, sizes=sizes, finish_sizes=finish_sizes), is_deterministic and agree


def _begin_bits(stages: Stages, inputs: Inputs, index: Tensor) -> Tensor:
    """All that the first stage answers of these rows, side by side: [B, L, 1 + S]."""
    begun = stages.begin(*inputs.rows(index.to(inputs.tokens.device)))
    return torch.cat([begun.order_logits[..., None].to(begun.states), begun.states], -1)


@torch.inference_mode()
def _finish_sizes(stages: Stages, inputs: Inputs, max_batch: int, V: int) -> tuple[tuple[int, ...], bool]:
    """The numbers of positions whose tokens are computed at once, checked on states of the longest canvases."""
    (B, L), device = inputs.tokens.shape, inputs.tokens.device
    largest = max(min(max_batch * L, _FINISHED_POSITIONS, _FINISHED_CELLS // V), CPU_ROWS)
    states = torch.cat(
        [stages.begin(*inputs.rows(index)).states for index in torch.arange(B, device=device).chunk(-(-B // 4))]
    )
    places = torch.randperm(max(largest, B * L), generator=torch.Generator().manual_seed(L))[:largest] % (B * L)
    positions = (places % L).to(device)
    found = states.flatten(0, 1)[places.to(device)]  # [largest, S]
    agreeing = agreeing_sizes(
        lambda index: stages.finish(found[index], positions[index]), largest, batch_sizes(largest)
    )
    return agreeing or batch_sizes(largest), bool(agreeing)


def _fitting(sizes: Sequence[int], num: int) -> int:
    return next(size for size in sizes if size >= num)


def _filled(x: Tensor, size: int, value: int = 0) -> Tensor:
    """Further rows of `value`, up to this size."""
    missing = size - len(x)
    return x if not missing else F.pad(x, (*(0, 0) * (x.dim() - 1), 0, missing), value=value)


def _wide(x: Tensor, length: int) -> Tensor:
    return x if x.shape[1] == length else F.pad(x, (0, length - x.shape[1]))


def batch_sizes(max_batch: int) -> tuple[int, ...]:
    """1 to 8, 10, 12, 14, 16, 20, ... and `max_batch` itself: at most a fifth of a batch is padding.

    Where arithmetic takes the time, padding takes its share of it; and requests that come one after the other seldom
    fill a batch whose size is a power of two.
    """
    powers = [2**k for k in range((max_batch - 1).bit_length())]
    between = {p * quarters // 4 for p in powers for quarters in (5, 6, 7) if p * quarters % 4 == 0}
    return (*sorted({*powers, *(size for size in between if size < max_batch)}), max_batch)


def length_buckets(length: int, *, is_padded: bool) -> tuple[int, ...]:
    """Powers of two from 16 below `length`, and `length`; that alone where canvases are never padded."""
    if not is_padded:
        return (length,)
    powers = (2**k for k in range(_SHORTEST_BUCKET.bit_length() - 1, length.bit_length() + 1))
    return (*(power for power in powers if power < length), length)


def random_inputs(num_rows: int, bucket: int, *, shortest: int, vocabulary_sizes: Sequence[int], seed: int) -> Inputs:
    """Random canvases of lengths `shortest`..`bucket` on which shapes are compared."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(vocabulary_sizes).expand(max(bucket, len(vocabulary_sizes)))[:bucket]
    lengths = torch.randint(shortest, bucket + 1, (num_rows,), generator=generator)
    inside = torch.arange(bucket) < lengths[:, None]
    hidden = (torch.rand(num_rows, bucket, generator=generator) < torch.rand(num_rows, 1, generator=generator)) & inside
    tokens = (torch.rand(num_rows, bucket, generator=generator) * sizes).long()
    return Inputs(tokens.masked_fill(hidden | ~inside, 0), hidden, lengths)


@torch.inference_mode()
def agreeing_sizes(run: Callable[[Tensor], Tensor], num_rows: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The batch sizes in which every row's bits are the same wherever the row stands: maybe none.

    `run` takes row numbers below `num_rows` and gives what is computed of those rows, in one batch. The reference is
    the largest size that repeats itself and agrees with itself when its rows change places; smaller ones must agree
    with it. There are at least as many rows as the largest size. NaN equals nothing: what gives it never agrees.
    """
    as_given = torch.arange(num_rows)
    shuffled = torch.randperm(num_rows, generator=torch.Generator().manual_seed(num_rows))
    for reference in sorted(sizes, reverse=True):
        expected = torch.cat([run(chunk) for chunk in _chunks(as_given, reference)])

        def agrees(size: int, order: Tensor, expected: Tensor = expected) -> bool:
            num_chunks = max(2, _CHECKED_ROWS // size)
            chunks = [chunk for chunk in _chunks(order, size) if len(chunk) == size][:num_chunks]
            return torch.equal(torch.cat([run(chunk) for chunk in chunks]), expected[torch.cat(chunks)])

        if agrees(reference, as_given) and agrees(reference, shuffled):
            return tuple(size for size in sorted(sizes) if size <= reference and agrees(size, shuffled))
    return ()


def _chunks(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
