"""What decided orders cost by a critic: the mean over rows of `sum_k f_{sigma_k}(S_k)`, priced by prefix sets.

A critic that is asked about a set says what every position would cost next. So orders that share prefix sets share
their price, and one question prices many orders.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from unveil.model.loss.critic import Cost, Trials, saved_by_ends, undecided

MOST_AT_ONCE = 2**18  # values of states in one forward of a critic: more would leave a core's cache


class TrialRows(NamedTuple):
    """The rows that an order is priced on, see `model.loss.critic.Trials`: `known` and `absent` [M, L] bool, and where
    ends absorb `ends` [M, L] bool and `control` [M, L] in nats."""

    known: Tensor
    absent: Tensor
    ends: Tensor | None = None
    control: Tensor | None = None

    @classmethod
    def of(cls, trials: Trials) -> Self:
        """Those of a step's trials."""
        return cls(*trials[1:])

    def to(self, device: torch.device) -> Self:
        return type(self)(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


class SetPrices:
    """What each position costs next after a revealed set, in nats, the mean over rows. Rows that look alike are asked
    about once; `asked` counts questions to the critic, a set and a kind of rows each."""

    def __init__(self, cost: Cost, rows: TrialRows) -> None:
        assert (rows.ends is None) == (rows.control is None)
        self.length, self.device, self.asked = rows.known.shape[-1], rows.known.device, 0
        self._cost = cost
        looks = [rows.known, rows.absent] if rows.ends is None else [rows.known, rows.absent, rows.ends]
        kinds, kind, counts = torch.unique(torch.stack(looks, 1), dim=0, return_inverse=True, return_counts=True)
        self.num_kinds, self._weights = len(counts), counts.double() / len(kind)  # [K]
        self._known, self._absent, *ends = kinds.unbind(1)  # [K, L] each
        self._ends = ends[0] & ~(self._known | self._absent) if ends else None
        self._control = None if rows.control is None else _means(rows.control.double(), kind, counts)

    @torch.no_grad()
    def after(self, revealed: Tensor) -> Tensor:
        """Sets [N, L] bool -> [N, L] float64. What is revealed, known, absent or decided costs nothing in its row.

        Less the control of what the rows leave open at the start, as `model.loss.critic.simulated_nelbo`.
        """
        self.asked += len(revealed) * self.num_kinds
        size = max(1, MOST_AT_ONCE // (self.num_kinds * self.length))
        return torch.cat([self._at_once(part) for part in torch.split(revealed, size)])

    def _at_once(self, revealed: Tensor) -> Tensor:
        hidden = ~(revealed[:, None] | self._known | self._absent)  # [N, K, L]
        hidden, absent = undecided(hidden, self._absent.expand(hidden.shape), self._ends)
        flat = (-1, self.length)
        costs = self._cost(hidden.reshape(flat), absent.reshape(flat)).double().view(hidden.shape)
        costs = costs.masked_fill(~hidden, 0.0)
        if self._ends is not None and self._control is not None:
            costs = costs - saved_by_ends(hidden, self._ends, self._control)
        return torch.einsum("k,nkl->nl", self._weights, costs)


def _means(values: Tensor, kind: Tensor, counts: Tensor) -> Tensor:
    """The mean of each kind's rows: values [M, L], kinds [M], their counts [K] -> [K, L]."""
    return values.new_zeros(len(counts), values.shape[-1]).index_add(0, kind, values) / counts[:, None]


def step_costs(prices: SetPrices, orders: Tensor) -> Tensor:
    """What each step of whole orders costs, in nats: sigma [N, L] -> [N, L] float64."""
    L = orders.shape[-1]
    places = orders.argsort(-1)
    revealed = places[:, None] < torch.arange(L, device=orders.device)[:, None]  # [N, k, L]
    return prices.after(revealed.view(-1, L)).view(-1, L, L).gather(-1, orders[..., None]).squeeze(-1)


def order_cost(cost: Cost, orders: Tensor, rows: TrialRows) -> Tensor:
    """What decided orders cost by a critic, in nats a row less the control: sigma [N, L] -> [N] float64."""
    prices = SetPrices(cost, rows)
    return torch.cat([step_costs(prices, part).sum(-1) for part in torch.split(orders, 16)])
