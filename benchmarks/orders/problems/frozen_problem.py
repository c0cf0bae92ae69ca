"""A real denoiser, trained under uniform orders and then left alone, with its loss at every subset of every row known.

What an estimator of the order's gradient needs of a denoiser is looked up, so draws are cheap, and what it estimates
is known exactly.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from unveil.benchmarks.common.runs import Fields
from unveil.benchmarks.orders.problems.enumeration import token_table
from unveil.benchmarks.orders.problems.latent import LatentProblem
from unveil.benchmarks.orders.problems.short_rows import ADULT_COLUMNS, cut
from unveil.commands.training import cache_folder
from unveil.model.oracle.exact import best_order, exact_nelbo
from unveil.training.config import Recipe
from unveil.training.data.config import AdultData
from unveil.training.data.dataset import Dataset
from unveil.training.data.load import load_dataset
from unveil.training.data.rows import as_rows
from unveil.training.step.batches import marginal_logprobs
from unveil.training.trainer import train

NETS: dict[str, Fields] = {
    "latents": {"width": 32, "layers": 2, "heads": 2, "mlp_width": 64, "dropout": 0.0, "query_layers": 0},
    "adult": {"width": 8, "layers": 1, "heads": 1, "mlp_width": 8, "dropout": 0.0, "query_layers": 0},
}
BUDGETS: dict[str, Fields] = {
    "latents": {"steps": 800, "batch_size": 128, "warmup_steps": 50, "matrix_rate": 0.0},
    "adult": {"steps": 800, "batch_size": 256, "warmup_steps": 50, "matrix_rate": 0.0, "ema_decay": 0.99},
}
ROWS = 1000  # of a table; a made-up problem has fewer, all of them equally likely


class FewLatents(LatentProblem):
    """Four latents and five observations: nine positions, 81 rows, every subset of them enumerable."""

    @property
    def num_latents(self) -> int:
        return 4

    @property
    def num_observations(self) -> int:
        return 5


@dataclass(frozen=True)
class Frozen:
    """`ce` [N, 2**L, L]: the denoiser's loss at every position given every subset, of N equally likely rows, in nats.

    `control` [N, L] is what each value costs under the training rows' marginals.
    """

    ce: Tensor
    control: Tensor

    @property
    def length(self) -> int:
        return self.ce.shape[-1]

    @cached_property
    def mean(self) -> Tensor:
        """[2**L, L]: all that the NELBO of an order law without context depends on."""
        return self.ce.mean(0)

    @cached_property
    def uniform(self) -> float:
        """The NELBO of uniform orders."""
        return float(exact_nelbo(torch.zeros(self.length), self.mean))

    @cached_property
    def best(self) -> tuple[float, list[int]]:
        """V* on these very rows, and its order."""
        value, sigma = best_order(self.mean)
        return float(value), sigma.tolist()

    def share_closed(self, nelbo: float) -> float:
        """How far from uniform orders (0) to the best order (1)."""
        return (self.uniform - nelbo) / (self.uniform - self.best[0])

    def losses(self, rows: Tensor, hidden: Tensor) -> Tensor:
        """What forwards of the denoiser would give: row numbers [B] and hidden sets [B, L] -> nats [B, L]."""
        subsets = ((~hidden).long() << torch.arange(self.length)).sum(-1)
        return self.ce[rows, subsets]


def frozen(name: str, *, seed: int, work: Path, quick: bool = False) -> Frozen:
    """The problem of this name, another one for each seed; from `work` if it is there. Raises UnveilError."""
    budget = {**BUDGETS[name], "steps": 40, "warmup_steps": 5} if quick else BUDGETS[name]
    key = json.dumps([settings(), budget, quick])
    path = work / f"{name}-{seed}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.safetensors"
    if not path.exists():
        dataset, recipe = _DATASETS[name](seed), _recipe(name, seed, budget)
        tensors = _enumerated(recipe, dataset, work=path.with_suffix(".run"), limit=100 if quick else ROWS)
        staging = path.with_suffix(".writing")
        safetensors.torch.save_file(tensors, staging)
        staging.rename(path)
    return Frozen(**safetensors.torch.load_file(path))


def settings() -> Fields:
    """What the problems depend on besides their seeds."""
    return {"nets": NETS, "budgets": BUDGETS, "adult_columns": ADULT_COLUMNS, "rows": ROWS}


def _latents(seed: int) -> Dataset:
    return FewLatents(seed=seed).dataset(train=50_000, validation=512, test=512)


def _adult(seed: int) -> Dataset:
    return cut(load_dataset(AdultData(max_bins=16, seed=seed), cache=cache_folder()), ADULT_COLUMNS)


_DATASETS = {"latents": _latents, "adult": _adult}


def _recipe(name: str, seed: int, budget: Fields) -> Recipe:
    run = dict.fromkeys(("log_every", "validate_every", "checkpoint_every"), budget["steps"])
    return Recipe.of(
        {
            "name": name,
            "seed": seed,
            "data": {"kind": "adult", "max_bins": 16, "seed": seed},  # of made-up rows too: the recipe must name one
            "model": NETS[name],
            "order": {"method": "uniform"},
            "prompts": {"share": 0.0},
            "optimizer": budget,
            "run": {"precision": "32-true", "accelerator": "cpu", "threads": 1, "validate_rows": 256} | run,
        }
    )


def _enumerated(recipe: Recipe, dataset: Dataset, *, work: Path, limit: int) -> dict[str, Tensor]:
    """Trains, and asks about everything; of made-up data every possible row, of a table its validation rows."""
    trained = train(recipe, dataset, work=work)
    assert trained is not None, "run in one process"
    rows = dataset.validation if recipe.name == "adult" else np.unique(dataset.train, axis=0)
    x = as_rows(rows, limit=limit).x
    sizes = trained.denoiser.architecture.vocabulary_sizes
    marginals = marginal_logprobs(as_rows(dataset.train), sizes)
    return {"ce": token_table(trained.denoiser, x), "control": -marginals.gather(1, x.T).T.contiguous()}
