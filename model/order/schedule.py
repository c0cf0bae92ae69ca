"""The multivariate polynomial schedule: when each position is masked.

`t = 0` is clean, `t = 1` is all mask; position i is still visible at t with probability `alpha_i(t) = 1 - t**w_i`
(Garg, Kohli, Sarawagi, arXiv 2511.19152). Generation runs from t = 1 down, so positions of LARGE w come first.
"""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from unveil.model.order.uniforms import open_uniforms, stratified_uniforms

FINITE_MIN_W = 1.2
PAPER_MIN_T = 1e-3


@dataclass(frozen=True, slots=True)
class Masks:
    """A diffusion draw a row: time `t` [B] in (0, 1) and `hidden` [B, L], the positions masked by then.

    The times were drawn from (`min_t`, 1).
    """

    t: Tensor
    hidden: Tensor
    min_t: float = 0.0


@dataclass(frozen=True, slots=True)
class PolynomialSchedule:
    """`alpha_i(t) = 1 - t**w_i` with one weight a position, `log_w` [L]. All results are float64; t is in (0, 1]."""

    log_w: Tensor

    @property
    def w(self) -> Tensor:
        return self.log_w.double().exp()

    def alpha(self, t: Tensor) -> Tensor:
        """The probability that a position is still visible at t: [...] -> [..., L]."""
        return -torch.expm1(self.log_masked(t))

    def alpha_derivative(self, t: Tensor) -> Tensor:
        """d alpha / dt = -w t**(w - 1), never positive: [...] -> [..., L]."""
        return -self.w * _column(t) ** (self.w - 1)

    def log_masked(self, t: Tensor) -> Tensor:
        """log(1 - alpha(t)) = w log t: [...] -> [..., L]."""
        return self.w * _column(t).log()

    def loss_weight(self, t: Tensor) -> Tensor:
        """-alpha'(t) / (1 - alpha(t)) = w / t, the weight of a masked position in eq. 8: [...] -> [..., L]."""
        return self.w / _column(t)

    def unmask_probability(self, t: Tensor, s: Tensor) -> Tensor:
        """The chance that a position masked at t is revealed on the way down to s < t: 1 - (s / t)**w, [..., L]."""
        return -torch.expm1(self.w * (_column(s) / _column(t)).log())

    def mask_times(self, uniforms: Tensor) -> Tensor:
        """Uniforms [..., L] -> the times at which the positions are masked, u**(1 / w). Descending = reveal order."""
        return uniforms ** (1 / self.w)

    def draw_masks(self, B: int, *, generator: torch.Generator, min_t: float = 0.0) -> Masks:
        """B diffusion draws with t stratified over the batch in (min_t, 1)."""
        device = self.log_w.device
        t = stratified_uniforms(torch.ones(B, dtype=torch.bool), generator).to(device)
        t = min_t + (1 - min_t) * t
        times = self.mask_times(open_uniforms((B, self.log_w.shape[-1]), generator).to(device))
        return Masks(t=t, hidden=(times <= t[:, None]).detach(), min_t=min_t)

    def finite_gauge(self, *, min_w: float = FINITE_MIN_W) -> "PolynomialSchedule":
        """The same order law with the smallest weight at `min_w`.

        Only ratios of w matter to a time-independent denoiser; above w = 1 eq. 8 has finite variance. The scale is a
        constant to autograd: the NELBO does not depend on it.
        """
        log_w = self.log_w.double()
        return PolynomialSchedule(log_w - log_w.detach().min() + log(min_w))


def _column(t: Tensor) -> Tensor:
    return t.double()[..., None]
