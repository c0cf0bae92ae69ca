"""Shares of yes and no, and differences of two shares of the same things, with 95 % intervals."""

from collections.abc import Sequence
from math import sqrt

from unveil.benchmarks.common.runs import Fields

Z = 1.959964  # the 97.5 % point of the normal distribution


def share(hits: Sequence[bool]) -> Fields:
    """The share of hits, at least one of them asked for, with Wilson's interval."""
    low, high = wilson(sum(hits), len(hits))
    return {"share": sum(hits) / len(hits), "low": low, "high": high, "solved": int(sum(hits)), "puzzles": len(hits)}


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a binomial share (Wilson 1927): never outside 0 to 1, nor empty where p is 0 or 1."""
    p, z2 = hits / n, Z * Z
    middle, half = (p + z2 / (2 * n)), Z * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Fields:
    """Share of the first less share of the second, of the same things: their interval is Newcombe's method 10.

    It joins both Wilson intervals by the correlation phi of the pairs (Statistics in Medicine 17, 1998, 2635-2650), so
    it holds for few discordant pairs, where the normal interval is too short.
    """
    n = len(first)
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    p, q = sum(first) / n, sum(second) / n
    (p_low, p_high), (q_low, q_high) = wilson(sum(first), n), wilson(sum(second), n)
    phi = _phi(sum(first), sum(second), only_first, only_second, n)
    low = _joined(p - p_low, q_high - q, phi)
    high = _joined(p_high - p, q - q_low, phi)
    return {
        "difference": p - q,
        "low": p - q - low,
        "high": p - q + high,
        "only_first": int(only_first),
        "only_second": int(only_second),
        "puzzles": n,
    }


def _phi(first: int, second: int, only_first: int, only_second: int, n: int) -> float:
    """The correlation of the two, drawn towards 0 where it is positive; 0 where one of them never varies."""
    variances = first * (n - first) * second * (n - second)
    if variances == 0:
        return 0.0
    both = first - only_first
    covariance = both * (n - both - only_first - only_second) - only_first * only_second
    return (max(covariance - n / 2, 0.0) if covariance > 0 else covariance) / sqrt(variances)


def _joined(a: float, b: float, phi: float) -> float:
    return sqrt(a * a - 2 * phi * a * b + b * b)
