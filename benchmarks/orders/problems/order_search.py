"""One fixed order that suits a given net on given rows: the model's search, with real forwards for a critic.

One forward of all rows at a prefix set gives the mean cost of every hidden position there, and is kept: orders share
prefix sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unveil.model.denoiser import Denoiser, cross_entropy
from unveil.model.search.pricing import TrialRows
from unveil.model.search.search import search_orders
from unveil.training.data.rows import Rows
from unveil.training.evaluation.conditionals import reads_ranks


@dataclass
class NetCosts:
    """Mean cost in nats of each position at each set that was asked for: a `model.loss.critic.Cost`. For networks to
    which the order within a set does not matter, and rows without padding."""

    denoise: Denoiser
    rows: Rows
    known: dict[bytes, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert not reads_ranks(self.denoise)
        assert not self.rows.padding.any()

    def __call__(self, hidden: Tensor, absent: Tensor) -> Tensor:
        """[N, L] bool each -> [N, L] float64, of use at hidden positions."""
        assert not absent.any()
        return torch.stack([self._at(row) for row in hidden])

    def _at(self, hidden: Tensor) -> Tensor:
        key = hidden.numpy().tobytes()
        if key not in self.known:
            self.known[key] = self._ask(hidden)
        return self.known[key]

    @torch.inference_mode()
    def _ask(self, hidden: Tensor) -> Tensor:
        total = torch.zeros(len(hidden), dtype=torch.float64)
        for batch, _ in self.rows.batches():
            everywhere = hidden.expand(batch.x.shape)
            logits = self.denoise(batch.x.masked_fill(everywhere, 0), everywhere, batch.lengths).token_logits
            total += cross_entropy(logits, batch.x).double().sum(0)
        return total / len(self.rows)


def search_order(
    denoise: Denoiser, rows: Rows, *, starts: Sequence[Sequence[int]], max_sets: int, seed: int
) -> tuple[list[int], float]:
    """The best order found and its cost on these rows: from `starts`, the greedy order and the two reading orders, then
    improved by moves that help, with forwards at about `max_sets` prefix sets more."""
    nothing = torch.zeros((1, rows.x.shape[1]), dtype=torch.bool)
    best = search_orders(
        NetCosts(denoise, rows),
        TrialRows(known=nothing, absent=nothing),
        starts=torch.tensor(starts),
        generator=torch.Generator().manual_seed(seed),
        max_questions=max_sets,
        num_random=0,
    )[0]
    return best.order.tolist(), best.nats
