"""Orders that anybody would try first, against the law that order learning would start from. Knows no file.

A critic learns what positions cost after known sets that it has met. In a warm-up those are random ones, among which a
beginning of a text is next to never found, however cheap it makes the next position; and a law that was learned from
random sets does not come by it in small steps. So such orders are tried on validation rows when the warm-up ends, and
the best of them, if it is cheaper than the law, is what the law becomes. They are tried once more at the end, as what
is learned between close orders can be noise: the cheapest is what the artifact keeps.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.denoiser import Denoiser
from training.config import Rival
from training.evaluate import log_likelihood, nelbo
from training.rows import Rows

LAW = "law"
# Between the log-weights of neighbours in a rival's law. A law to learn from takes the next one first in seven draws of
# eight; a law to keep in 399 of 400, and still lies within doubles at any length there is.
GAP, LAST_GAP = 2.0, 6.0


class Verdict(NamedTuple):
    """Mean nats a row of the law and of every rival by name, and the cheapest of them."""

    nats: Mapping[str, float]
    best: str


def order_of(rival: Rival, length: int) -> list[int]:
    """All positions, the first one first."""
    order = list(range(length))
    return order if rival == "left_to_right" else order[::-1]


def rival_log_w(rival: Rival, length: int, *, gap: float = GAP) -> Tensor:
    """The law around a rival, log-weights [L] float32 of mean zero, `gap` apart."""
    log_w = torch.empty(length)
    log_w[order_of(rival, length)] = -gap * torch.arange(length).float()
    return log_w - log_w.mean()


def compare(denoise: Denoiser, rows: Rows, *, log_w: Tensor, rivals: Sequence[Rival], seed: int) -> Verdict:
    """The NELBO of the law `log_w` [L] beside the exact loss along each rival, on the same rows."""
    length = rows.x.shape[1]
    nats = {LAW: float(nelbo(denoise, rows, log_w, seed=seed).mean())}
    nats |= {rival: -float(log_likelihood(denoise, rows, order_of(rival, length)).mean()) for rival in rivals}
    return Verdict(nats, min(nats, key=nats.__getitem__))
