"""Estimators of the NELBO and of its gradients, for the token head and for learned orders.

Two forms of one bound: the order form (arXiv 2511.19152, Prop. 3.1, with LO-ARM's sum over the next position, arXiv
2503.05979), one forward a row, the default; and the paper's own eq. 8 in continuous time, kept as an arm. Both take the
cross-entropies `CE_i = -log p(x_i | x_S)` that a denoiser gave at the drawn hidden sets, and give nats a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unveil.model.loss.prefixes import Prefixes, Questions
from unveil.model.order.plackett_luce import hidden_after, next_log_probs, prefix_log_prob
from unveil.model.order.schedule import Masks, PolynomialSchedule


@dataclass(frozen=True, slots=True)
class Loss:
    """What a step minimises and what it reports.

    `total` (scalar) carries all gradients and its value is the mean of `row_nelbos`; `parts` are detached scalars;
    `row_nelbos` [B] is each row's own estimate, detached; `row_signals` [B] is the part of it that depends on the
    order, for a running baseline.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    row_nelbos: Tensor
    row_signals: Tensor


def row_signal(
    cross_entropy: Tensor,
    prefixes: Prefixes,
    *,
    log_w: Tensor,
    control: Tensor | None = None,
) -> Tensor:
    """`n * sum_{i hidden} q_i (CE_i - c_i)` a row, in nats, float64: [B, L], log_w [L] or [B, L], c [B, L] -> [B].

    `q_i = w_i / w(hidden)` on rows of the law and 1 / |hidden| on uniform rows. Over the prefix, an unbiased
    estimate of the row's NELBO given its known set, less the controls of all free positions: whatever the order, each
    of them is counted exactly once. A law with far-apart weights is a fixed order: q is then one position, and
    `n * CE` of that one is all that a single forward says about it.
    """
    hidden = prefixes.hidden
    log_q = next_log_probs(_row_log_w(prefixes, log_w), hidden)  # [B, L]
    excess = cross_entropy.double() if control is None else cross_entropy.double() - control.detach()
    return prefixes.num_free * (log_q.exp() * excess.masked_fill(~hidden, 0.0)).sum(-1)


def order_form(
    cross_entropy: Tensor,
    prefixes: Prefixes,
    *,
    log_w: Tensor,
    baseline: Tensor | None = None,
    control: Tensor | None = None,
    learn_order_from_prompted: bool = False,
    spread: float = 0.0,
) -> Loss:
    """The order-form loss: mean over rows of `L_hat + log P(ordered prefix) * stopgrad(L_hat - b)`.

    Training asks for its value and for the token head's gradient: there `log_w` is constant, as a critic moves the law
    (`model/loss/critic.py`), and there is no score term. With a `log_w` that takes a gradient it is the plain estimator
    of the law's, which oracle and benchmarks compare others with.

    `cross_entropy` [B, L]; `log_w` [L] or [B, L]; `baseline` [B] must not depend on the row's own order (read a running
    one BEFORE its update), NaN where there is none yet (no score term there), None = 0. `control` [B, L] is a control
    variate `c_i(x)`, any function of the clean row and the position, but not of what is visible: as every order pays
    `sum_i c_i` exactly once, taking `CE_i - c_i` and adding the sum back changes no expectation, and takes what a
    position costs in any order out of the noise. `-log p(x_i)` under the marginals is a good one.

    With `spread` the token head is trained by `(1 - spread) q_i + spread / |hidden|`: no reported value and no gradient
    for `log_w` contains it.

    Every row trains the token head. Only rows of the law without a prompt teach `log_w`, prompted ones too with
    `learn_order_from_prompted`. Parts: mean `nelbo` (law, no prompt), `conditional_nelbo` (law, prompted),
    `uniform_nelbo` (uniform order, no prompt) and `score`, the mean size of the score term, each 0 where its count of
    rows (`num_...`) is 0.
    """
    law, prompted = prefixes.follows_law, prefixes.prompted
    teaches = law if learn_order_from_prompted else law & ~prompted
    log_w = torch.where(teaches[:, None], log_w, log_w.detach())  # [B, L]
    signals = row_signal(cross_entropy, prefixes, log_w=log_w, control=control)
    values = signals if control is None else signals + _free_sum(control, prefixes)
    score = torch.zeros_like(values)
    if log_w.requires_grad:
        stop = prefixes.num_known + prefixes.num_revealed
        log_prefix = prefix_log_prob(log_w, prefixes.sigma, prefixes.num_known, stop)
        score = _score(log_prefix, signals, baseline).masked_fill(~teaches, 0.0)
    parts = {
        **_mean_over("nelbo", values, law & ~prompted),
        **_mean_over("conditional_nelbo", values, law & prompted),
        **_mean_over("uniform_nelbo", values, ~law & ~prompted),
        **_mean_over("score", score.abs(), teaches),
    }
    return _loss(values, score + spread * _spreading(cross_entropy, prefixes, log_w), parts, signals)


