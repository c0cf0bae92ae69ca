"""The training loop, the same for one process and for many: Lightning Fabric carries it.

A step is a function of (recipe, data, step): see `training.step.batches`. So n steps equal k steps, a kill and a
resume, bit for bit on one CPU thread count, and two processes see the loss that one would see on the same global batch.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from unveil.model.errors import UnveilError
from unveil.model.loss.critic import MAX_LENGTH, Critic
from unveil.model.network.architecture import Architecture, ImportedArchitecture
from unveil.model.network.base import Network
from unveil.model.network.build import build_network
from unveil.model.order.plackett_luce import deterministic_order
from unveil.training.config import Recipe
from unveil.training.data.dataset import Dataset
from unveil.training.data.rows import Rows, split_rows
from unveil.training.order_config import GlobalOrder
from unveil.training.run.best import Best
from unveil.training.run.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from unveil.training.run.devices import end_process_group, make_fabric, others_waiting, pick_precision
from unveil.training.run.monitoring import gradient_noise, law_metrics, validation_metrics
from unveil.training.run.run_log import Journal
from unveil.training.run.stopping import StoppedError, Watch
from unveil.training.run.warm_start import given_anew, load_start, make_denoiser
from unveil.training.step.batches import marginal_logprobs
from unveil.training.step.cost_to_go import CostToGoStepper
from unveil.training.step.decided_orders import (
    LAW,
    OWN_ORDER,
    decide,
    described,
    found_orders,
    order_log_w,
    reading_orders,
    scored_rows,
)
from unveil.training.step.muon import Muon
from unveil.training.step.rollouts import NextCostStepper
from unveil.training.step.stepper import Stepper
from unveil.training.step.training_model import TrainingModule, full_tensor

VALIDATION_SEED = 20_251_119
RESUMES = "its checkpoint is written, and the same command goes on from there"
_STEPPERS: Mapping[str, type[Stepper]] = {"next_cost": NextCostStepper, "cost_to_go": CostToGoStepper}


@dataclass(frozen=True)
class Trained:
    """What training gives: the averaged network on the CPU, how it was come by, and the device that trained it. Only on
    the main process."""

    denoiser: Network
    summary: Mapping[str, Any]
    device: torch.device


def train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    work: Path,
    then: Callable[[Trained], None] | None = None,
    is_quiet: bool = False,
) -> Trained | None:
    """Trains to the recipe's last step, from the newest checkpoint in `work` if there is one.

    None off the main process. `then` is for what takes long and needs the device, as the evaluation: the main process
    calls it with the result while the others wait for it. `is_quiet`: nothing is shown and logged. Raises UnveilError,
    and what `then` does.
    """
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    fabric = make_fabric(recipe.run)
    try:
        trained = _trained(fabric, recipe, dataset, work, is_quiet=is_quiet)
        if then is not None:
            with others_waiting():
                if trained is not None:
                    then(trained)
        return trained
    finally:
        end_process_group()


def _trained(fabric: Fabric, recipe: Recipe, dataset: Dataset, work: Path, *, is_quiet: bool) -> Trained | None:
    run = Run(fabric, recipe, dataset, work)
    run.resume()
    if is_quiet or not fabric.is_global_zero:
        run.steps(None)
        return run.finish()
    title = f"{recipe.name} ({recipe.order.kind})"
    with Journal(work, total_steps=recipe.optimizer.num_steps, start_step=run.step, title=title) as journal:
        if run.step:
            journal.say(f"resuming at step {run.step} of {recipe.optimizer.num_steps}")
        run.steps(journal)
    return run.finish()


class Rehearsal:
    """The steps of a run in this process, of which nothing stays."""

    def __init__(self, recipe: Recipe, dataset: Dataset, *, work: Path) -> None:
        if recipe.run.threads is not None:
            torch.set_num_threads(recipe.run.threads)
        self._run = Run(make_fabric(recipe.run), recipe, dataset, work)

    def take(self, step: int) -> None:
        """One step."""
        self._run.stepper.take(step)


def row_forwards(recipe: Recipe, steps: int) -> int:
    """Rows that the denoiser sees in so many steps."""
    return steps * recipe.optimizer.batch_size


def _critic(recipe: Recipe, architecture: Architecture | ImportedArchitecture) -> Critic | None:
    """None where no critic moves the order. Raises UnveilError for rows that are too long for one."""
    if not recipe.order.has_critic:
        return None
    length = architecture.length
    if length > MAX_LENGTH:
        raise UnveilError(
            f"order.method: global orders are learned for at most {MAX_LENGTH} positions, not {length}; set"
            " another method, or a shorter data.length"
        )
    return Critic(length)


class Run:
    """One run's moving parts; `step` is the number of updates done."""

    def __init__(self, fabric: Fabric, recipe: Recipe, dataset: Dataset, work: Path) -> None:
        if recipe.order.is_walked and recipe.run.strategy == "fsdp":  # processes take different numbers of forwards
            raise UnveilError(
                "advanced.run.strategy: contextual orders are learned in one process or with ddp, not with fsdp"
            )
        self.fabric, self.recipe, self.dataset, self.work = fabric, recipe, dataset, work
        self.step = 0
        self.best = Best(work / "best", {})
        self.rows = split_rows(dataset, "train", is_packed=True)
        torch.manual_seed(recipe.seed)
        self.start = load_start(recipe, dataset)
        denoiser = make_denoiser(recipe, dataset, self.start)
        architecture = denoiser.architecture
        self.unwrapped = TrainingModule(
            denoiser,
            marginals=marginal_logprobs(self.rows, architecture.vocabulary_sizes),
            critic=_critic(recipe, architecture),
            is_frozen=recipe.is_frozen,
            backward_loops=recipe.optimizer.backward_loops,
        )
        if recipe.run.compile:  # block by block: quick to compile, and it leaves names and sharding as they are
            for block in denoiser.all_blocks:
                block.compile()
        self.module = fabric.setup_module(self.unwrapped)
        order_rate, critic_rate = recipe.order.rates
        groups = self.unwrapped.parameter_groups(
            learning_rate=recipe.optimizer.learning_rate,
            matrix_rate=recipe.matrix_rate,
            order_rate=order_rate,
            critic_rate=critic_rate,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self.optimizers = self._optimizers(groups)
        self.stepper = _STEPPERS.get(recipe.order.method, Stepper)(
            fabric,
            recipe=recipe,
            unwrapped=self.unwrapped,
            module=self.module,
            optimizers=list(self.optimizers.values()),
            rows=self.rows,
            symmetries=dataset.symmetries,
        )
        self._last_log = (0, time.monotonic())

    def _optimizers(self, groups: Sequence[dict[str, Any]]) -> dict[str, torch.optim.Optimizer]:
        """AdamW, and Muon for what is its own, by the names that they have in a checkpoint."""
        blocks = [group for group in groups if group["name"] == "blocks"]
        others = [group for group in groups if group["name"] != "blocks"]
        made: dict[str, torch.optim.Optimizer] = {}
        if others:
            made["optimizer"] = torch.optim.AdamW(others, betas=self.recipe.optimizer.betas)
        if blocks:
            dtype = torch.bfloat16 if pick_precision(self.recipe.run) == "bf16-mixed" else torch.float32
            made["muon"] = Muon(blocks, dtype=dtype)
        found = self.fabric.setup_optimizers(*made.values())
        wrapped = found if isinstance(found, tuple) else (found,)
        return {name: cast(torch.optim.Optimizer, optimizer) for name, optimizer in zip(made, wrapped, strict=True)}

    @property
    def identity(self) -> dict[str, str]:
        """What a checkpoint must agree with to be resumed."""
        parts = {"recipe": self.recipe.fingerprint(), "data": self.dataset.fingerprint}
        if self.start is None:
            return parts
        parts["start.artifact"] = self.start.manifest.weights_sha256
        anew = given_anew(self.recipe)  # a fingerprint cannot tell a default that was given from one that was not
        return {**parts, "model": json.dumps(anew, sort_keys=True)} if anew else parts

    def resume(self) -> None:
        checkpoint = find_checkpoint(self.work / "checkpoints")
        if checkpoint is None:
            return
        identity = self.identity
        for part in ("recipe", "data", "start.artifact", "model"):
            if checkpoint.meta.get(part) != identity.get(part):
                raise UnveilError(
                    f"{self.work}: holds checkpoints of another {part}; remove the folder or choose another --out"
                )
        load_checkpoint(checkpoint, fabric=self.fabric, state=self._state())
        self.step = checkpoint.step
        self.best = Best.at(self.best.folder, step=self.step)
        if self.recipe.run.strategy == "fsdp":
            self._gather()

    @torch.no_grad()
    def _gather(self) -> None:
        """Sharded weights that inference mode gathers first, as a search would, cannot be trained after it."""
        self.unwrapped.eval()
        first = self.rows.at(torch.arange(1)).widened().to(self.fabric.device)
        self.module(first.x, ~first.padding, first.lengths)

    def steps(self, journal: Journal | None) -> None:
        """Trains on to the last step. Raises StoppedError at ^C and SIGTERM."""
        total, run = self.recipe.optimizer.num_steps, self.recipe.run
        order = self.recipe.order
        times = order.search_times if isinstance(order, GlobalOrder) else ()
        searches_at = {min(math.ceil(time * total), total - 1) for time in times}
        self._last_log = (self.step, time.monotonic())
        with Watch(self.fabric, seconds=run.checkpoint_seconds, agree_every=run.log_every) as watch:
            self._take_steps(journal, watch, searches_at, settles=bool(times))
        self._take_best(journal, settles=bool(times))

    def _take_steps(self, journal: Journal | None, watch: Watch, searches_at: Set[int], *, settles: bool) -> None:
        """Raises StoppedError at a signal, when a checkpoint is written."""
        total, run = self.recipe.optimizer.num_steps, self.recipe.run
        while self.step < total and not self._is_over:
            if self.step in searches_at:
                self._search(journal)
            taken = self.stepper.take(self.step)
            self.step += 1
            is_last = self.step == total
            if journal is not None:
                journal.advance(self.step)
            if self.step % run.log_every == 0 or is_last:
                shown = self._train_metrics(taken)  # on every process: sharded weights are gathered for it
                if journal is not None:
                    journal.log("train", self.step, shown)
            if settles and is_last:
                self._settle(journal)
            if self.step % self.recipe.validate_every == 0 or is_last:
                self._validate(journal)
            is_due, signum = watch.wishes(self.step)
            is_last = is_last or self._is_over
            if self.step % run.checkpoint_every == 0 or is_last or is_due:
                began = time.monotonic()
                self._save()
                watch.saved(time.monotonic() - began)
            if signum and not is_last:
                raise StoppedError(f"stopped at step {self.step} of {total}; {RESUMES}", signum=signum)

    @property
    def _is_over(self) -> bool:
        patience = self.recipe.optimizer.patience
        return bool(patience) and self.best.num_worse >= (patience or 0)

    def _take_best(self, journal: Journal | None, *, settles: bool) -> None:
        """The averaged weights become those that cost validation rows least, where that is kept."""
        if not self.best.costs or self.best.step == self.step:
            return
        costs, step = self.best.costs, self.best.step
        self.unwrapped.average.load_state_dict(self.best.weights())
        if journal is not None:
            journal.say(
                f"step {step} is taken: {costs[step]:.4f} nats a validation row, {costs[max(costs)]:.4f} at step"
                f" {max(costs)}"
            )
        if settles:
            self._settle(journal)

    def _averaged(self) -> dict[str, Tensor]:
        return {name: full_tensor(value).cpu() for name, value in self.unwrapped.average.state_dict().items()}

    def finish(self) -> Trained | None:
        """The averaged network, whole, on the main process."""
        weights = self._averaged()
        self.fabric.barrier()  # nobody leaves while another still gathers
        if not self.fabric.is_global_zero:
            return None
        denoiser = build_network(self.unwrapped.denoiser.architecture, self.unwrapped.denoiser.order)
        denoiser.load_state_dict(weights)
        summary: dict[str, object] = {
            "steps": self.step,
            **({"best_step": self.best.step} if self.best.costs else {}),
            "row_forwards": row_forwards(self.recipe, self.step),
            "world_size": self.fabric.world_size,
            "torch": torch.__version__,
            "device": self.fabric.device.type,
            "precision": pick_precision(self.recipe.run),
        }
        if self.start is not None:
            before = self.start.manifest
            summary["start"] = {"weights_sha256": before.weights_sha256, "training": before.training}
        return Trained(denoiser.eval(), summary, self.fabric.device)

    def _train_metrics(self, taken: Mapping[str, Tensor]) -> dict[str, float]:
        step, then = self._last_log
        now = time.monotonic()
        self._last_log = (self.step, now)
        metrics = self.stepper.metrics(taken)
        noise = gradient_noise(self.optimizers["optimizer"], group="order")
        return {
            **metrics,
            "learning_rate": self.optimizers["optimizer"].param_groups[0]["lr"],
            "uniform_share": self.recipe.order.uniform_share(self.step / self.recipe.optimizer.num_steps),
            **law_metrics(self.unwrapped.log_w().cpu(), policy_nats=metrics.get("policy_entropy")),
            **({} if noise is None else {"order_gradient_noise": noise}),
            "steps_per_second": (self.step - step) / max(now - then, 1e-9),
        }

    def _validate(self, journal: Journal | None) -> None:
        """Figures of the averaged weights on validation rows."""
        self.unwrapped.eval()
        metrics = validation_metrics(
            self.module,
            self._validation_rows(),
            log_w=self.unwrapped.log_w(average=True),
            is_contextual=self.recipe.order.kind == "contextual",
            seed=VALIDATION_SEED,
        )
        if journal is not None:
            journal.log("validation", self.step, metrics)
        if self.recipe.optimizer.patience:
            is_drawn = self.recipe.order.kind != "global"
            cost = self.fabric.broadcast(metrics["nelbo" if is_drawn else "negative_log_likelihood"])
            self.best = self.best.and_one(self.step, cost, self._averaged, writes=self.fabric.is_global_zero)
            self.fabric.barrier()  # nobody reads the weights before they are there

    def _validation_rows(self) -> Rows:
        limit = self.recipe.run.validate_rows
        return split_rows(self.dataset, "validation", limit=limit).to(self.fabric.device)

    def _search(self, journal: Journal | None) -> None:
        """The law becomes the cheapest order that a search on the critic finds, if that is cheaper than the law."""
        log_w, marginals = self.unwrapped.log_w(average=True), self.unwrapped.get_buffer("marginals")
        critic, seed = self.unwrapped.whole_critic(), self.recipe.seed
        rows = self.rows if self.unwrapped.reads_ranks else replace(self.rows, end_id=None)  # as they are trained
        orders = found_orders(critic, rows, log_w=log_w.cpu(), marginals=marginals, seed=seed, step=self.step)
        self._decide(journal, orders)

    def _settle(self, journal: Journal | None) -> None:
        """At the end the law is decided: on its likeliest order, as it would only pay for being unsure of that, or on a
        reading order that is cheaper, as what gradients tell apart of close orders can be noise."""
        own = deterministic_order(self.unwrapped.log_w(average=True).cpu()).tolist()
        self._decide(journal, {OWN_ORDER: own} | reading_orders(len(own)))

    def _decide(self, journal: Journal | None, orders: Mapping[str, Sequence[int]]) -> None:
        """Between the law and some orders, by forwards of training rows with the averaged weights."""
        self.unwrapped.eval()
        rows = scored_rows(self.rows, seed=self.recipe.seed, step=self.step).to(self.fabric.device)
        log_w = self.unwrapped.log_w(average=True)
        found = decide(self.module, rows, log_w=log_w, orders=orders, seed=VALIDATION_SEED)
        best = self.fabric.broadcast(found.best)  # a tie that rounding breaks must not part the processes
        if best != LAW:
            self.unwrapped.set_log_w(order_log_w(orders[best]))
            self.stepper.reset_moments("order")
        if journal is not None:
            costs = ", ".join(f"{name} {cost:.3f}" for name, cost in found.nats.items())
            taken = "the law stays" if best == LAW else f"the law becomes {best}: {described(orders[best])}"
            journal.say(f"orders, in nats a training row: {costs}; {taken}")

    def _save(self) -> None:
        save_checkpoint(
            self.work / "checkpoints",
            fabric=self.fabric,
            state=self._state(),
            step=self.step,
            meta=self.identity,
            keep=self.recipe.run.keep_checkpoints,
        )

    def _state(self) -> dict[str, Any]:
        return {"module": self.module, **self.optimizers}
