"""A learned order in words and as a picture. Knows log-weights and names, no network.

Context-dependent orders have no log-weights: see `training/publishing/policy_report.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unveil.model.order.plackett_luce import gumbel_noise, order_entropy, plackett_luce_order
from unveil.training.publishing.picture import ACCENT, new_figure, svg

_DRAWS = 4096


@dataclass(frozen=True)
class Place:
    """Where a position stands in the order: mean place (1 = first, exact), and the 10-90 % range of places (drawn)."""

    position: int
    name: str
    log_w: float
    mean: float
    low: float
    high: float
    first: float  # probability of being revealed first of all


def places(log_w: Tensor, names: Sequence[str | None]) -> list[Place]:
    """Every position of a Plackett-Luce law [L], earliest first.

    The mean place is exact, `1 + sum_j w_j / (w_i + w_j)`; the range is of 4,096 drawn orders at a fixed seed.
    """
    log_w = log_w.double()
    L = len(log_w)
    before = torch.sigmoid(log_w[None, :] - log_w[:, None])  # [i, j]: j comes before i
    mean = 1 + before.sum(1) - 0.5
    noise = gumbel_noise((_DRAWS, L), torch.Generator().manual_seed(0))
    drawn = plackett_luce_order(log_w, noise).argsort(-1).double() + 1  # [draws, L]
    low, high = drawn.quantile(torch.tensor([0.1, 0.9], dtype=torch.float64), dim=0)
    first = log_w.softmax(0)
    found = [
        Place(i, names[i] or f"position {i}", *(float(column[i]) for column in (log_w, mean, low, high, first)))
        for i in range(L)
    ]
    return sorted(found, key=lambda place: (place.mean, place.position))


def in_words(kind: str, log_w: Tensor, names: Sequence[str | None]) -> str:
    """The order for a reader: a sentence on how decided it is, then a line a position."""
    ranked = places(log_w, names)
    spread = float(order_entropy(log_w))
    if kind == "uniform":
        return "The order is uniform: every hidden position is equally likely to be revealed next."
    steps = (0.02, "one fixed order"), (0.5, "mostly decided"), (0.98, "only partly decided")
    decided = next((words for below, words in steps if spread < below), "hardly decided")
    lines = [
        f"The {kind} order is {decided} (order entropy {spread:.3f}; 1 is uniform, 0 a single order). First to last:"
    ]
    for number, p in enumerate(ranked, start=1):
        spread_in_words = f"{p.low:.0f} to {p.high:.0f} in 80 %"
        lines.append(
            f"{number:>3}. {p.name:<24} place {p.mean:5.1f} on average, {spread_in_words}, log w {p.log_w:+.2f}"
        )
    return "\n".join(lines)


def as_json(kind: str, log_w: Tensor, names: Sequence[str | None]) -> dict[str, Any]:
    """The same as a value."""
    ranked = [
        {"position": p.position, "name": p.name, "log_w": p.log_w, "mean_place": p.mean, "low": p.low, "high": p.high}
        for p in places(log_w, names)
    ]
    return {"kind": kind, "order_entropy": float(order_entropy(log_w)), "positions": ranked}


def chart(log_w: Tensor, names: Sequence[str | None], *, title: str) -> bytes:
    """A ranked chart as SVG: each position's mean place and its 10-90 % range under the law."""
    ranked = places(log_w, names)
    figure = new_figure(7.5, 1.2 + 0.3 * len(ranked))
    axes = figure.add_subplot()
    heights = range(len(ranked), 0, -1)
    axes.hlines(heights, [p.low for p in ranked], [p.high for p in ranked], color=ACCENT, alpha=0.35, linewidth=7)
    axes.plot([p.mean for p in ranked], list(heights), "o", color=ACCENT)
    axes.set_yticks(list(heights), [p.name for p in ranked])
    axes.set_xlim(0.5, len(ranked) + 0.5)
    axes.set_xlabel("place in the order (1 = revealed first); dot: mean, bar: 10-90 % of orders")
    axes.set_title(title, loc="left")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return svg(figure)
