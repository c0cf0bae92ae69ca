"""A denoiser whose rows do not depend on their neighbours: it runs a network in fixed shapes, checked to agree.

The rounding of a matrix product may depend on its shape, so the same canvas could get other logits in a batch of 1 than
in a batch of 8. Here a batch is padded to one of a few sizes and a canvas to its own length bucket, and at warm-up it
is measured, bit for bit, which sizes agree with each other in every row. Knows no canvas, no scheduler and no request.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.denoiser import Denoiser, Prediction

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
    """A `Denoiser` around a network, with the batch sizes allowed at each length bucket.

    All canvases of one call must belong to one length bucket. `num_positions` counts what the network has computed so
    far, padding included.
    """

    def __init__(self, network: Denoiser, *, sizes: Mapping[int, Sequence[int]]) -> None:
        assert sizes
        assert all(sizes.values())
        self._network = network
        self._sizes = {length: tuple(sorted(sizes[length])) for length in sorted(sizes)}
        self.num_positions = 0

    @property
    def sizes(self) -> Mapping[int, tuple[int, ...]]:
        """The batch sizes in use at each length bucket, ascending."""
        return self._sizes

    def bucket(self, length: int) -> int:
        """The padded length at which a canvas of this length always runs."""
        return next(bucket for bucket in self._sizes if bucket >= length)

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        """See `model.denoiser.Denoiser`."""
        bucket = self.bucket(int(lengths.max()))
        assert bucket == self.bucket(int(lengths.min())), "canvases of two length buckets in one call"
        B, L = tokens.shape
        inputs = Inputs(_pad(tokens, bucket), _pad(hidden, bucket), lengths)
        parts = [self._run(inputs.rows(chunk), bucket) for chunk in _chunks(torch.arange(B), self._sizes[bucket][-1])]
        logits, order_logits = (torch.cat(part) for part in zip(*parts, strict=True))
        return Prediction(logits[:, :L], order_logits[:, :L])

    def _run(self, inputs: Inputs, bucket: int) -> Prediction:
        B = len(inputs.lengths)
        size = next(size for size in self._sizes[bucket] if size >= B)
        self.num_positions += size * bucket
        padding = torch.zeros(size - B, dtype=torch.int64)  # further copies of the first row
        logits, order_logits = self._network(*inputs.rows(torch.cat([torch.arange(B), padding])))
        return Prediction(logits[:B], order_logits[:B])


def _pad(x: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, length - x.shape[1]))


def batch_sizes(max_batch: int) -> tuple[int, ...]:
    """1, 2, 3, 4, 6, 8, 12, ... and `max_batch` itself: at most a third of a batch is padding."""
    powers = [2**k for k in range((max_batch - 1).bit_length())]
    return (*sorted({*powers, *(3 * p // 2 for p in powers if p > 1 and 3 * p // 2 < max_batch)}), max_batch)


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
def agreeing_sizes(network: Denoiser, inputs: Inputs, sizes: Sequence[int]) -> tuple[int, ...]:
    """The batch sizes in which every row's logits are the same, bit for bit, wherever the row stands: maybe none.

    The reference is the largest size that repeats itself and agrees with itself when its rows change places; smaller
    ones must agree with it. `inputs` holds at least as many rows as the largest size.
    """
    num_rows = len(inputs.lengths)
    as_given = torch.arange(num_rows)
    shuffled = torch.randperm(num_rows, generator=torch.Generator().manual_seed(num_rows))
    for reference in sorted(sizes, reverse=True):
        expected = _bits(network, inputs, _chunks(as_given, reference))

        def agrees(size: int, order: Tensor, expected: Tensor = expected) -> bool:
            num_chunks = max(2, _CHECKED_ROWS // size)
            chunks = [chunk for chunk in _chunks(order, size) if len(chunk) == size][:num_chunks]
            return torch.equal(_bits(network, inputs, chunks), expected[torch.cat(chunks)])

        if agrees(reference, as_given) and agrees(reference, shuffled):
            return tuple(size for size in sorted(sizes) if size <= reference and agrees(size, shuffled))
    return ()


def _bits(network: Denoiser, inputs: Inputs, chunks: Sequence[Tensor]) -> Tensor:
    """Logits of both heads side by side, [rows, L, V + 1]. NaN equals nothing: a network that gives it never agrees."""
    parts = [network(*inputs.rows(chunk)) for chunk in chunks]
    return torch.cat([torch.cat([p.token_logits, p.order_logits[..., None].to(p.token_logits)], -1) for p in parts])


def _chunks(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
