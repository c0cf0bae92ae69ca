"""Late queries, one choice changed at a time: optimiser, rates, batch, averaging, layers, bias; at equal CPU seconds.

    python -m benchmarks choices [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--seconds S] [--rows N]
                                 [--problems NAME,...] [--smiles FILE]

Problems and training are those of `late_queries`; the first arm, `as bundled`, is late queries in the shape and with
the rates of the recipe, without dropout. Nats of validation rows, evenly spaced, along left to right, in uniform
orders, and of stretches behind a prompt; `minus bundled` is paired by seed. Choices are made on these rows, so nothing
here is a result. Results are kept in DIR and found again: remove DIR after a change to the method.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

import torch

from unveil.benchmarks.common.runs import Fields, interval, run_all, with_interval
from unveil.benchmarks.orders.late_queries import (
    QUICK,
    RECIPES,
    given_problems,
    in_turn_losses,
    scored,
    smiles_override,
)
from unveil.benchmarks.orders.rivals.timed import Training, train_for
from unveil.commands.training import cache_folder
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.build import build_network
from unveil.training.config import Recipe, load_recipe
from unveil.training.data.load import load_dataset
from unveil.training.data.rows import split_rows
from unveil.training.run.warm_start import fresh_architecture

KINDS = ("left to right", "uniform", "stretches")
BUNDLED = "as bundled"
TRAINING: dict[str, Fields] = {
    "AdamW alone": {"matrix_rate": 0.0},
    "AdamW alone, rate x 1/2": {"matrix_rate": 0.0, "learning_rate": 0.5},
    "Muon, rate x 1/2": {"matrix_rate": 0.5},
    "Muon, rate x 2": {"matrix_rate": 2.0},
    "AdamW's rate x 2": {"learning_rate": 2.0},
    "half of the batch": {"batch_size": 0.5},
    "twice the batch": {"batch_size": 2.0},
    "averaging of 0.999": {"ema_decay": 0.999},
    "no averaging": {"ema_decay": 0.0},
}
SHAPES: dict[str, Fields] = {
    "one layer asks": {"query_layers": 1},
    "two layers ask": {"query_layers": 2},
    "three layers ask": {"query_layers": 3},
    "GELU": {"activation": "gelu"},
    "no relative bias": {"relative_bias": False},
}
ARMS = (BUNDLED, *TRAINING, *SHAPES)
_FACTORS = ("matrix_rate", "learning_rate", "batch_size")  # the others are values


def main() -> None:
    given, problems = given_problems(__doc__, work="runs/choices", seeds=1, seconds=180.0, rows=256)
    own = {problem: smiles_override(given.smiles) if problem == "moses" else [] for problem in problems}
    common = {"seconds": 0.3 if given.quick else given.seconds, "rows": 8 if given.quick else given.rows}
    tasks = [
        {**common, "problem": problem, "arm": arm, "seed": seed, "overrides": [*own[problem], *(QUICK * given.quick)]}
        for problem in problems
        for seed in range(given.seeds)
        for arm in ARMS
    ]
    report = summary(tasks, run_all(measure, tasks, folder=given.work, jobs=given.jobs))
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def measure(task: Fields) -> Fields:
    """One arm of one seed."""
    torch.manual_seed(task["seed"])
    recipe = load_recipe(RECIPES / f"{task['problem']}.toml", overrides=task["overrides"])
    dataset = load_dataset(recipe.data, cache=cache_folder())
    net = build_network(shape(task["arm"], fresh_architecture(recipe, dataset)), OrderSpec(kind="uniform"))
    settings = settings_of(task["arm"], recipe, seconds=task["seconds"], seed=task["seed"])
    trained, num_steps = train_for(net, split_rows(dataset, "train", is_packed=True), in_turn_losses, settings)
    rows = split_rows(dataset, "validation", limit=task["rows"]).widened()
    nats = {kind: float(scored(trained, rows, kind).mean()) for kind in KINDS}
    return {"steps": num_steps, "parameters": net.num_parameters, "nats": nats}


def settings_of(arm: str, recipe: Recipe, *, seconds: float, seed: int) -> Training:
    """The recipe's, with the one that the arm changes."""
    bundled = Training(
        seconds=seconds,
        batch_size=recipe.optimizer.batch_size,
        uniform=0.15,
        prompted=0.3,
        matrix_rate=recipe.matrix_rate,
        learning_rate=recipe.optimizer.learning_rate,
        seed=seed,
    )
    changes = dict(TRAINING.get(arm, {}))
    for name in _FACTORS:
        if name in changes:
            changes[name] = type(getattr(bundled, name))(changes[name] * getattr(bundled, name))
    return replace(bundled, **changes)


def shape(arm: str, architecture: Architecture) -> Architecture:
    """The recipe's, with what the arm changes; as many layers in all."""
    changes = dict(SHAPES.get(arm, {}))
    if "query_layers" in changes:
        changes["layers"] = architecture.layers + architecture.query_layers - changes["query_layers"]
    return Architecture(**architecture.model_dump() | {"dropout": 0.0} | changes)


def summary(tasks: Sequence[Fields], results: Sequence[Fields]) -> Fields:
    """Means over seeds of every arm, and less those of the first."""
    found: Fields = {}
    for problem in dict.fromkeys(task["problem"] for task in tasks):
        own = {
            arm: [r for t, r in zip(tasks, results, strict=True) if (t["problem"], t["arm"]) == (problem, arm)]
            for arm in ARMS
        }
        found[problem] = {
            arm: {
                "steps": [run["steps"] for run in runs],
                "nats": {kind: interval([run["nats"][kind] for run in runs]) for kind in KINDS},
                "minus_bundled": {
                    kind: interval([a["nats"][kind] - b["nats"][kind] for a, b in zip(runs, own[BUNDLED], strict=True)])
                    for kind in KINDS
                },
            }
            for arm, runs in own.items()
        }
    return {"seconds": tasks[0]["seconds"], "problems": found}


def as_text(report: Fields) -> str:
    """The same for a reader."""
    lines = [f"nats a validation row after {report['seconds']:g} CPU seconds; in brackets minus {BUNDLED}"]
    for problem, arms in report["problems"].items():
        lines.append(f"{problem:<28}{''.join(f'{kind:>26}' for kind in KINDS)}")
        for arm, found in arms.items():
            cells = [
                f"{with_interval(found['nats'][kind], '.3f')} ({found['minus_bundled'][kind]['mean']:+.3f})"
                for kind in KINDS
            ]
            lines.append(f"  {arm:<26}{''.join(f'{cell:>26}' for cell in cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
