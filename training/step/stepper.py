"""One update of the weights: draw the step's batch, the loss of this process's share of it, clip, step.

What a step does is a function of (recipe, rows, step) and of the weights: every process draws the same global batch and
takes its own rows of it, so their gradients add up to those of one process.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from unveil.model.errors import UnveilError
from unveil.model.loss.critic import CriticLoss, Trials
from unveil.model.loss.objective import (
    Loss,
    even_loss,
    order_form,
    questions_about,
    turns_of,
    whole_orders,
)
from unveil.model.loss.prefixes import Prefixes, Turns
from unveil.training.config import Recipe
from unveil.training.data.dataset import Symmetries
from unveil.training.data.rows import Rows
from unveil.training.step.batches import Batch, draw_batch, trials_over
from unveil.training.step.training_model import StepLosses, TrainingModule, full_tensor

_DROPOUT_STRIDE = 7_919_999
_TURNS = 8  # of a row's own order that a critic is asked about: more are hardly more of a sample
REPORTED = ("nelbo", "uniform_nelbo", "conditional_nelbo", "policy_entropy", "critic_error")
_OWNERS = {"order": "order's ", "critic": "critic's "}


class Part(NamedTuple):
    """What some rows of a step give: their `loss`, whose mean over all parts of all processes is minimised, and of each
    reported figure the `sums` over rows and, as `num_...`, how many rows."""

    loss: Tensor
    sums: Mapping[str, Tensor]


class Stepper:
    """Takes steps; holds nothing that a checkpoint would have to keep."""

    def __init__(
        self,
        fabric: Fabric,
        *,
        recipe: Recipe,
        unwrapped: TrainingModule,
        module: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        rows: Rows,
        symmetries: Symmetries | None = None,
    ) -> None:
        """`module` is what Fabric made of `unwrapped`; its forward alone may be asked for gradients."""
        self._fabric, self._recipe, self._rows, self._symmetries = fabric, recipe, rows, symmetries
        self._unwrapped, self._module, self._optimizers = unwrapped, module, optimizers
        self._accumulate = recipe.optimizer.accumulate
        self._num_parts = fabric.world_size * self._accumulate
        self._share, rest = divmod(recipe.optimizer.batch_size, self._num_parts)
        if rest:
            raise UnveilError(
                f"optimizer.batch_size: {recipe.optimizer.batch_size} does not divide by {fabric.world_size} processes"
                f" x accumulate {self._accumulate}"
            )

    def take(self, step: int) -> Mapping[str, Tensor]:
        """Makes update number `step`; gives this process's part of what `figures` sums up. Raises UnveilError."""
        self._unwrapped.train()
        self._set_rates(step)
        is_whole = self._unwrapped.reads_ranks
        batch = draw_batch(self._rows, self._recipe, step=step, is_whole=is_whole, symmetries=self._symmetries)
        parts = []
        for number in range(self._accumulate):
            start = (number * self._fabric.world_size + self._fabric.global_rank) * self._share
            torch.manual_seed((self._recipe.seed + 1) * _DROPOUT_STRIDE + step * len(batch.rows) + start)
            with self._fabric.no_backward_sync(self._module, enabled=number + 1 < self._accumulate):  # type: ignore[arg-type]
                part = self._part(batch, slice(start, start + self._share), step)
                self._refuse_nonfinite(part.loss, "loss", step)
                self._fabric.backward(part.loss / self._accumulate)
            parts.append(part)
        norm = self._clip(step)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self._unwrapped.update_ema(min(self._recipe.optimizer.ema_decay, (1 + step) / (10 + step)))
        return {**_collected(parts), "gradient_norm": norm}

    @torch.no_grad()
    def reset_moments(self, group_name: str) -> None:
        """Zeroes the moments of a parameter group: they are of weights that it no longer has."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"] if group["name"] == group_name else ():
                    for moment in optimizer.state.get(parameter, {}).values():
                        moment.zero_()

    def metrics(self, taken: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over the global batch of what `take` gave. A collective. NELBOs are of the rows of their kind alone."""
        metrics = {"loss": float(self._sum(taken["loss"])) / self._fabric.world_size}
        for name in REPORTED:
            if name not in taken:
                continue
            total, count = self._sum(torch.stack([taken[name], taken[f"num_{name}"]])).tolist()
            if count:
                metrics[name] = total / count
        return {**metrics, "gradient_norm": float(taken["gradient_norm"])}

    @property
    def _device(self) -> torch.device:
        return self._fabric.device

    def _part(self, batch: Batch, own: slice, step: int) -> Part:
        """Of the `own` rows of the global batch."""
        rows = batch.rows if batch.is_whole else replace(batch.rows, end_id=None)  # a prefix pays for every end
        trials = trials_over(rows, self._recipe, step=step, marginals=self._unwrapped.get_buffer("marginals"))
        mine = batch.cut(own, self._device)
        law = self._unwrapped.log_w()[: mine.rows.x.shape[1]]
        prefixes, trials = mine.draws.under(law), None if trials is None else trials.to(self._device)
        whole_or_not = self._whole_loss if mine.is_whole else self._prefix_loss
        losses, loss = whole_or_not(mine, prefixes, law, trials)
        if losses.critic is not None:
            loss = _with_critic(loss, losses.critic)
        if losses.earlier:
            loss = _with_depths(loss, losses.earlier, prefixes)
        return Part(loss.total, _sums(loss))

    def _prefix_loss(
        self, mine: Batch, prefixes: Prefixes, law: Tensor, trials: Trials | None
    ) -> tuple[StepLosses, Loss]:
        """One prefix of each row's order."""
        losses: StepLosses = self._module(mine.rows.x, prefixes.hidden, mine.rows.lengths, trials=trials)
        control, spread = self._unwrapped.control(mine.rows.x), self._recipe.order.even_share(is_whole=False)
        return losses, order_form(losses.token, prefixes, log_w=law, control=control, spread=spread)

    def _whole_loss(self, mine: Batch, prefixes: Prefixes, _: Tensor, trials: Trials | None) -> tuple[StepLosses, Loss]:
        """All steps of each row's order, and questions besides."""
        x, lengths, end_id = mine.rows.x, mine.rows.lengths, mine.rows.end_id
        spread = self._recipe.order.even_share(is_whole=True)
        turns = turns_of(prefixes.ranks, x, end_id=end_id)
        assert mine.chance is not None
        questions = questions_about(turns, lengths, chance=mine.chance) if spread or trials is not None else None
        seen = None
        if trials is not None and questions is not None:
            own = _some_turns(turns)
            positions, asked_at = (torch.cat(of, 1) for of in zip(own, questions[:2], strict=True))
            seen = Turns(positions, turns[:, None] >= asked_at[..., None])
        losses: StepLosses = self._module(
            x, turns > 0, lengths, ranks=turns, questions=questions, turns=seen, trials=trials, end_id=end_id
        )
        paid = (turns > 0) & (turns <= x.shape[1])
        return losses, whole_orders(
            losses.token, prefixes, paid=paid, asked=losses.asked, questions=questions, spread=spread
        )

    def _clip(self, step: int) -> Tensor:
        """Clips network, order and critic apart: none may shrink another's gradient. Gives the network's norm."""
        norms = {}
        for owner in ("", "order's ", "critic's "):
            groups = [g["params"] for g in self._groups() if _OWNERS.get(g["name"], "") == owner]
            parameters = [p for group in groups for p in group]
            if parameters:
                norms[owner] = full_tensor(torch.nn.utils.clip_grad_norm_(parameters, self._recipe.optimizer.clip))
                self._refuse_nonfinite(norms[owner], f"{owner}gradient", step)
        return next(iter(norms.values()))

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def _refuse_nonfinite(self, value: Tensor, what: str, step: int) -> None:
        """All processes agree, and stop before the update: the weights stay as they were."""
        if float(self._sum((~torch.isfinite(value.detach())).float())):
            raise UnveilError(f"the {what} is not finite at step {step}; the update was not made")

    def _sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        return cast(Tensor, self._fabric.all_reduce(value, reduce_op="sum"))

    def _set_rates(self, step: int) -> None:
        """Warm-up and cosine for the network; the order's rate starts where its rest ends."""
        config, order = self._recipe.optimizer, self._recipe.order
        warm = min((step + 1) / max(config.warmup_steps, 1), 1.0)
        progress = step / config.num_steps
        cosine = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self._groups():
            is_resting = group["name"] == "order" and progress < order.rests_until
            group["lr"] = 0.0 if is_resting else group["peak"] * warm * cosine


