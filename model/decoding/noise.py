"""Counter-based noise: the same number for the same key, in any batch. Holds no state.

The order's noise is keyed by (seed, step, position). What a position is revealed with is keyed by (seed, position)
alone: its token's noise, one number an id, and its value's uniform. So canvases of one seed draw alike at the same
position, whatever their orders and steps.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), in NumPy: these are few numbers,
and NumPy's small operations cost a fraction of torch's. For few canvases a block of them is drawn at once and
remembered. One word pair of Philox starts the stream of a token's noise: SplitMix64 (Steele et al., "Fast splittable
pseudorandom number generators", OOPSLA 2014). Nothing is keyed by the row's place in the batch.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unveil.model.denoiser import sent
from unveil.model.order.uniforms import gumbel

Purpose = Literal["order", "reveal"]
Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Ints = NDArray[np.int64]
_PURPOSES: dict[Purpose, int] = {"order": 0, "reveal": 1}
_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's, as are the shifts and multipliers
_MIXERS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)
_CUT = np.uint64(12)  # bits of a word that a uniform has no room for
_BLOCK, _BLOCKS_KEPT = 512, 256  # positions x steps of a block; its array takes 4 KB
_PLACES = 64  # positions of a block of reveals; its two arrays take 1 KB
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


def order_uniforms(seeds: Tensor, steps: Tensor, positions: Tensor) -> Tensor:
    """The order's float64 uniform in the open interval (0, 1) for each (seed, step, position), which broadcast.

    52 bits, centred in their cell: 0 and 1 never occur, so no logarithm of them is infinite. int64 tensors of any
    device; what comes back is on the positions' device.
    """
    s, t, i = (x.cpu().numpy().astype(np.uint64) for x in (seeds, steps, positions))
    return torch.from_numpy(_order_uniforms(s, t, i)).to(positions.device)


def _order_uniforms(seeds: Words, steps: Words, positions: Words) -> Floats:
    a, b, _, _ = _words("order", seeds, steps, positions)
    return _to_unit(a, b)


def _words(purpose: Purpose, seeds: Words, steps: Words, positions: Words) -> tuple[Words, ...]:
    counter = (positions & _LOW, steps & _LOW, steps >> _SHIFT, np.array([_PURPOSES[purpose]], dtype=np.uint64))
    return philox(counter, (seeds & _LOW, seeds >> _SHIFT))


def _to_unit(high: Words, low: Words) -> Floats:
    return _centred((high << np.uint64(20)) | (low >> _CUT))


def _centred(bits: Words) -> Floats:
    """The uniform in the middle of each of 2^52 cells."""
    return (bits.astype(np.float64) + 0.5) * 2.0**-52


@lru_cache(maxsize=_BLOCKS_KEPT)
def _order_block(seed: int, number: int, width: int) -> Floats:
    """The order's Gumbel noise of one seed at consecutive steps, [steps, W]. Remembering it changes nothing."""
    num_steps = _block_steps(width)
    steps = np.arange(number * num_steps, (number + 1) * num_steps, dtype=np.uint64)[:, None]
    return _gumbel(_order_uniforms(np.array(seed, dtype=np.uint64), steps, np.arange(width, dtype=np.uint64)))


