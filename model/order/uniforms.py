"""Uniform draws from a generator, for training and evaluation.

The sampler's noise is another thing: it is counted, not drawn (`model/decoding/noise.py`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def open_uniforms(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Float64 in the open interval (0, 1), 52 bits each, centred in their cell: no logarithm of them is infinite.

    Drawn on the generator's own device, so that a CPU generator gives the same numbers to every accelerator.
    """
    bits = torch.randint(2**52, tuple(shape), generator=generator, device=generator.device)
    return (bits.to(torch.float64) + 0.5) * 2.0**-52


def stratified_uniforms(groups: Tensor, generator: torch.Generator) -> Tensor:
    """One float64 uniform in (0, 1) a row, evenly spread within each of two groups; `groups` [B] bool -> [B].

    Row number r of a group of m gets frac(r / m + u) with one u a group: marginally uniform for every row, wherever it
    stands in the batch (strata tied to rows would be biased as soon as the first rows are special), and each group
    covers (0, 1) with gaps of 1 / m.
    """
    u = open_uniforms((2,), generator).to(groups.device)
    rank = torch.where(groups, groups.cumsum(0), (~groups).cumsum(0)) - 1
    size = torch.where(groups, groups.sum(), (~groups).sum())
    uniforms = torch.frac(rank / size.to(torch.float64) + u[groups.long()])
    return uniforms.clamp(2.0**-53, 1 - 2.0**-53)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise, float64. float32 would cut its upper tail off at about 16.6."""
    return -torch.log(-torch.log(uniform))
