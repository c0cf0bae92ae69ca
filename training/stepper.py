"""One update of the weights: draw the step's batch, the loss of this process's share of it, clip, step. Knows no file.

What a step does is a function of (recipe, rows, step) and of the weights: every process draws the same global batch and
takes its own rows of it, so their gradients and baselines add up to those of one process.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from model.denoiser import cross_entropy
from model.objective import Loss, order_form
from training.arm import Arm, whole
from training.batches import Batch, draw_batch
from training.config import Recipe
from training.evaluate import Rows

_DROPOUT_STRIDE = 7_919_999
REPORTED = ("nelbo", "uniform_nelbo", "conditional_nelbo")


class TrainingError(RuntimeError):
    """Training that cannot go on; one line."""


class Stepper:
    """Takes steps; holds nothing that a checkpoint would have to keep."""

    def __init__(
        self,
        fabric: Fabric,
        *,
        recipe: Recipe,
        arm: Arm,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        rows: Rows,
    ) -> None:
        self._fabric, self._recipe, self._rows = fabric, recipe, rows
        self._arm, self._module, self._optimizer = arm, module, optimizer
        self._accumulate = recipe.optimizer.accumulate
        self._share, rest = divmod(recipe.optimizer.batch_size, fabric.world_size * self._accumulate)
        if rest:
            raise TrainingError(
                f"optimizer.batch_size: {recipe.optimizer.batch_size} does not divide by {fabric.world_size} processes"
                f" x accumulate {self._accumulate}"
            )

    def take(self, step: int) -> Mapping[str, Tensor]:
        """Makes update number `step`; gives this process's part of what `figures` sums up. Raises TrainingError."""
        self._arm.train()
        self._set_rates(step)
        batch = draw_batch(self._rows, self._recipe, step=step, log_w=self._arm.log_w())
        losses, sums = [], torch.zeros(2, *self._arm.baseline.mean.shape, dtype=torch.float64, device=self._device)
        for part in range(self._accumulate):
            start = (part * self._fabric.world_size + self._fabric.global_rank) * self._share
            mine = batch.cut(slice(start, start + self._share), self._device)
            torch.manual_seed((self._recipe.seed + 1) * _DROPOUT_STRIDE + step * len(batch.rows) + start)
            with self._fabric.no_backward_sync(self._module, enabled=part + 1 < self._accumulate):  # type: ignore[arg-type]
                loss = self._loss(mine)
                self._refuse_nonfinite(loss.total, "loss", step)
                self._fabric.backward(loss.total / self._accumulate)
            losses.append(loss)
            sums += torch.stack(self._arm.baseline.statistics(mine.prefixes, loss.row_signals))
        norm = self._clip(step)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._arm.follow(min(self._recipe.optimizer.ema_decay, (1 + step) / (10 + step)))
        self._arm.baseline.update(*self._sum(sums))
        return {**_collected(losses), "gradient_norm": norm}

    def figures(self, taken: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over the global batch of what `take` gave. A collective. NELBOs are of the rows of their kind alone."""
        figures = {"loss": float(self._sum(taken["loss"])) / self._fabric.world_size}
        for name in REPORTED:
            total, count = self._sum(torch.stack([taken[name], taken[f"num_{name}"]])).tolist()
            if count:
                figures[name] = total / count
        return {**figures, "gradient_norm": float(taken["gradient_norm"])}

    @property
    def _device(self) -> torch.device:
        return self._fabric.device

    def _loss(self, batch: Batch) -> Loss:
        rows, prefixes = batch.rows, batch.prefixes
        prediction, log_w = self._module(rows.x, prefixes.hidden, rows.lengths)
        loss = order_form(
            cross_entropy(prediction.token_logits, rows.x),
            prefixes,
            log_w=log_w,
            baseline=self._arm.baseline.read(prefixes),
            control=self._arm.control(rows.x),
            learn_order_from_prompted=self._recipe.order.learn_from_prompted,
        )
        # DDP wants every parameter in the graph, also while no row teaches the order.
        return replace(loss, total=loss.total + 0.0 * log_w.sum())

    def _clip(self, step: int) -> Tensor:
        """Clips network and order apart: the order's gradient is a noisy score, and must not shrink the network's."""
        norms = []
        for is_order in (False, True):
            groups = [g["params"] for g in self._optimizer.param_groups if (g["name"] == "order") == is_order]
            parameters = [p for group in groups for p in group]
            if parameters:
                norms.append(whole(torch.nn.utils.clip_grad_norm_(parameters, self._recipe.optimizer.clip)))
                self._refuse_nonfinite(norms[-1], "order's gradient" if is_order else "gradient", step)
        return norms[0]

    def _refuse_nonfinite(self, value: Tensor, what: str, step: int) -> None:
        """All processes agree, and stop before the update: the weights stay as they were."""
        if float(self._sum((~torch.isfinite(value.detach())).float())):
            raise TrainingError(f"the {what} is not finite at step {step}; the update was not made")

    def _sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        return cast(Tensor, self._fabric.all_reduce(value, reduce_op="sum"))

    def _set_rates(self, step: int) -> None:
        """Warm-up and cosine for the network; the order's rate starts where its own warm-up ends."""
        config, order = self._recipe.optimizer, self._recipe.order
        warm = min((step + 1) / max(config.warmup_steps, 1), 1.0)
        progress = step / config.num_steps
        cosine = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self._optimizer.param_groups:
            is_resting = group["name"] == "order" and progress < order.warmup
            group["lr"] = 0.0 if is_resting else group["peak"] * warm * cosine


def _collected(losses: Sequence[Loss]) -> dict[str, Tensor]:
    """The mean loss, and for each reported bound its sum over rows and their number."""
    collected = {"loss": torch.stack([loss.total.detach().double() for loss in losses]).mean()}
    for name in REPORTED:
        counts = torch.stack([loss.parts[f"num_{name}"] for loss in losses]).double()
        collected[name] = (torch.stack([loss.parts[name] for loss in losses]).double() * counts).sum()
        collected[f"num_{name}"] = counts.sum()
    return collected
