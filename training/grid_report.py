"""Figures and order of a model of sudoku grids: how many puzzles it solves, and in which order. Knows no file.

A puzzle has one solution, so a model solves it along an order if its likeliest digit is right at every step: a walk
along the true digits tells. Orders without context mean little for a grid and are left out.
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from model.canvas import Canvas, SamplingParams
from model.denoiser import device_of
from model.network import Network
from model.sampler import decode
from model.tokenizers.base import Tokenizer
from model.tokenizers.grid import SIDE
from training.evaluate import Advance, Policy, Walk, law_walk, policy_walk
from training.picture import ACCENT, new_figure, svg
from training.rows import Estimate, Rows

GRID_SEED = 2_511
GRID_POLICIES: tuple[Policy, ...] = ("confidence", "margin")
LEFT_OUT = "a grid's orders go by what is known, so orders that are one for all puzzles are not compared"


def grid_metrics(network: Network, rows: Rows, *, advance: Advance | None = None) -> dict[str, Any]:
    """The part of `training.report.evaluate_model` that is for grids, of these rows: JSON."""
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


def example_order(network: Network, tokenizer: Tokenizer) -> list[tuple[int, str]]:
    """The cells of the example puzzle and their digits in the order in which the model reveals them, without chance."""
    template = tokenizer.encode(tokenizer.example_prompt())
    params = SamplingParams(order_temperature=0.0, temperature=0.0)
    canvas = Canvas.start(template.tokens, template.hidden, seed=0, params=params)
    ((_, reveals),) = decode(network, [canvas], device=device_of(network))
    return [(reveal.position, tokenizer.token(reveal.position, reveal.token_id)) for reveal in reveals]


def in_words(order: list[tuple[int, str]], prompt: str) -> str:
    """The grid with the step at which each cell of the example is revealed; a clue shows its digit in brackets."""
    steps = {cell: step for step, (cell, _) in enumerate(order, 1)}
    cells = [f"{steps[i]:>3} " if i in steps else f" ({clue})" for i, clue in enumerate(prompt)]
    lines = ["".join(cells[i : i + SIDE]) for i in range(0, len(cells), SIDE)]
    return "\n".join(
        [
            "The contextual order goes by what is known: each puzzle has its own. Of the example puzzle, the step that",
            "reveals each cell, likeliest order and digits (clues in brackets):",
            *lines,
        ]
    )


def as_json(order: list[tuple[int, str]], prompt: str) -> dict[str, Any]:
    """The same as a value."""
    return {
        "kind": "contextual",
        "prompt": prompt,
        "order": [{"position": cell, "token": digit} for cell, digit in order],
    }


def picture(order: list[tuple[int, str]], prompt: str, *, title: str) -> bytes:
    """The grid as SVG: digits, the small number is the step, the shade how late it comes; clues are grey."""
    figure = new_figure(6.0, 6.3)
    axes = figure.add_subplot()
    steps = {cell: (step, digit) for step, (cell, digit) in enumerate(order, 1)}
    for cell, clue in enumerate(prompt):
        row, column = divmod(cell, SIDE)
        step, digit = steps.get(cell, (0, clue))
        if step:
            shade = 0.06 + 0.5 * step / len(order)
            axes.fill_between([column, column + 1], row, row + 1, color=ACCENT, alpha=shade, linewidth=0)
            axes.text(column + 0.94, row + 0.24, str(step), ha="right", fontsize=7, color="#333333")
        axes.text(column + 0.45, row + 0.68, digit, ha="center", fontsize=15, color="black" if step else "#8a8a8a")
    for line in range(SIDE + 1):
        width = 1.8 if line % 3 == 0 else 0.5
        axes.plot([line, line], [0, SIDE], color="black", linewidth=width)
        axes.plot([0, SIDE], [line, line], color="black", linewidth=width)
    axes.set_xlim(0, SIDE)
    axes.set_ylim(SIDE, 0)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(title, loc="left")
    return svg(figure)


def _estimate(values: Tensor) -> dict[str, float]:
    return asdict(Estimate.of(values))
