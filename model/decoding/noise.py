"""Counter-based noise: the same number for the same (seed, purpose, step, position), in any batch. Holds no state.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), in NumPy: a step's noise is a few
numbers, and NumPy's small operations cost a fraction of torch's. For few canvases a block of steps is drawn at once and
remembered, since a canvas asks for one step after the other. Nothing is keyed by the row's place in the batch.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Purpose = Literal["order", "reveal"]
Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Ints = NDArray[np.int64]
_PURPOSES: dict[Purpose, int] = {"order": 0, "reveal": 1}
_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_BLOCK, _BLOCKS_KEPT = 512, 256  # positions x steps of a block; its three arrays take 12 KB
_FEW = 8  # canvases: of more, a step's noise drawn at once is cheaper than looking up each


def philox(counter: tuple[Words, ...], key: tuple[Words, ...]) -> tuple[Words, ...]:
    """Four 32-bit words for four 32-bit counter words and two key words, held in uint64 arrays that broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def uniforms(seeds: Tensor, steps: Tensor, positions: Tensor, *, purpose: Purpose) -> tuple[Tensor, Tensor]:
    """Two independent float64 uniforms in the open interval (0, 1) for each (seed, step, position), which broadcast.

    52 bits each, centred in their cell: 0 and 1 never occur, so no logarithm of them is infinite. int64 tensors of any
    device; what comes back is on the positions' device.
    """
    s, t, i = (x.cpu().numpy().astype(np.uint64) for x in (seeds, steps, positions))
    first, second = _uniforms(s, t, i, _purpose(purpose))
    return torch.from_numpy(first).to(positions.device), torch.from_numpy(second).to(positions.device)


def _uniforms(seeds: Words, steps: Words, positions: Words, purposes: Words) -> tuple[Floats, Floats]:
    counter = (positions & _LOW, steps & _LOW, steps >> _SHIFT, purposes)
    a, b, c, d = (np.atleast_1d(word) for word in philox(counter, (seeds & _LOW, seeds >> _SHIFT)))
    return _to_unit(a, b), _to_unit(c, d)


def _to_unit(high: Words, low: Words) -> Floats:
    bits = (high << np.uint64(20)) | (low >> np.uint64(12))
    return (bits.astype(np.float64) + 0.5) * 2.0**-52


class _Block(NamedTuple):
    """Noise of one seed at consecutive steps, [steps, W] each."""

    gumbel: Floats
    token: Floats
    value: Floats


@lru_cache(maxsize=_BLOCKS_KEPT)
def _block(seed: int, number: int, width: int) -> _Block:
    """A function of its arguments like all noise; remembering it changes nothing."""
    num_steps = _block_steps(width)
    steps = np.arange(number * num_steps, (number + 1) * num_steps, dtype=np.uint64)[:, None]
    purposes = np.array(list(_PURPOSES.values()), dtype=np.uint64)[:, None, None]
    first, second = _uniforms(np.array(seed, dtype=np.uint64), steps, np.arange(width, dtype=np.uint64), purposes)
    return _Block(_gumbel(first[0]), first[1], second[1])


def _block_steps(width: int) -> int:
    return max(_BLOCK // width, 1)


def order_gumbel(seeds: Sequence[int], steps: Sequence[int], width: int) -> Floats:
    """Standard Gumbel noise of the order at each (seed, step), for positions 0 to `width` - 1: [B, width]."""
    if len(seeds) > _FEW:
        s, t = _column(seeds), _column(steps)
        return _gumbel(_uniforms(s, t, np.arange(width, dtype=np.uint64), _purpose("order"))[0])
    n = _block_steps(width)
    return np.stack([_block(seed, at // n, width).gumbel[at % n] for seed, at in zip(seeds, steps, strict=True)])


def gumbel_at(seed: int, steps: Ints, positions: Ints) -> Floats:
    """The order's noise of one canvas as `order_gumbel` has it, at some of its positions: [K], [P] -> [K, P]."""
    at, where = steps.astype(np.uint64)[:, None], positions.astype(np.uint64)
    return _gumbel(_uniforms(np.array(seed, dtype=np.uint64), at, where, _purpose("order"))[0])


def reveal_uniforms(
    seeds: Sequence[int], steps: Sequence[int], positions: Sequence[int], width: int
) -> tuple[list[float], list[float]]:
    """The token's and the shown value's uniform of each reveal; positions lie below `width`."""
    if len(seeds) > _FEW:
        s, t, i = (_column(x)[:, 0] for x in (seeds, steps, positions))
        token, value = _uniforms(s, t, i, _purpose("reveal"))
        return token.tolist(), value.tolist()
    n = _block_steps(width)
    blocks = [_block(seed, at // n, width) for seed, at in zip(seeds, steps, strict=True)]
    places = [(block, at % n, i) for block, at, i in zip(blocks, steps, positions, strict=True)]
    return [float(b.token[t, i]) for b, t, i in places], [float(b.value[t, i]) for b, t, i in places]


def _column(values: Sequence[int]) -> Words:
    return np.array(values, dtype=np.uint64)[:, None]


def _purpose(purpose: Purpose) -> Words:
    return np.array([_PURPOSES[purpose]], dtype=np.uint64)


def _gumbel(uniform: Floats) -> Floats:
    noise: Floats = -np.log(-np.log(uniform))
    return noise