def _some_turns(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Positions [B, T] evenly spaced along each row's own order, and their turns; short rows repeat some."""
    L = turns.shape[1]
    is_asked = (turns > 0) & (turns <= L)
    by_turn = turns.masked_fill(~is_asked, L + 1).argsort(dim=-1, stable=True)
    share = (torch.arange(_TURNS, device=turns.device) + 0.5) / _TURNS
    positions = by_turn.gather(1, (is_asked.sum(-1, keepdim=True) * share).long())
    return positions, turns.gather(1, positions).clamp(1, L)


def _with_critic(loss: Loss, learned: CriticLoss) -> Loss:
    """The critic's error and what the law costs by it move their own weights; `total` reads as before."""
    error = learned.error
    extra = error.mean() + learned.simulated
    parts = {"critic_error": error.detach().mean(), "num_critic_error": torch.tensor(len(error), device=error.device)}
    return replace(loss, total=loss.total + extra - extra.detach(), parts={**loss.parts, **parts})


def _with_depths(loss: Loss, earlier: Sequence[Tensor], prefixes: Prefixes) -> Loss:
    """Every loop's tokens are trained alike; `total` reads as before, the last loop's nats."""
    extra = torch.stack([even_loss(losses, prefixes).mean() for losses in earlier]).sum()
    return replace(loss, total=loss.total + extra - extra.detach())


def _sums(loss: Loss) -> dict[str, Tensor]:
    """Each reported bound's sum over rows and their number."""
    sums: dict[str, Tensor] = {}
    for name in [name for name in REPORTED if name in loss.parts]:
        count = loss.parts[f"num_{name}"].double()
        sums |= {name: loss.parts[name].double() * count, f"num_{name}": count}
    return sums


def _collected(parts: Sequence[Part]) -> dict[str, Tensor]:
    """The mean loss, and the sums over all parts."""
    sums = {name: torch.stack([part.sums[name] for part in parts]).sum() for name in parts[0].sums}
    return {"loss": torch.stack([part.loss.detach().double() for part in parts]).mean(), **sums}
