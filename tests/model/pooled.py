"""One statistic for a whole vector of estimates: are these batch means those of an unbiased estimator?"""

import torch
from torch import Tensor


def chi_square_bound(dof: float, z: float = 4.0) -> float:
    """What a chi-square variable stays below, but for z normal standard deviations (Wilson and Hilferty, 1931)."""
    return float(dof * (1 - 2 / (9 * dof) + z * (2 / (9 * dof)) ** 0.5) ** 3)


def hotelling(estimates: Tensor, truth: Tensor) -> tuple[float, int]:
    """Hotelling's T2 of independent estimates [M, d] against the truth [d] -> the statistic and its rank.

    With M in the hundreds it is close to chi-square. Directions without any variance (a gauge, say) must agree exactly.
    """
    scale = estimates.std(0).clamp(min=1e-12)
    scaled, target = estimates / scale, truth / scale
    values, vectors = torch.linalg.eigh(torch.cov(scaled.T))
    off = (scaled.mean(0) - target) @ vectors
    varies = values > 1e-9 * values.max()
    assert (off[~varies].abs() < 1e-6 * (1 + target.abs().max())).all()
    return float(len(estimates) * (off[varies] ** 2 / values[varies]).sum()), int(varies.sum())


def relative_error(estimates: Tensor, truth: Tensor) -> float:
    """The standard error of the mean of estimates [M, d], as a share of the truth's norm."""
    return float((estimates.var(0).sum() / len(estimates)).sqrt() / truth.norm())
