"""Teacher forcing: what is it worth to train every step of a row's order in one forward, at equal work?

    python -m benchmarks teacher_forcing [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--rows N]
                                         [--smiles FILE] [--set key=value]...

Nets of one size learn MOSES molecules, from left to right and in uniform orders, in two ways: `next step`, a network
whose positions all read each other, each row showing one prefix of its order (`order_form`, with the usual `spread`
of a half, by which every hidden position is trained, and the next one most); and `whole order`, one of late queries, a
step of which trains all of a row's order, shows as many rows and costs about two, so it takes half as many. All are
scored as they are served: nats a test row, exact from left to right, a bound under uniform orders. CPU seconds are of
the whole training on one thread (of the rest of it where a killed one went on).

Intervals are Student's over seeds, 95 %. `--smiles` takes a file of one's own. Results are kept in DIR, and found
again: remove DIR after a change to the method.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from unveil import training
from unveil.benchmarks.common.arms import with_order
from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.model.network.base import Network
from unveil.training.config import Recipe, load_recipe
from unveil.training.data.load import load_dataset
from unveil.training.data.rows import Rows, split_rows
from unveil.training.evaluation.likelihood import log_likelihood, nelbo
from unveil.training.trainer import train
from unveil.training_commands import cache_folder

RECIPE = Path(training.__file__ or "").parent / "recipes" / "moses-start.toml"
WAYS = ("next step", "whole order")
ORDERS = ("left to right", "uniform")
STEPS = 400  # of whole orders; twice as many of the next step alone
REDUCED = [
    "model={width = 96, layers = 3, heads = 4, mlp_width = 256, dropout = 0.0}",
    "optimizer={batch_size = 128, learning_rate = 3e-3}",
    "run={threads = 1}",
    "advanced.optimizer={warmup_steps = 50, ema_decay = 0.99}",
    "advanced.run={validate_every = 100000, validate_rows = 2, checkpoint_every = 100000}",
]
QUICK = [
    "model={width = 16, layers = 1, heads = 2, mlp_width = 32}",
    "optimizer={batch_size = 16}",
    "run={threads = 1, precision = '32-true'}",
    "advanced={optimizer = {warmup_steps = 2}, run = {validate_rows = 2}}",
]
SEED = 8_731


def main() -> None:
    parser = arguments(__doc__, work="runs/teacher-forcing", seeds=3)
    parser.add_argument("--rows", type=int, help="test molecules, evenly spaced; 512 where left out")
    parser.add_argument("--smiles", type=Path, help="a file of SMILES, one a line, instead of MOSES")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="a key of the recipe")
    given = parser.parse_args()
    overrides = [*(QUICK if given.quick else REDUCED), *given.overrides]
    if given.smiles is not None:
        overrides.append(f"data={{kind = 'smiles', path = {json.dumps(str(given.smiles))}}}")
    task = {
        "overrides": overrides,
        "steps": 4 if given.quick else STEPS,
        "rows": given.rows or (8 if given.quick else 512),
        "runs": str(given.work / "runs"),
    }
    tasks = [
        {**task, "problem": order.replace(" ", "_"), "arm": way, "order": order, "way": way, "seed": seed}
        for seed in range(given.seeds)
        for order in ORDERS
        for way in WAYS
    ]
    report = summary(tasks, run_all(measure, tasks, folder=given.work, jobs=given.jobs))
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def measure(task: Fields) -> Fields:
    """One arm of one seed."""
    recipe = arm_recipe(task)
    dataset = load_dataset(recipe.data, cache=cache_folder())
    work = Path(task["runs"]) / f"{task['way'].replace(' ', '-')}-{recipe.seed}-{recipe.fingerprint()[:8]}"
    before = time.process_time()
    trained = train(recipe, dataset, work=work)
    seconds = time.process_time() - before
    assert trained is not None, "run in one process"
    rows = split_rows(dataset, "test", limit=task["rows"])
    return {
        "seed": task["seed"],
        "steps": recipe.optimizer.num_steps,
        "cpu_seconds": seconds,
        "nats": float(scored(trained.denoiser, rows, task["order"]).mean()),
        "parameters": trained.denoiser.num_parameters,
        "rows": len(rows),
    }


def arm_recipe(task: Fields) -> Recipe:
    """The recipe of one arm. Every row follows its order from the first step on, none has a prompt."""
    is_whole = task["way"] == "whole order"
    own = [
        f"seed={task['seed']}",
        "prompts={share = 0.0}",
        f"advanced.model.query_layers={int(is_whole)}",
        f"optimizer.steps={task['steps'] * (1 if is_whole else 2)}",
    ]
    recipe = load_recipe(RECIPE, overrides=[*task["overrides"], *own])
    schedule = {"warmup": 0.0, "anneal": 0.0, "exploration": 0.0}
    ways: Fields = {
        "uniform": {"method": "uniform"},
        "left to right": {"method": "fixed", "positions": "left_to_right", **schedule},
    }
    return with_order(recipe, ways[task["order"]])


@torch.inference_mode()
def scored(net: Network, rows: Rows, order: str) -> Tensor:
    """Nats of each row as it is served, [N]."""
    L = rows.x.shape[1]
    if order == "uniform":
        return nelbo(net, rows, torch.zeros(L), seed=SEED)
    return -log_likelihood(net, rows, list(range(L)))


def summary(tasks: Sequence[Fields], results: Sequence[Fields]) -> Fields:
    """Means over seeds of every way, and of the whole order minus the others."""

    def over_seeds(order: str, way: str, column: str) -> list[float]:
        pairs = zip(tasks, results, strict=True)
        return [r[column] for t, r in pairs if (t["order"], t["way"]) == (order, way)]

    columns = ("nats", "cpu_seconds")
    found = {
        order: {way: {column: interval(over_seeds(order, way, column)) for column in columns} for way in WAYS}
        for order in ORDERS
    }
    less = {
        order: {
            way: interval(
                [a - b for a, b in zip(*(over_seeds(order, w, "nats") for w in (WAYS[-1], way)), strict=True)]
            )
            for way in WAYS[:-1]
        }
        for order in ORDERS
    }
    return {"seeds": list(results), "ways": found, "whole_order_minus": less}


def as_text(report: Fields) -> str:
    """The same for a reader."""
    sizes = sorted({run["parameters"] for run in report["seeds"]})
    rows = report["seeds"][0]["rows"]
    lines = [f"{' and '.join(f'{size:,}' for size in sizes)} parameters, {rows} test molecules, nats a molecule"]
    for order, ways in report["ways"].items():
        lines.append(order)
        for way, found in ways.items():
            line = f"  {way:<20}{with_interval(found['nats'], '.3f'):>30}  {found['cpu_seconds']['mean']:.0f} CPU s"
            lines.append(line)
        for way, found in report["whole_order_minus"][order].items():
            lines.append(f"  whole order minus {way}: {with_interval(found, '.3f')}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
