"""Decided orders to compare a learned one with, and where it stands among them."""

from collections.abc import Mapping, Sequence

import numpy as np

LEARNED = "learned"


def decided_orders(learned: Sequence[int], best: Sequence[int], *, num_random: int, seed: int) -> dict[str, list[int]]:
    """The learned order [L], the best one of another net [L], and others that nobody chose for the data."""
    generator = np.random.default_rng([seed, len(learned)])
    orders = {
        LEARNED: list(learned),
        "best of the reference": list(best),
        "left to right": list(range(len(learned))),
        "learned, reversed": list(learned)[::-1],
    }
    return orders | {name: generator.permutation(len(learned)).tolist() for name in random_names(num_random)}


def random_names(num_random: int) -> list[str]:
    return [f"random {number}" for number in range(1, num_random + 1)]


def percentile(nats: Mapping[str, float], *, of: str = LEARNED) -> float:
    """The share of the other orders that one beats by fewer nats, a tie counting half: 1 the best of all, 0 the worst.

    Of an order that is no better than the others it is 0.5 on average.
    """
    others = [value for name, value in nats.items() if name != of]
    return sum(1.0 if nats[of] < value else 0.5 if nats[of] == value else 0.0 for value in others) / len(others)
