"""Candidate orders, which anybody would try first, against the law that learning would start from.

A critic learns what positions cost after known sets that it has met. In a warm-up those are random ones, among which a
beginning of a text is next to never found, however cheap it makes the next position; and a law that was learned from
random sets does not come by it in small steps. So such orders are tried on validation rows when the warm-up ends, and
the best of them, if it is cheaper than the law, is what the law becomes. They are tried once more at the end, as what
is learned between close orders can be noise. There the law's own likeliest order is a candidate, too: a law that is
drawn pays for its chance, and would lose to its own order. The cheapest is what the artifact keeps.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.model.denoiser import Denoiser
from unveil.model.order.plackett_luce import deterministic_order
from unveil.training.data.rows import Rows
from unveil.training.evaluation.likelihood import log_likelihood, nelbo
from unveil.training.order_config import ReadingOrder, reading_order

LAW, OWN = "learned", "learned, its greedy order"
# Between the log-weights of neighbours in a candidate's law. A law to learn from takes the next one first in seven
# draws of eight; a law to keep in 399 of 400, and still lies within doubles at any length there is.
GAP, LAST_GAP = 2.0, 6.0


class Comparison(NamedTuple):
    """Mean nats a row of the law and of every candidate by name, and the cheapest of them; `is_close` if the rows do
    not tell a law that is not decided from the best candidate, as after a warm-up too short to meet what makes an
    order."""

    nats: Mapping[str, float]
    best: str
    is_close: bool


def order_log_w(order: Sequence[int], *, gap: float = GAP) -> Tensor:
    """The law around an order, log-weights [L] float32 of mean zero, `gap` apart."""
    log_w = torch.empty(len(order))
    log_w[list(order)] = -gap * torch.arange(len(order)).float()
    return log_w - log_w.mean()


def candidate_orders(log_w: Tensor, names: Sequence[ReadingOrder], *, has_own: bool) -> dict[str, list[int]]:
    """The orders to price by name; the law's own first where asked for, so that a tie stays with it."""
    own = {OWN: deterministic_order(log_w).tolist()} if has_own else {}
    return own | {name: reading_order(name, len(log_w)) for name in names}


def compare(
    denoise: Denoiser, rows: Rows, *, log_w: Tensor, orders: Mapping[str, Sequence[int]], seed: int
) -> Comparison:
    """The NELBO of the law `log_w` [L] beside the exact loss along each order, on the same rows.

    A law decided on a candidate's very order, as an earlier run may have left it, is that candidate: which of the two
    is drawn cheaper would be chance, and a law to learn on from should not be too sure. One that is decided on none, as
    log-weights that are all zero, is no candidate, whichever order its ties would give.
    """
    costs = {LAW: nelbo(denoise, rows, log_w, seed=seed)}
    costs |= {name: -log_likelihood(denoise, rows, list(order)) for name, order in orders.items()}
    nats = {name: float(cost.mean()) for name, cost in costs.items()}
    best = min(nats, key=nats.__getitem__)
    is_close = not _is_decided(log_w) and _is_noise(costs[LAW] - costs[min(orders, key=nats.__getitem__)])
    if best == LAW and OWN not in orders and _is_decided(log_w):
        own = deterministic_order(log_w).tolist()
        best = next((name for name, order in orders.items() if list(order) == own), LAW)
    return Comparison(nats, best, is_close)


def _is_noise(differences: Tensor) -> bool:
    """Whether their mean is within two standard errors of zero, [N]; of a single row nothing is known."""
    if len(differences) < 2:
        return True
    return bool(differences.mean().abs() <= 2 * differences.std() / len(differences) ** 0.5)


def _is_decided(log_w: Tensor) -> bool:
    """Whether neighbours in its order are as far apart as in a candidate's law, or nearly."""
    return bool((log_w.sort().values.diff() >= GAP / 2).all())