def whole_orders(
    cross_entropy: Tensor,
    prefixes: Prefixes,
    *,
    paid: Tensor,
    asked: Tensor | None = None,
    questions: Questions | None = None,
    spread: float = 0.0,
) -> Loss:
    """The loss of whole orders: `sum_k CE_{sigma_k}(x_{sigma_<k})`, each row's exact loss along its own.

    `cross_entropy` [B, L] is each position's as of just before its own turn, out of one forward (`Network.in_turn`);
    `paid` [B, L]: the hidden positions that have a turn (`turns_of`). With `questions`, which came out as `asked`
    [B, M], the token head is trained by `1 - spread` times this and `spread` times their weighted sum; no reported
    value contains them. Nothing here moves the order. Parts as in `order_form`, but for the score.
    """
    law, prompted = prefixes.follows_law, prefixes.prompted
    values = cross_entropy.double().masked_fill(~paid, 0.0).sum(-1)
    parts = {
        **_mean_over("nelbo", values, law & ~prompted),
        **_mean_over("conditional_nelbo", values, law & prompted),
        **_mean_over("uniform_nelbo", values, prefixes.uniform & ~prompted),
    }
    steering = torch.zeros_like(values)
    if asked is not None and questions is not None:
        steering = spread * ((asked.double() * questions.weights).sum(-1) - values)
    return _loss(values, steering, parts, values.detach())


def turns_of(ranks: Tensor, x: Tensor, *, end_id: int | None) -> Tensor:
    """The turn of each position of clean rows `x` [B, L] along its order, `ranks` [B, L] with 0 where it was known: as
    the ranks, but L + 1 for the ends that a revealed one in front decides (`model.decoding.canvas`): nobody reads them.
    """
    if end_id is None:
        return ranks
    L = ranks.shape[1]
    ends = (x == end_id) & (ranks > 0)
    first = ranks.masked_fill(~ends, L + 1).cummin(-1).values  # up to each position, itself included
    return ranks.masked_fill(ends & (first < ranks), L + 1)


def questions_about(turns: Tensor, lengths: Tensor, *, chance: Tensor) -> Questions:
    """Positions asked before the turns of others: of whole rows, `turns` [B, L] as `turns_of` gives them.

    A `chance` [2, B, M], uniform in [0, 1), draws them: a state that has something else to ask, and one of that. The
    weighted sum is an unbiased estimate of the mean over what else is hidden at each state, summed over a row's states.
    """
    L = turns.shape[1]
    places = torch.arange(L, device=turns.device)
    is_asked = (turns > 0) & (turns <= L) & (places < lengths[:, None])
    num_turns = is_asked.sum(-1, keepdim=True)  # [B, 1]
    by_turn = turns.masked_fill(~is_asked, L + 1).argsort(dim=-1, stable=True)  # positions, [B, L]
    now = (chance[0] * (num_turns - 1)).long()  # [B, M]
    rest = num_turns - now - 1
    later = now + 1 + torch.minimum((chance[1] * rest).long(), rest - 1)
    weights = ((num_turns - 1) / chance.shape[-1]).expand(now.shape)
    last = (num_turns - 1).clamp(min=0)
    positions, first = (by_turn.gather(1, torch.minimum(index.clamp(min=0), last)) for index in (later, now))
    return Questions(positions, turns.gather(1, first).clamp(1, L), weights.double().masked_fill(num_turns < 2, 0.0))


