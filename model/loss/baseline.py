"""What a score-function term subtracts: a running mean for each prefix length, or leave-one-out.

No training uses them: they are what the critic is compared with (`tests/model/loss/test_estimators.py`,
`benchmarks/orders/estimators.py`).
"""

import torch
from torch import Tensor, nn

from unveil.model.loss.objective import row_signal
from unveil.model.loss.prefixes import Prefixes


class RunningBaseline(nn.Module):
    """The mean `L_hat` of recent rows with the same (|C|, k); costs no forward. Its state is its buffers.

    A count-capped mean: plain over a cell's first `window` rows, after that each new row weighs 1 / (window + 1), so it
    follows a loss that falls. `read` comes before `update`, or a row's baseline would depend on its own order.
    """

    mean: Tensor  # [L + 1, L], by |C| and k
    visits: Tensor  # [L + 1, L]
    rate: Tensor  # the mean of L_hat / n over all cells: what an unvisited cell falls back to
    rate_visits: Tensor

    def __init__(self, L: int, *, window: int = 256) -> None:
        super().__init__()
        self.window = window
        for name, shape in (("mean", (L + 1, L)), ("visits", (L + 1, L)), ("rate", ()), ("rate_visits", ())):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def read(self, prefixes: Prefixes) -> Tensor:
        """[B] float64: the cell's mean, else n times the mean over everything seen, else NaN (nothing seen yet)."""
        cell = prefixes.num_known, prefixes.num_revealed
        fallback = torch.where(self.rate_visits > 0, self.rate * prefixes.num_free, torch.nan)
        return torch.where(self.visits[cell] > 0, self.mean[cell], fallback)

    def statistics(self, prefixes: Prefixes, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sums and counts [L + 1, L] of `values` [B] (`Loss.row_signals`) a cell; `weights` [B] default to law rows."""
        weights = (prefixes.follows_law if weights is None else weights).double()
        cell = prefixes.num_known, prefixes.num_revealed
        sums, counts = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        return sums.index_put(cell, weights * values, accumulate=True), counts.index_put(cell, weights, accumulate=True)

    @torch.no_grad()
    def update(self, sums: Tensor, counts: Tensor) -> None:
        """Takes one batch in."""
        L = self.mean.shape[1]
        num_free = (L - torch.arange(L + 1, device=sums.device)).clamp(min=1)[:, None]
        self._absorb(self.mean, self.visits, sums, counts)
        self._absorb(self.rate, self.rate_visits, (sums / num_free).sum(), counts.sum())

    def _absorb(self, mean: Tensor, visits: Tensor, total: Tensor, count: Tensor) -> None:
        visits += count
        mean += (total - count * mean) / visits.clamp(min=1)
        visits.clamp_(max=self.window)


def leave_one_out(
    cross_entropy: Tensor,
    prefixes: Prefixes,
    *,
    log_w: Tensor,
    num_draws: int,
    control: Tensor | None = None,
) -> Tensor:
    """For each of K draws with the same k the mean `L_hat` of the other K - 1: [K * B, L], K >= 2 -> [K * B].

    The rows are those of `draw_prefixes(..., num_draws=K)`. Unbiased; costs K forwards a row.
    """
    assert num_draws >= 2
    signals = row_signal(cross_entropy, prefixes, log_w=log_w, control=control)
    values = signals.detach().view(num_draws, -1)  # [K, B]
    return ((values.sum(0) - values) / (num_draws - 1)).flatten()
