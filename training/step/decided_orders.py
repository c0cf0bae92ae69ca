"""Orders decided by search: found on the critic, priced by real forwards of training rows.

Gradients move a law by small steps, and a good order may be far: on the critic whole orders are tried by the million.
A critic is wrong where it has met little, so the best few that it finds are scored by the averaged network, beside the
law as it is, and the cheapest of all becomes the law where that is certain: a network that has learned along one order
pays for another. What is left to learn between close positions is the gradient's.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.model.denoiser import Denoiser
from unveil.model.loss.critic import Critic
from unveil.model.order.plackett_luce import deterministic_order
from unveil.model.search.search import search_orders
from unveil.training.data.rows import Rows
from unveil.training.evaluation.likelihood import log_likelihood, nelbo
from unveil.training.step.batches import order_rows, step_generator

LAW, OWN_ORDER = "the law", "its likeliest order"
LEFT_TO_RIGHT, RIGHT_TO_LEFT = "left to right", "right to left"
# Between the log-weights of neighbours in a decided order: the next one comes first in 399 draws of 400, so that nearly
# every row is trained along the order itself; and it still lies within doubles at any length there is.
GAP = 6.0
PRICED_ROWS, SCORED_ROWS = 64, 256
CERTAIN = 2.0  # standard errors, over rows, that an order must be cheaper by to become the law
_PREFERENCE = 1e-3  # between log-weights
_SEARCH_STREAM = 2**42
_SHOWN = 16


class Decision(NamedTuple):
    """Mean nats a row of the law and of every order by its name, and the one that is taken."""

    nats: Mapping[str, float]
    best: str


def order_log_w(order: Sequence[int]) -> Tensor:
    """The law around an order, log-weights [L] float32 of mean zero, `GAP` apart."""
    log_w = torch.empty(len(order))
    log_w[list(order)] = -GAP * torch.arange(len(order)).float()
    return log_w - log_w.mean()


def reading_orders(length: int) -> dict[str, list[int]]:
    """By name."""
    reading = list(range(length))
    return {LEFT_TO_RIGHT: reading, RIGHT_TO_LEFT: reading[::-1]}


def found_orders(
    critic: Critic, rows: Rows, *, log_w: Tensor, marginals: Tensor, seed: int, step: int
) -> dict[str, list[int]]:
    """The best few orders by the critic, by name, priced on rows that `seed` and `step` draw; and the reading orders,
    of whose prefixes a young critic may have met too few."""
    generator = step_generator(seed, _SEARCH_STREAM + step)
    chosen = torch.randperm(len(rows), generator=generator)[:PRICED_ROWS]
    device = next(critic.parameters()).device
    priced = order_rows(rows.at(chosen), marginals).to(device)
    starts = deterministic_order(log_w)[None].to(device)
    found = search_orders(critic, priced, starts=starts, generator=generator)
    orders = reading_orders(rows.x.shape[1])
    for number, own in enumerate(found, start=1):
        if own.order.tolist() not in orders.values():
            orders[f"found {number}"] = own.order.tolist()
    return orders


def scored_rows(rows: Rows, *, seed: int, step: int) -> Rows:
    """Training rows that a decision is made on, others than a search was priced on."""
    drawn = torch.randperm(len(rows), generator=step_generator(seed, _SEARCH_STREAM + step))
    return rows.at(drawn[PRICED_ROWS : PRICED_ROWS + SCORED_ROWS] if len(rows) > 2 * PRICED_ROWS else drawn).widened()


def decide(denoise: Denoiser, rows: Rows, *, log_w: Tensor, orders: Mapping[str, Sequence[int]], seed: int) -> Decision:
    """The NELBO of the law `log_w` [L] beside the exact loss along each order, on the same rows. The cheapest is taken
    where it is cheaper than the law by `CERTAIN` standard errors of the paired difference; else the law or its own
    likeliest order, whichever is cheaper, ties staying with the law.

    A uniform law does not stay: a network that has learned all orders pays for any single one at first, and what
    deciding is worth comes with the training along it.
    """
    costs = {LAW: nelbo(denoise, rows, log_w, seed=seed)}
    costs |= {name: -log_likelihood(denoise, rows, list(order)) for name, order in orders.items()}
    nats = {name: float(cost.mean()) for name, cost in costs.items()}
    if is_uniform(log_w):
        return Decision(nats, min(orders, key=nats.__getitem__))
    best = min(nats, key=nats.__getitem__)
    if best not in (LAW, OWN_ORDER) and not _is_certain(costs[LAW] - costs[best]):
        best = min((name for name in nats if name in (LAW, OWN_ORDER)), key=nats.__getitem__)
    return Decision(nats, best)


def is_uniform(log_w: Tensor) -> bool:
    """Whether a law has not begun to prefer any order."""
    return float(log_w.max() - log_w.min()) < _PREFERENCE


def _is_certain(gains: Tensor) -> bool:
    """Of each row [N], whether their mean is above zero."""
    error = float(gains.std()) / len(gains) ** 0.5 if len(gains) > 1 else math.inf
    return float(gains.mean()) > CERTAIN * error


def described(order: Sequence[int]) -> str:
    """An order in words: a reading order by its name, else its first positions."""
    if list(order) == sorted(order):
        return LEFT_TO_RIGHT
    if list(order) == sorted(order, reverse=True):
        return RIGHT_TO_LEFT
    return ", ".join(map(str, order[:_SHOWN])) + (", ..." if len(order) > _SHOWN else "")
