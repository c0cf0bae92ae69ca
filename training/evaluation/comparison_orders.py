"""What a learned order is compared with: the law itself as something to score along, best and worst order. No recipe.

Costs are nats a row, [N] float64, lower is better; exact log-likelihoods are their negatives.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unveil.model.denoiser import Denoiser, Prediction
from unveil.model.network.base import Network
from unveil.model.oracle.exact import best_order, subset_table, worst_order
from unveil.model.order.plackett_luce import deterministic_order
from unveil.training.data.rows import Rows
from unveil.training.evaluation.conditionals import ask, ask_set, reads_ranks
from unveil.training.evaluation.likelihood import (
    Advance,
    log_likelihood,
    nelbo,
    policy_log_likelihood,
    policy_nelbo,
    policy_walk,
)

MAX_ENUMERABLE = 10
_CHOICE_FORWARDS = 2**19  # row-forwards that choosing the best and the worst order may take
_MEAN_ORDER_ROWS = 2048


@dataclass(frozen=True)
class Law:
    """The order law of a model, to score any denoiser along: a global one by its weights, a contextual one by rollouts.

    The policy of a contextual law reads the model whose law it is, also where another denoiser guesses the values.
    """

    owner: Network

    @property
    def is_contextual(self) -> bool:
        return self.owner.order.kind == "contextual"

    @property
    def log_w(self) -> Tensor:
        """[L], the law itself unless it is contextual."""
        return self.owner.order_head.global_log_w().detach()

    def order(self) -> list[int]:
        """The likeliest order of a law without context."""
        return deterministic_order(self.log_w).tolist()

    def nelbo(self, denoise: Denoiser, rows: Rows, *, seed: int, advance: Advance | None = None) -> Tensor:
        """One draw a row of the NELBO under this law."""
        if self.is_contextual:
            return policy_nelbo(self._guide(denoise), rows, seed=seed, advance=advance)
        return nelbo(denoise, rows, self.log_w, seed=seed, advance=advance)

    def greedy(self, denoise: Denoiser, rows: Rows, *, advance: Advance | None = None) -> Tensor:
        """The exact cost along the likeliest order."""
        if self.is_contextual:
            return -policy_log_likelihood(self._guide(denoise), rows, "learned", advance=advance)
        return -log_likelihood(denoise, rows, self.order(), advance=advance)

    def reversed_nelbo(self, denoise: Denoiser, rows: Rows, *, seed: int, advance: Advance | None = None) -> Tensor:
        """As `nelbo`, with what is likely to come next made unlikely."""
        if self.is_contextual:
            return policy_nelbo(self._guide(denoise, sign=-1.0), rows, seed=seed, advance=advance)
        return nelbo(denoise, rows, -self.log_w, seed=seed, advance=advance)

    def reversed_greedy(self, denoise: Denoiser, rows: Rows, *, advance: Advance | None = None) -> Tensor:
        """As `deployed`, always taking the unlikeliest position."""
        if self.is_contextual:
            return -policy_log_likelihood(self._guide(denoise, sign=-1.0), rows, "learned", advance=advance)
        return -log_likelihood(denoise, rows, self.order()[::-1], advance=advance)

    def _guide(self, denoise: Denoiser, *, sign: float = 1.0) -> Denoiser:
        return _Guided(denoise, self.owner, sign)


@dataclass(frozen=True)
class _Guided:
    """Values by one denoiser, orders by the owner of a law: a denoiser itself."""

    values: Denoiser
    owner: Denoiser
    sign: float

    @property
    def reads_ranks(self) -> bool:
        return reads_ranks(self.values) or reads_ranks(self.owner)

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor, *, ranks: Tensor | None = None) -> Prediction:
        prediction = ask(self.values, tokens, hidden, lengths, ranks)
        own = prediction if self.values is self.owner else ask(self.owner, tokens, hidden, lengths, ranks)
        return Prediction(prediction.token_logits, self.sign * own.order_logits)


def mean_order_rows(rows: Rows) -> Rows:
    """The rows that `mean_order` looks at."""
    return rows.subset(_MEAN_ORDER_ROWS)


def mean_order(denoise: Denoiser, rows: Rows, *, advance: Advance | None = None) -> list[int]:
    """The one order nearest to what a context-dependent policy does: positions by their mean step, earliest first.

    A row that never hides a position, or has it decided by an end, counts as taking it last. What the policy's own
    order gains over this one on other rows is what context is worth.
    """
    steps = policy_walk(denoise, mean_order_rows(rows), "learned", advance=advance).steps
    steps = steps.where(steps >= 0, steps.shape[1] - 1)
    return steps.double().mean(0).argsort(stable=True).tolist()


def why_not_enumerable(rows: Rows, denoise: Denoiser) -> str | None:
    """Why best and worst order are not to be found for such rows; None where they are."""
    if reads_ranks(denoise):
        return "what is said of a position depends on the order of those before it, not on their set alone"
    L = rows.x.shape[1]
    if L > MAX_ENUMERABLE:
        return f"{L} positions; all orders are compared only up to {MAX_ENUMERABLE}"
    return "rows differ in length" if bool(rows.padding.any()) else None


def choosing_rows(rows: Rows) -> Rows:
    """As many rows, evenly spaced, as `best_and_worst` can afford."""
    return rows.subset(_CHOICE_FORWARDS // 2 ** rows.x.shape[1])


@torch.inference_mode()
def best_and_worst(denoise: Denoiser, rows: Rows, *, advance: Advance | None = None) -> tuple[list[int], list[int]]:
    """The best and the worst order of all on these rows, by Held-Karp over every subset of positions."""
    chosen = choosing_rows(rows)

    def cost(x: Tensor, hidden: Tensor) -> Tensor:
        _, found = ask_set(denoise, x, hidden, end_id=rows.end_id)
        if advance is not None:
            advance(len(x))
        return found

    table = subset_table(cost, chosen.x).mean(0)
    return best_order(table)[1].tolist(), worst_order(table)[1].tolist()
