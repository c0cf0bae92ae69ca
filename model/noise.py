"""Counter-based noise: the same number for the same (seed, purpose, step, position), in any batch. Holds no state.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) in int64 arithmetic, so that CPU
and CUDA agree bit for bit; on a CPU the same rounds run in NumPy, whose small operations cost a fraction of torch's.
Nothing is keyed by the row's place in the batch.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Purpose = Literal["order", "reveal"]
_PURPOSES: dict[Purpose, int] = {"order": 0, "reveal": 1}
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four 32-bit words for four 32-bit counter words and two key words, all int64 tensors that broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product wraps as a signed number; its upper word is still right once the sign extension is masked off.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _LOW) ^ c1 ^ k0, p1 & _LOW, ((p0 >> 32) & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


Words = NDArray[np.uint64]


def philox_on_cpu(counter: tuple[Words, ...], key: tuple[Words, ...]) -> tuple[Words, ...]:
    """`philox` for four 32-bit counter words and two key words held in uint64 arrays that broadcast: the same words."""
    low, shift = np.uint64(_LOW), np.uint64(32)
    m0, m1 = map(np.uint64, _MULTIPLIERS)
    w0, w1 = map(np.uint64, _WEYL)
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * m0, c2 * m1
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + w0) & low, (k1 + w1) & low
    return c0, c1, c2, c3


def uniforms(seeds: Tensor, steps: Tensor, positions: Tensor, *, purpose: Purpose) -> tuple[Tensor, Tensor]:
    """Two independent float64 uniforms in the open interval (0, 1) for each (seed, step, position), which broadcast.

    52 bits each, centred in their cell: 0 and 1 never occur, so no logarithm of them is infinite.
    """
    if positions.device.type == "cpu":
        return _uniforms_on_cpu(seeds, steps, positions, _PURPOSES[purpose])
    kind = torch.full_like(positions, _PURPOSES[purpose])
    counter = (positions & _LOW, steps & _LOW, (steps >> 32) & _LOW, kind)
    a, b, c, d = philox(counter, (seeds & _LOW, (seeds >> 32) & _LOW))
    return _to_unit(a, b), _to_unit(c, d)


def _uniforms_on_cpu(seeds: Tensor, steps: Tensor, positions: Tensor, kind: int) -> tuple[Tensor, Tensor]:
    s, t, i = (x.numpy().astype(np.uint64) for x in (seeds, steps, positions))
    low, shift = np.uint64(_LOW), np.uint64(32)
    words = philox_on_cpu((i & low, t & low, t >> shift, np.array([kind], dtype=np.uint64)), (s & low, s >> shift))
    a, b, c, d = (torch.from_numpy(np.atleast_1d(word).astype(np.int64)) for word in words)
    return _to_unit(a, b), _to_unit(c, d)


def _to_unit(high: Tensor, low: Tensor) -> Tensor:
    bits = (high << 20) | (low >> 12)
    return (bits.to(torch.float64) + 0.5) * 2.0**-52


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise, float64. float32 would cut its upper tail off at about 16.6."""
    return -torch.log(-torch.log(uniform))