def _block_steps(width: int) -> int:
    return max(_BLOCK // width, 1)


def order_gumbel(seeds: Sequence[int], steps: Sequence[int], width: int) -> Floats:
    """Standard Gumbel noise of the order at each (seed, step), for positions 0 to `width` - 1: [B, width]."""
    if len(seeds) > _FEW:
        s, t = _column(seeds), _column(steps)
        return _gumbel(_order_uniforms(s, t, np.arange(width, dtype=np.uint64)))
    n = _block_steps(width)
    return np.stack([_order_block(seed, at // n, width)[at % n] for seed, at in zip(seeds, steps, strict=True)])


def order_gumbel_ahead(seeds: Sequence[int], firsts: Sequence[int], num: int, width: int) -> Floats:
    """The same of `num` steps from each seed's first one on: [B, num, width]."""
    steps = np.add(_column(firsts), np.arange(num, dtype=np.uint64), dtype=np.uint64)
    return _gumbel(_order_uniforms(_column(seeds)[..., None], steps[..., None], np.arange(width, dtype=np.uint64)))


def gumbel_at(seed: int, steps: Ints, positions: Ints) -> Floats:
    """The order's noise of one canvas as `order_gumbel` has it, at some of its positions: [K], [P] -> [K, P]."""
    at, where = steps.astype(np.uint64)[:, None], positions.astype(np.uint64)
    return _gumbel(_order_uniforms(np.array(seed, dtype=np.uint64), at, where))


class RevealNoise(NamedTuple):
    """What positions are revealed with: the states [R] of their tokens' streams, and their values' uniforms [R]."""

    states: Ints
    values: Floats


def reveal_noise(seeds: Sequence[int], positions: Sequence[int]) -> RevealNoise:
    """Of each (seed, position)."""
    if len(seeds) > _FEW:
        return _reveal_noise(np.array(seeds, dtype=np.uint64), np.array(positions, dtype=np.uint64))
    found = [(_reveal_block(seed, i // _PLACES), i % _PLACES) for seed, i in zip(seeds, positions, strict=True)]
    states, values = [block.states[i] for block, i in found], [block.values[i] for block, i in found]
    return RevealNoise(np.array(states), np.array(values))


@lru_cache(maxsize=_BLOCKS_KEPT)
def _reveal_block(seed: int, number: int) -> RevealNoise:
    positions = np.arange(number * _PLACES, (number + 1) * _PLACES, dtype=np.uint64)
    return _reveal_noise(np.array(seed, dtype=np.uint64), positions)


def _reveal_noise(seeds: Words, positions: Words) -> RevealNoise:
    a, b, c, d = _words("reveal", seeds, np.zeros(1, dtype=np.uint64), positions)
    return RevealNoise(((a << _SHIFT) | b).view(np.int64), _to_unit(c, d))


def token_gumbel(states: Ints, width: int, device: torch.device) -> Tensor:
    """Standard Gumbel noise of ids 0 to `width` - 1 from each state [R]: float64 [R, width] on the device.

    Id n has the n-th number of the state's stream, whatever the width. The stream is the same on every device; the
    rounding of a logarithm need not be.
    """
    if device.type == "cpu":
        return torch.from_numpy(_gumbel(stream(states, width)))
    return gumbel(stream_on(sent(states, device), width))


def stream(states: Ints, width: int) -> Floats:
    """Uniforms by the upper 52 bits of the first `width` words of SplitMix64 from each state [R]: [R, width]."""
    words = states.view(np.uint64)[:, None] + _strides(width)
    for shift, multiplier in _MIXERS:
        words ^= words >> shift
        words *= multiplier
    words ^= words >> _LAST_SHIFT
    return _centred(words >> _CUT)


def stream_on(states: Tensor, width: int) -> Tensor:
    """`stream` on the states' device, in int64, whose product wraps around like that of uint64."""
    strides = torch.arange(1, width + 1, device=states.device) * int(_GAMMA.view(np.int64))
    words = states[:, None] + strides
    for shift, multiplier in _MIXERS:
        words = (words ^ _shifted(words, int(shift))) * int(multiplier.view(np.int64))
    bits = _shifted(words ^ _shifted(words, int(_LAST_SHIFT)), int(_CUT))
    return (bits.double() + 0.5) * 2.0**-52


def _shifted(words: Tensor, by: int) -> Tensor:
    """Logical right shift; that of int64 repeats the sign."""
    return (words >> by) & ((1 << (64 - by)) - 1)


@lru_cache(maxsize=16)
def _strides(width: int) -> Words:
    """How far the stream's counter is from its state at each id, [width]."""
    return np.arange(1, width + 1, dtype=np.uint64) * _GAMMA


def _column(values: Sequence[int]) -> Words:
    return np.array(values, dtype=np.uint64)[:, None]


def _gumbel(uniform: Floats) -> Floats:
    noise: Floats = -np.log(-np.log(uniform))
    return noise
