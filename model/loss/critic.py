"""A critic of orders: which losses to expect where, given what is visible; and what a law costs by it.

A score function learns of an order's worth from one noisy number a row. The critic learns from every loss at every
hidden position of every row, whichever order the row followed: `f_i(S) = E_x[CE_i(x_S) - c_i(x)]` by least squares. By
it any law may be tried on simulated orders, as many as wanted, without a forward of the denoiser.

Rows may differ in length. A position past a row's end is absent: neither visible nor hidden, and no order reveals it.

Where ends absorb (`model.decoding.canvas`), what lies behind a revealed end is decided: it costs nothing, no order has
to reveal it, and the critic sees it as absent, be it hidden or revealed before. So a state follows from the set that is
revealed.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unveil.model.loss.prefixes import Turns
from unveil.model.order.plackett_luce import hidden_after, next_log_probs, plackett_luce_order

Cost = Callable[[Tensor, Tensor], Tensor]  # hidden, absent [N, L] bool -> nats [N, L]
MIN_WIDTH = 64
MAX_LENGTH = 1024  # the orders tried in a step take memory that grows with the square of it


class Critic(nn.Module):
    """`f(S)`: linear in what is visible, and a small MLP for what positions do together. Starts at zero."""

    def __init__(self, length: int) -> None:
        super().__init__()
        width = max(MIN_WIDTH, 2 * length)
        self.linear = nn.Linear(length, length)
        self.inner, self.outer = nn.Linear(length, width), nn.Linear(width, length)
        for parameter in (*self.linear.parameters(), *self.outer.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor, absent: Tensor) -> Tensor:
        """Expected losses in excess of the control, in nats: hidden, absent [..., L] bool -> [..., L] float32.

        A visible position is read as 1, a hidden one as -1, an absent one as 0.
        """
        signs = (1.0 - 2.0 * hidden.float()).masked_fill(absent, 0.0)
        return self.linear(signs) + self.outer(F.gelu(self.inner(signs)))  # type: ignore[no-any-return]


class Trials(NamedTuple):
    """Orders on which a critic tries the law: Gumbel `noise` [M, L], and of the row that each runs over what is `known`
    from the start and what is `absent`, past its end, [M, L] bool each. Where ends absorb, also where its `ends` stand,
    [M, L] bool, and the `control` [M, L] by which the critic's targets are less than the losses. A known end decides
    nothing: prompts may ask for what lies behind it."""

    noise: Tensor
    known: Tensor
    absent: Tensor
    ends: Tensor | None = None
    control: Tensor | None = None

    def to(self, device: torch.device) -> "Trials":
        return Trials(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


class CriticLoss(NamedTuple):
    """What a step minimises with a critic: its `error` a row [B], whose gradient teaches the critic, and what the law
    costs by it, `simulated`, in nats a row less the control: a scalar, whose gradient moves the law."""

    error: Tensor
    simulated: Tensor


def critic_loss(
    critic: Critic,
    losses: Tensor,
    *,
    hidden: Tensor,
    absent: Tensor,
    control: Tensor,
    turns: Turns | None,
    log_w: Tensor,
    trials: Trials,
    ends: Tensor | None = None,
) -> CriticLoss:
    """Both halves of learning a law `log_w` [L] by a critic: regression on the rows' `losses`, and simulation by it.

    `losses`, `control` [B, L] in nats, `hidden`, `absent` and, where ends absorb, `ends` [B, L] bool. With `turns` the
    losses are theirs, [B, M], and the critic is asked about those turns, each as its row stood then. What was decided
    by then teaches nothing.
    """
    if turns is None:
        hidden, absent = undecided(hidden, absent, ends)
        error = critic_error(critic(hidden, absent), losses, hidden, control=control)
    else:
        positions, hidden = turns
        hidden, absent = undecided(
            hidden, absent[:, None].expand(hidden.shape), None if ends is None else ends[:, None]
        )
        expected, is_asked = (
            part.gather(-1, positions[..., None]).squeeze(-1) for part in (critic(hidden, absent), hidden)
        )
        error = critic_error(expected, losses, is_asked, control=control.gather(-1, positions))
    noise, *rows = trials
    known, is_absent, row_ends, row_control = rows
    simulated = simulated_nelbo(log_w, critic, noise, known=known, absent=is_absent, ends=row_ends, control=row_control)
    return CriticLoss(error, simulated)


def undecided(hidden: Tensor, absent: Tensor, ends: Tensor | None) -> tuple[Tensor, Tensor]:
    """`hidden` without what a revealed end decides, and `absent` with all that lies behind it: [..., L] bool each.

    `ends` [..., L] bool: where the rows hold an end token that was not known from the start; None where ends do not
    absorb.
    """
    if ends is None:
        return hidden, absent
    L = hidden.shape[-1]
    places = torch.arange(L, device=hidden.device)
    first = torch.where(ends & ~hidden & ~absent, places, L).amin(-1, keepdim=True)
    return hidden & (places <= first), absent | (places > first)


def saved_by_ends(hidden: Tensor, ends: Tensor, control: Tensor) -> Tensor:
    """The control of what each position would decide if it were revealed now, in nats: [..., L] float64.

    Without ends every order takes in the control of every position. An end saves the control of the `hidden` [..., L]
    behind it, so that much less is to be paid for it than the critic expects.
    """
    owed = control.double().masked_fill(~hidden, 0.0)
    return (owed.flip(-1).cumsum(-1).flip(-1) - owed).masked_fill(~(ends & hidden), 0.0)


def critic_error(expected: Tensor, cross_entropy: Tensor, hidden: Tensor, *, control: Tensor) -> Tensor:
    """What the critic minimises: squared error over the hidden positions, a row: [B, L] each -> [B].

    Its minimum is the conditional mean, whatever law the prefixes came from.
    """
    target = (cross_entropy - control).detach().float()
    return (expected.float() - target).square().masked_fill(~hidden, 0.0).sum(-1)


def simulated_nelbo(
    log_w: Tensor,
    cost: Cost,
    noise: Tensor,
    *,
    known: Tensor | None = None,
    absent: Tensor | None = None,
    ends: Tensor | None = None,
    control: Tensor | None = None,
) -> Tensor:
    """The NELBO of Plackett-Luce(log_w [L]) by `cost`, over orders drawn with Gumbel `noise` [M, L], M >= 2: scalar.

    Order m runs over the positions of one row of the data: `absent` [M, L] bool are past its end, `known` [M, L] bool
    visible from the start; none where None. The mean over m is then the mean over rows: a position that few rows have
    counts as rarely as it is there. `cost` is constant here. With the next position summed out at every prefix of every
    order, `sum_k sum_i q_i f_i(S_k)`; its gradient for log_w is unbiased: through q, and each choice's score weighted
    with what the order costs after it, less the mean of the other orders at that step (`_of_others`).

    `ends` and `control` come together, see `Trials`. The result is less the control of all that is open at the start,
    whatever an order then leaves to its ends.
    """
    M, L = noise.shape
    assert M >= 2
    assert (ends is None) == (control is None)
    is_absent = torch.zeros_like(noise, dtype=torch.bool) if absent is None else absent
    is_fixed = is_absent if known is None else is_absent | known
    sigma = plackett_luce_order(log_w, noise, is_fixed)  # [M, L], what is fixed first
    if ends is not None:
        ends = ends & ~is_fixed
        sigma = _decided_last(sigma, is_fixed, ends)
    num_fixed = is_fixed.sum(-1)
    places = num_fixed[:, None] + torch.arange(L, device=noise.device)
    hidden = hidden_after(sigma[:, None], places)  # [M, k, L], nothing once the row is complete
    hidden, is_absent = undecided(hidden, is_absent[:, None].expand(M, L, L), None if ends is None else ends[:, None])
    with torch.no_grad():
        costs = cost(hidden.reshape(M * L, L), is_absent.reshape(M * L, L)).double()
        costs = costs.view(M, L, L).masked_fill(~hidden, 0.0)
        if ends is not None and control is not None:
            costs -= saved_by_ends(hidden, ends[:, None], control[:, None])
    log_q = next_log_probs(log_w, hidden)
    stages = (log_q.exp() * costs).sum(-1)  # [M, k]
    with torch.no_grad():
        after = stages.flip(-1).cumsum(-1).flip(-1) - stages  # what is still to pay once the k-th choice is made
        alike = num_fixed if ends is None else num_fixed * (L + 1) + ends.sum(-1)
        advantage = after - _of_others(after, alike)
    chosen = sigma.gather(-1, places.clamp(max=L - 1))[..., None]  # [M, k, 1]
    is_over = ~hidden.gather(-1, chosen)
    score = (log_q.gather(-1, chosen).masked_fill(is_over, 0.0).squeeze(-1) * advantage).sum(-1)
    return (stages.sum(-1) + score - score.detach()).mean()


def _decided_last(sigma: Tensor, is_fixed: Tensor, ends: Tensor) -> Tensor:
    """The orders sigma [M, L] with what an earlier end decides moved to their end, where nothing is left to choose."""
    L = sigma.shape[-1]
    places = sigma.argsort(-1)
    first_end = torch.where(ends, places, L).cummin(-1).values  # of the ends up to each position, the earliest one
    is_decided = (first_end < places) & ~is_fixed
    return (places + L * is_decided).argsort(-1)


def _of_others(after: Tensor, kinds: Tensor) -> Tensor:
    """The mean of the other orders at each step, of those over rows of the same kind where there are any: `after`
    [M, K] and numbers of kinds [M] -> [M, K].

    An order's own draw is never in its baseline: that would scale its score down by (M - 1) / M.
    """
    others = ~torch.eye(len(after), dtype=torch.bool, device=after.device)
    alike = others & (kinds[:, None] == kinds)
    weights = torch.where(alike.any(-1, keepdim=True), alike, others).double()
    return (weights / weights.sum(-1, keepdim=True)) @ after
