"""What order learning must be watched by: bounds, entropy, effective number of orders, gradient noise, regret.

An order that collapses early, or runs toward a local optimum before the denoiser has learnt what makes an order good,
shows here first.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unveil.model.denoiser import Denoiser
from unveil.model.oracle.exact import order_table, subset_table
from unveil.model.oracle.regret import regret
from unveil.model.order.plackett_luce import deterministic_order, gumbel_noise, next_log_probs, order_entropy
from unveil.training.data.rows import Rows
from unveil.training.evaluation.conditionals import ask_set, reads_ranks
from unveil.training.evaluation.estimate import Estimate
from unveil.training.evaluation.likelihood import log_likelihood, nelbo, policy_nelbo, policy_walk
from unveil.training.step.training_model import full_tensor

MAX_REGRET_LENGTH, REGRET_ROWS = 8, 256
_ENTROPY_DRAWS = 16


def law_metrics(log_w: Tensor, *, policy_nats: float | None = None) -> dict[str, float]:
    """Of a law without context, log_w [L]; or of a policy, where the entropy of its orders is known in nats.

    `order_entropy` is 1 for uniform orders and 0 for a single one; `effective_orders_log10` the logarithm of the number
    of equally likely orders that would have this entropy.
    """
    most = math.lgamma(len(log_w) + 1)
    if policy_nats is None:
        noise = gumbel_noise((_ENTROPY_DRAWS, len(log_w)), torch.Generator().manual_seed(0))
        policy_nats = float(order_entropy(log_w, noise)) * most
    return {
        "order_entropy": policy_nats / max(most, 1e-300),
        "effective_orders_log10": policy_nats / math.log(10),
        "log_w_span": float(log_w.max() - log_w.min()),
    }


def gradient_noise(optimizer: torch.optim.Optimizer, *, group: str) -> float | None:
    """Variance over squared mean of a parameter group's gradients, summed over weights; None before there are any.

    Read off AdamW's moments, so it costs nothing: with `v` the mean square and `m` the running mean of decay `b`,
    `m` still holds `(1 - b) / (1 + b)` of a single gradient's variance.
    """
    variance, signal = 0.0, 0.0
    for settings in optimizer.param_groups:
        if settings["name"] != group:
            continue
        b1, b2 = settings["betas"]
        left = (1 - b1) / (1 + b1)
        for parameter in settings["params"]:
            state = optimizer.state.get(parameter)
            if not state or not float(state["step"]):
                continue
            step = float(state["step"])
            square = float(full_tensor(state["exp_avg"]).double().square().sum()) / (1 - b1**step) ** 2
            total = float(full_tensor(state["exp_avg_sq"]).double().sum()) / (1 - b2**step)
            variance += max(total - square, 0.0) / (1 - left)
            signal += square - left * max(total - square, 0.0) / (1 - left)
    return variance / signal if signal > 0 else None


def validation_metrics(
    denoise: Denoiser, rows: Rows, *, log_w: Tensor, is_contextual: bool, seed: int
) -> Mapping[str, float]:
    """NELBO under the law and exact loss along its likeliest order; for short rows also the regret on this very net.

    That last one flatters a law that the net was trained along: a fair one takes a net trained under uniform orders
    (`benchmarks/orders/regret.py`). It shows whether the order still has somewhere to go.

    Rows with clues are puzzles: a model without a policy of its own is walked by margin, and `solved` is the share that
    comes out right.
    """
    if is_contextual:
        bound = Estimate.of(policy_nelbo(denoise, rows, seed=seed))
    else:
        bound = Estimate.of(nelbo(denoise, rows, log_w, seed=seed))
    solved = {}
    if is_contextual or rows.clues is not None:
        walk = policy_walk(denoise, rows, "learned" if is_contextual else "margin")
        exact = Estimate.of(walk.nats)
        solved = {} if rows.clues is None else {"solved": float(walk.is_solved.double().mean())}
    else:
        exact = Estimate.of(-log_likelihood(denoise, rows, deterministic_order(log_w).tolist()))
    metrics = {"nelbo": bound.mean, "nelbo_se": bound.standard_error, "negative_log_likelihood": exact.mean, **solved}
    own = own_regret(denoise, rows, log_w=log_w, is_contextual=is_contextual)
    return metrics if own is None else {**metrics, "own_regret": own}


@torch.inference_mode()
def own_regret(denoise: Denoiser, rows: Rows, *, log_w: Tensor, is_contextual: bool) -> float | None:
    """Order regret on the net itself, the best order chosen on every other row and scored on those between.

    None for rows that are long or differ in length, for a net to which the order of the past matters, and where orders
    hardly differ.
    """
    x, L = rows.subset(REGRET_ROWS).x, rows.x.shape[1]
    if L > MAX_REGRET_LENGTH or len(x) < 4 or bool(rows.padding.any()) or reads_ranks(denoise):
        return None

    def table(read: int) -> Tensor:
        """What the net says of every subset: token losses (0) or log-weights of the next position (1)."""

        def ask(tokens: Tensor, hidden: Tensor) -> Tensor:
            found, nats = ask_set(denoise, tokens, hidden, end_id=rows.end_id)
            return next_log_probs(found.order_logits, hidden) if read else nats

        return subset_table(ask, x)

    losses = table(0)
    law = order_table(log_w.to(x.device))
    if is_contextual:
        law = _impossible_inside(table(1)[1::2])
    return regret(law, validation=losses[::2], test=losses[1::2]).ratio


def _impossible_inside(table: Tensor) -> Tensor:
    """A table [..., 2**L, L] of log-probabilities with minus infinity at positions that are revealed already."""
    inside = torch.isinf(order_table(torch.zeros(table.shape[-1], device=table.device)))
    return table.masked_fill(inside, -torch.inf)
