"""Figures and order of a model of sudoku grids: how many puzzles it solves, and in which order.

A puzzle has one solution, so a model solves it along an order if its likeliest digit is right at every step: a walk
along the true digits tells. Orders without context mean little for a grid and are left out.
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from unveil.model.network.base import Network
from unveil.training.data.rows import Rows
from unveil.training.evaluation.estimate import Estimate
from unveil.training.evaluation.likelihood import Advance, Policy, Walk, law_walk, policy_walk

GRID_SEED = 2_511
GRID_POLICIES: tuple[Policy, ...] = ("confidence", "margin")
LEFT_OUT = "a grid's orders go by what is known, so orders that are one for all puzzles are not compared"


def grid_metrics(network: Network, rows: Rows, *, advance: Advance | None = None) -> dict[str, Any]:
    """The part of `training.evaluation.report.evaluate_model` that is for grids, of these rows: JSON."""
    zero = torch.zeros(rows.x.shape[1], device=rows.x.device)
    drawn = {"uniform": law_walk(network, rows, zero, seed=GRID_SEED, advance=advance)}
    policies: dict[str, Walk] = {name: policy_walk(network, rows, name, advance=advance) for name in GRID_POLICIES}
    if network.order.kind == "contextual":
        drawn["learned"] = policy_walk(network, rows, "learned", seed=GRID_SEED, advance=advance)
        policies = {"learned": policy_walk(network, rows, "learned", advance=advance), **policies}
    solved = {**policies, "uniform": drawn["uniform"]}
    return {
        "nelbo": {name: _estimate(walk.nats) for name, walk in drawn.items()},
        "log_likelihood": {name: _estimate(-walk.nats) for name, walk in policies.items()},
        "solved": {name: _estimate(walk.is_solved.double()) for name, walk in solved.items()},
        "clues": float(rows.given.sum(-1).double().mean()),
        "left_out": {"global_orders": LEFT_OUT},
    }


def num_grid_walks(network_kind: str) -> int:
    """How many walks over all rows `grid_figures` takes."""
    return 1 + len(GRID_POLICIES) + 2 * (network_kind == "contextual")


def _estimate(values: Tensor) -> dict[str, float]:
    return asdict(Estimate.of(values))