def even_loss(cross_entropy: Tensor, prefixes: Prefixes) -> Tensor:
    """`n` times the mean loss of what is hidden, in nats, as `order_form` has it for uniform rows: [B, L] -> [B]."""
    hidden = prefixes.hidden
    return prefixes.num_free * cross_entropy.double().masked_fill(~hidden, 0.0).sum(-1) / hidden.sum(-1)


def eq8(cross_entropy: Tensor, masks: Masks, *, schedule: PolynomialSchedule, baseline: Tensor | None = None) -> Loss:
    """The paper's eq. 8: mean over rows of `sum_{i masked} (w_i / t) CE_i`, and the score function of the mask.

    `cross_entropy` [B, L]; `masks` drawn from this very `schedule`; `baseline` [B] as in `order_form` (it may know t).
    The paper's arm draws t from (PAPER_MIN_T, 1) with w as it is: biased by the piece cut off, and of infinite variance
    as soon as some w_i <= 1. The other arm is `schedule.finite_gauge()` with min_t = 0. No prompts.
    """
    hidden = masks.hidden
    weighted = schedule.loss_weight(masks.t) * cross_entropy.double()  # [B, L]
    values = (1 - masks.min_t) * weighted.masked_fill(~hidden, 0.0).sum(-1)
    log_masked = schedule.log_masked(masks.t)
    log_mask = torch.where(hidden, log_masked, torch.log(-torch.expm1(log_masked))).sum(-1)
    score = _score(log_mask, values, baseline)
    everywhere = torch.ones_like(values, dtype=torch.bool)
    parts = {**_mean_over("nelbo", values, everywhere), **_mean_over("score", score.abs(), everywhere)}
    return _loss(values, score, parts, values)


def _spreading(cross_entropy: Tensor, prefixes: Prefixes, log_w: Tensor) -> Tensor:
    """What taking 1 / |hidden| in place of q_i adds to a row's loss, for the token head alone: [B]."""
    hidden = prefixes.hidden
    q = next_log_probs(_row_log_w(prefixes, log_w.detach()), hidden).exp()
    even = hidden / hidden.sum(-1, keepdim=True)
    return prefixes.num_free * ((even - q) * cross_entropy.double()).masked_fill(~hidden, 0.0).sum(-1)


def _row_log_w(prefixes: Prefixes, log_w: Tensor) -> Tensor:
    return torch.where(prefixes.follows_law[:, None], log_w, torch.zeros_like(log_w))  # [B, L]


def _score(log_probability: Tensor, values: Tensor, baseline: Tensor | None) -> Tensor:
    baseline = torch.zeros_like(values) if baseline is None else baseline
    advantage = torch.where(baseline.isnan(), torch.zeros_like(values), values - baseline)
    return log_probability * advantage.detach()


def _free_sum(control: Tensor, prefixes: Prefixes) -> Tensor:
    free = hidden_after(prefixes.sigma, prefixes.num_known)  # [B, L]
    return control.detach().double().masked_fill(~free, 0.0).sum(-1)


def _loss(values: Tensor, steering: Tensor, parts: Mapping[str, Tensor], signals: Tensor) -> Loss:
    # The steering terms [B] are there for their gradients: subtracted, so that `total` reads as nats.
    total = (values + steering - steering.detach()).mean()
    return Loss(total=total, parts=parts, row_nelbos=values.detach(), row_signals=signals.detach())


def _mean_over(name: str, values: Tensor, rows: Tensor) -> dict[str, Tensor]:
    count = rows.sum()
    mean = values.detach().masked_fill(~rows, 0.0).sum() / count.clamp(min=1)
    return {name: mean, f"num_{name}": count}
