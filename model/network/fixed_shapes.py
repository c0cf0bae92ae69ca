"""A denoiser whose rows do not depend on their neighbours: both its stages run in fixed shapes, checked to agree.

The rounding of a matrix product may depend on its shape, so the same canvas could get other logits in a batch of 1 than
in a batch of 8. Here a batch is padded to one of a few sizes and a canvas to its own length bucket, and it is measured,
bit for bit, which sizes agree with each other in every row: all of them at warm-up, or each when it is first needed.

A kernel rounds by the shapes of its operands and never by their values. So layers of one shape are checked on one of
them (`model.denoiser.sketch_of`), and the whole network on two rows.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unveil.model.denoiser import Begun, Counts, Denoiser, Stages, in_stages, sketch_of
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


class FixedSizes:
    """The batch sizes in use, ascending."""

    def __init__(self, sizes: Sequence[int]) -> None:
        assert sizes
        self._sizes = tuple(sorted(sizes))

    @property
    def largest(self) -> int:
        return self._sizes[-1]

    def fitting(self, num: int) -> int:
        """The smallest of at least `num`, which is at most the largest."""
        return next(size for size in self._sizes if size >= num)

    def all(self) -> tuple[int, ...]:
        return self._sizes


class AgreeingSizes:
    """The batch sizes in which every row's bits are the same wherever the row stands, each checked when it is first
    asked for; all sizes where none agrees.

    `run` takes row numbers below `num_rows` and gives what is computed of those rows, in one batch. The reference is
    the largest size that repeats itself and agrees with itself when its rows change places; smaller ones must agree
    with it. There are at least as many rows as the largest size. NaN equals nothing: what gives it never agrees.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], num_rows: int, sizes: Sequence[int]) -> None:
        self._run = torch.inference_mode()(run)
        self._sizes = tuple(sorted(sizes))
        self._as_given = torch.arange(num_rows)
        self._shuffled = torch.randperm(num_rows, generator=torch.Generator().manual_seed(num_rows))
        self._agree: dict[int, bool] = {}

    @cached_property
    def _reference(self) -> tuple[int, Tensor] | None:
        """The size that others must agree with, and what every row is in it."""
        for size in reversed(self._sizes):
            expected = torch.cat([self._run(chunk) for chunk in _chunks(self._as_given, size)])
            if all(self._is_same(size, order, expected) for order in (self._as_given, self._shuffled)):
                self._agree[size] = True
                return size, expected
        return None

    @property
    def is_empty(self) -> bool:
        """Whether no size agrees, not even with itself."""
        return self._reference is None

    @property
    def largest(self) -> int:
        return self._sizes[-1] if self._reference is None else self._reference[0]

    def fitting(self, num: int) -> int:
        """The smallest of at least `num`, which is at most the largest."""
        return next(size for size in self._sizes if size >= num and self._is_used(size))

    def all(self) -> tuple[int, ...]:
        return tuple(size for size in self._sizes if self._is_used(size))

    def check(self) -> Iterator[None]:
        """Checks all, in pieces."""
        for size in self._sizes:
            self._is_used(size)
            yield

    def _is_used(self, size: int) -> bool:
        if self._reference is None:
            return True
        reference, expected = self._reference
        if size not in self._agree:
            self._agree[size] = size <= reference and self._is_same(size, self._shuffled, expected)
        return self._agree[size]

    def _is_same(self, size: int, order: Tensor, expected: Tensor) -> bool:
        num_chunks = max(2, _CHECKED_ROWS // size)
        chunks = [chunk for chunk in _chunks(order, size) if len(chunk) == size][:num_chunks]
        return torch.equal(torch.cat([self._run(chunk) for chunk in chunks]), expected[torch.cat(chunks)])


class FixedShapes:
    """`Stages` around stages, with the batch sizes allowed at each length bucket, and the numbers of positions allowed
    to the second stage.

    All canvases of one call must belong to one length bucket. `counts` is of the first stage.
    """

    def __init__(
        self,
        stages: Stages,
        *,
        sizes: Mapping[int, Sequence[int] | AgreeingSizes],
        finish_sizes: Sequence[int] | AgreeingSizes,
    ) -> None:
        assert sizes
        self._stages = stages
        self._sizes = {length: _as_sizes(sizes[length]) for length in sorted(sizes)}
        self._finish_sizes = _as_sizes(finish_sizes)
        self.counts = Counts()
        self.end_id: int | None = None

    @property
    def sizes(self) -> Mapping[int, tuple[int, ...]]:
        """The batch sizes in use at each length bucket, ascending; those not checked yet are checked."""
        return {length: sizes.all() for length, sizes in self._sizes.items()}

    @property
    def finish_sizes(self) -> tuple[int, ...]:
        """The numbers of positions in use, ascending; those not checked yet are checked."""
        return self._finish_sizes.all()

    def bucket(self, length: int) -> int:
        """The padded length at which a canvas of this length always runs."""
        return next(bucket for bucket in self._sizes if bucket >= length)

    def begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Begun:
        """See `model.denoiser.Stages`."""
        B, L = tokens.shape
        self._count(num_useful=B * L if len(self._sizes) == 1 else int(lengths.sum()))
        bucket = self.bucket(L)
        if len(self._sizes) > 1:
            assert bucket == self.bucket(int(lengths.min())), "canvases of two length buckets in one call"
        inputs = Inputs(_wide(tokens, bucket), _wide(hidden, bucket), lengths)
        sizes = self._sizes[bucket]
        if sizes.largest >= B and sizes.fitting(B) == B:
            self._count(num_positions=B * bucket)
            begun = self._stages.begin(*inputs)
        else:
            parts = [self._begin(inputs.rows(chunk), bucket) for chunk in _chunks(torch.arange(B), sizes.largest)]
            begun = Begun(*(torch.cat(part) for part in zip(*parts, strict=True)))
        return begun if bucket == L else Begun(begun.order_logits[:, :L], begun.states[:, :L])

    def _begin(self, inputs: Inputs, bucket: int) -> Begun:
        B = len(inputs.lengths)
        size = self._sizes[bucket].fitting(B)
        self._count(num_positions=size * bucket)
        order_logits, states = self._stages.begin(
            _filled(inputs.tokens, size), _filled(inputs.hidden, size), _filled(inputs.lengths, size, bucket)
        )
        return Begun(order_logits[:B], states[:B])

    def _count(self, *, num_positions: int = 0, num_useful: int = 0) -> None:
        self.counts = Counts(self.counts.num_positions + num_positions, self.counts.num_useful + num_useful)

    def finish(self, states: Tensor, positions: Tensor) -> Tensor:
        """See `model.denoiser.Stages`."""
        R, largest = len(positions), self._finish_sizes.largest
        if largest < R:
            starts = range(0, R, largest)
            return torch.cat([self.finish(states[i : i + largest], positions[i : i + largest]) for i in starts])
        size = self._finish_sizes.fitting(R)
        if size == R:
            return self._stages.finish(states, positions)
        return self._stages.finish(_filled(states, size), _filled(positions, size))[:R]

    def rounded(self, num: int) -> int:
        """See `model.denoiser.Stages`."""
        return self._finish_sizes.fitting(num) if num < self._finish_sizes.largest else num


def fixed_shapes(
    network: Denoiser | Stages,
    architecture: Architecture | ImportedArchitecture,
    max_batch: int,
    device: torch.device,
) -> tuple[FixedShapes, bool]:
    """Checks every shape, which is the warm-up, and keeps those that agree; False where nothing does."""
    checks = checked_shapes(network, architecture, max_batch, device)
    while True:
        try:
            next(checks)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def checked_shapes(
    network: Denoiser | Stages,
    architecture: Architecture | ImportedArchitecture,
    max_batch: int,
    device: torch.device,
) -> Generator[None, None, tuple[FixedShapes, bool]]:
    """As `fixed_shapes`, in pieces: others may have the thread in between."""
    stages = in_stages(network)
    lazy = _Lazy(stages, architecture, max_batch, device)
    sizes, is_deterministic = dict[int, tuple[int, ...]](), True
    for bucket in lazy.buckets:
        agreeing = lazy.begin_sizes(bucket)
        yield from agreeing.check()
        sizes[bucket] = agreeing.all()
        is_deterministic &= not agreeing.is_empty
    finish = lazy.finish_sizes()
    yield from finish.check()
    shapes = FixedShapes(stages, sizes=sizes, finish_sizes=finish.all())
    is_deterministic &= not finish.is_empty
    for bucket in lazy.buckets:
        yield
        is_deterministic &= _agrees_as_a_whole(shapes, lazy.inputs(bucket))
    shapes.counts = Counts()
    return shapes, is_deterministic


def unchecked_shapes(
    network: Denoiser | Stages,
    architecture: Architecture | ImportedArchitecture,
    max_batch: int,
    device: torch.device,
) -> FixedShapes:
    """The same shapes for whoever needs few of them: each is checked when it is first needed."""
    lazy = _Lazy(in_stages(network), architecture, max_batch, device)
    sizes = {bucket: lazy.begin_sizes(bucket) for bucket in lazy.buckets}
    return FixedShapes(in_stages(network), sizes=sizes, finish_sizes=lazy.finish_sizes())


class _Lazy:
    """What a network's shapes are checked with, made when it is first needed."""

    def __init__(
        self,
        stages: Stages,
        architecture: Architecture | ImportedArchitecture,
        max_batch: int,
        device: torch.device,
    ) -> None:
        self._sketch = sketch_of(stages)
        self._architecture, self._max_batch, self._device = architecture, max_batch, device
        self.buckets = length_buckets(architecture.length, is_padded=architecture.is_padded)

    def begin_sizes(self, bucket: int) -> AgreeingSizes:
        """Of canvases of this padded length."""
        largest = self._largest(bucket)
        inputs = cache(partial(self.inputs, bucket))

        def run(index: Tensor) -> Tensor:
            return _begin_bits(self._sketch, inputs().rows(index.to(self._device)))

        return AgreeingSizes(run, largest, batch_sizes(largest))

    def finish_sizes(self) -> AgreeingSizes:
        """Of positions whose tokens are computed at once, checked on states of the longest canvases."""
        L, V = self.buckets[-1], max(self._architecture.vocabulary_sizes)
        largest = max(min(self._max_batch * L, _FINISHED_POSITIONS, _FINISHED_CELLS // V), CPU_ROWS)

        @cache
        def asked() -> tuple[Tensor, Tensor]:
            """States [largest, S] and the positions that they stand at."""
            inputs = self.inputs(L).rows(torch.arange(min(self._largest(L), CPU_ROWS), device=self._device))
            states = self._sketch.begin(*inputs).states.flatten(0, 1)
            places = torch.randperm(max(largest, len(states)), generator=torch.Generator().manual_seed(L))
            places = places[:largest].to(self._device) % len(states)
            return states[places], places % L

        def run(index: Tensor) -> Tensor:
            states, positions = asked()
            return self._sketch.finish(states[index], positions[index])

        return AgreeingSizes(run, largest, batch_sizes(largest))

    def inputs(self, bucket: int) -> Inputs:
        """Random canvases that are padded to this length."""
        architecture = self._architecture
        shorter = [length for length in self.buckets if length < bucket]
        found = random_inputs(
            self._largest(bucket),
            bucket,
            shortest=max(shorter, default=0) + 1 if architecture.is_padded else bucket,
            vocabulary_sizes=architecture.vocabulary_sizes,
            seed=bucket,
        )
        return Inputs(*(x.to(self._device) for x in found))

    def _largest(self, bucket: int) -> int:
        if self._device.type != "cpu":
            return self._max_batch
        return min(self._max_batch, max(_CPU_POSITIONS // bucket, CPU_ROWS))


def _begin_bits(stages: Stages, inputs: Inputs) -> Tensor:
    """All that the first stage answers, side by side: [B, L, 1 + S]."""
    begun = stages.begin(*inputs)
    return torch.cat([begun.order_logits[..., None].to(begun.states), begun.states], -1)


@torch.inference_mode()
def _agrees_as_a_whole(shapes: FixedShapes, inputs: Inputs) -> bool:
    """Whether two rows are the same alone and together, in all layers."""
    rows = torch.arange(min(len(inputs.lengths), 2), device=inputs.lengths.device)
    alone = [_begin_bits(shapes, inputs.rows(row)) for row in rows[:, None]]
    return torch.equal(torch.cat(alone), _begin_bits(shapes, inputs.rows(rows)))


def _as_sizes(sizes: Sequence[int] | AgreeingSizes) -> FixedSizes | AgreeingSizes:
    return sizes if isinstance(sizes, AgreeingSizes) else FixedSizes(sizes)


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


def _chunks(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
