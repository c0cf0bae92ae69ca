"""How good an order law is on a given denoiser, between the best order there is and a random one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unveil.model.oracle.exact import best_order, exact_nelbo, order_nelbo, table_nelbo

MIN_HEADROOM_NATS = 0.1
MIN_HEADROOM_ERRORS = 10.0


@dataclass(frozen=True, slots=True)
class Regret:
    """Nats on test rows under the judged law, under the best order of the validation rows, under uniform orders.

    `headroom_standard_error` is that of uniform minus best, paired over rows; `ratio_standard_error` goes with `ratio`.
    """

    nelbo: float
    best: float
    uniform: float
    best_sigma: tuple[int, ...]
    headroom_standard_error: float
    ratio_standard_error: float

    @property
    def headroom(self) -> float:
        return self.uniform - self.best

    @property
    def has_headroom(self) -> bool:
        """Whether orders differ enough on this denoiser for a ratio to mean anything."""
        return self.headroom >= max(MIN_HEADROOM_NATS, MIN_HEADROOM_ERRORS * self.headroom_standard_error)

    @property
    def ratio(self) -> float | None:
        """0 for the best order there is, 1 for no better than random, None where there is no headroom."""
        return (self.nelbo - self.best) / self.headroom if self.has_headroom else None

    def __str__(self) -> str:
        if self.ratio is None:
            return f"no headroom ({self.headroom:.3f} ± {self.headroom_standard_error:.3f} nats)"
        return f"{self.ratio:.3f} ± {self.ratio_standard_error:.3f}"


def regret(order_logprob: Tensor, *, validation: Tensor, test: Tensor) -> Regret:
    """`(L(w) - V*) / (L(uniform) - V*)` of a law on a reference denoiser trained under uniform orders.

    `order_logprob` [2**L, L] (see `order_table`) or a row's own [N, 2**L, L]; `validation` [M, 2**L, L] and `test`
    [N, 2**L, L], N >= 2, are the reference's `subset_table`s. V*'s order is chosen on validation and scored on test, so
    a ratio can fall a little below 0.
    """
    _, sigma = best_order(validation.mean(0))
    law, best = table_nelbo(order_logprob, test), order_nelbo(test, sigma)
    uniform = exact_nelbo(torch.zeros(test.shape[-1], device=test.device), test)
    excess, room = law - best, uniform - best  # [N] each
    ratio = excess.mean() / room.mean()
    # The delta method for a ratio of paired means.
    residuals = (excess - ratio * room) / room.mean()
    return Regret(
        nelbo=float(law.mean()),
        best=float(best.mean()),
        uniform=float(uniform.mean()),
        best_sigma=tuple(sigma.tolist()),
        headroom_standard_error=_standard_error(room),
        ratio_standard_error=_standard_error(residuals),
    )


def _standard_error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5)
