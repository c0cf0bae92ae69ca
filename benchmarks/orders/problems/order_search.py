"""One fixed order that suits a given net on given rows, by local search within a stated number of forwards.

One forward of all rows at a prefix set gives the mean cost of every hidden position there, and is kept: orders share
prefix sets, so moving one position by d places costs at most d forwards of the rows.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from unveil.model.denoiser import Denoiser, cross_entropy
from unveil.training.data.rows import Rows
from unveil.training.evaluation.conditionals import reads_ranks

LONGEST_MOVE = 6


class OutOfForwardsError(Exception):
    """The budget is spent."""


@dataclass
class Costs:
    """Mean cost in nats of each position at each prefix set that was asked for; no more than `max_sets` may be. For
    networks to which the order within a set does not matter."""

    denoise: Denoiser
    rows: Rows
    max_sets: int | None = None
    known: dict[frozenset[int], list[float]] = field(default_factory=dict)

    def at(self, prefix: frozenset[int]) -> list[float]:
        """[L], of use at hidden positions. Raises OutOfForwardsError."""
        if prefix not in self.known:
            if self.max_sets is not None and len(self.known) >= self.max_sets:
                raise OutOfForwardsError
            self.known[prefix] = self._ask(prefix)
        return self.known[prefix]

    def of(self, order: Sequence[int]) -> float:
        """Nats a row along an order. Raises OutOfForwardsError."""
        return sum(self.at(frozenset(order[:k]))[order[k]] for k in range(len(order)))

    def __post_init__(self) -> None:
        assert not reads_ranks(self.denoise)

    @torch.inference_mode()
    def _ask(self, prefix: frozenset[int]) -> list[float]:
        total = torch.zeros(self.rows.x.shape[1], dtype=torch.float64)
        for batch, _ in self.rows.batches():
            hidden = torch.ones_like(batch.padding)
            hidden[:, list(prefix)] = False
            logits = self.denoise(batch.x.masked_fill(hidden, 0), hidden, batch.lengths).token_logits
            total += cross_entropy(logits, batch.x).double().sum(0)
        return [float(value) for value in total / len(self.rows)]


def greedy_order(costs: Costs) -> list[int]:
    """Always the position that is cheapest now."""
    order: list[int] = []
    for _ in range(costs.rows.x.shape[1]):
        now = costs.at(frozenset(order))
        order.append(min(set(range(len(now))) - set(order), key=lambda position: now[position]))
    return order


def search_order(
    denoise: Denoiser, rows: Rows, *, starts: Sequence[Sequence[int]], max_sets: int, seed: int
) -> tuple[list[int], float]:
    """The best order found and its cost on these rows: the best of `starts` and the greedy order, then improved by
    moves of one position that help, until forwards at `max_sets` prefix sets are spent (the starts take theirs in any
    case) or no move has helped for long."""
    costs, chance = Costs(denoise, rows), random.Random(seed)
    found = [list(order) for order in (greedy_order(costs), *starts)]
    best = min(found, key=costs.of)
    lowest = costs.of(best)
    costs.max_sets = max_sets
    L, tries = len(best), 0
    try:
        while tries < 20 * L * L:
            tries += 1
            moved = _moved(best, chance)
            cost = costs.of(moved)
            if cost < lowest - 1e-12:
                best, lowest, tries = moved, cost, 0
    except OutOfForwardsError:
        pass
    return best, lowest


def _moved(order: Sequence[int], chance: random.Random) -> list[int]:
    """One position taken out and put back up to LONGEST_MOVE places away."""
    moved = list(order)
    place = chance.randrange(len(moved))
    position = moved.pop(place)
    low, high = max(0, place - LONGEST_MOVE), min(len(moved), place + LONGEST_MOVE)
    moved.insert(chance.randint(low, high), position)
    return moved
