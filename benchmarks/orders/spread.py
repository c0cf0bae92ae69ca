"""What does the order's `spread` earn on a real table? The learned arm of Adult with and without it, at equal forwards.

    python -m benchmarks spread [--quick] [--seeds N] [--json] [--work DIR] [--jobs N]

The `global` arm of `benchmarks/domains/tables.py --masked`, where a row trains one prefix of its order: about 86,000
parameters, the same first weights, batches and orders drawn, with a spread of 0.5 (the default there) and of 0. In nats
a row on evenly spaced test rows, with common random numbers: the exact cost along the order that each net deploys, and
its NELBO under uniform orders, which is what it makes of known sets that its order does not visit. Negative differences
mean that spread helps; intervals are Student's over seeds.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.domains.problems.tables import ADULT, SHARE, arm, arm_recipe, budget, load
from unveil.benchmarks.domains.tables import QUICK_CELLS, TEST_CELLS
from unveil.training.config import Recipe
from unveil.training.evaluation.comparison_orders import Law
from unveil.training.evaluation.likelihood import Estimate, as_rows, nelbo
from unveil.training.trainer import train

SPREADS = (0.5, 0.0)
GREEDY, UNIFORM = "greedy order (exact)", "uniform orders (NELBO)"
SEED = 1994  # of the evaluation's orders


def main() -> None:
    given = arguments(__doc__, work="runs/spread", seeds=3).parse_args()
    dataset = load(ADULT)
    cells = QUICK_CELLS if given.quick else TEST_CELLS
    common = {
        "problem": "spread-adult",
        "budget": budget(dataset, quick=given.quick),
        "rows": cells // dataset.train.shape[1],
        "runs": f"{given.work}/runs",
    }
    tasks = [{**common, "seed": seed, "arm": spread} for seed in range(given.seeds) for spread in SPREADS]
    full = report(run_all(measure, tasks, folder=given.work, jobs=given.jobs))
    print(json.dumps(full, indent=2) if given.json else as_text(full))


def measure(task: Fields) -> Fields:
    """Trains one arm of one seed and scores it on test rows."""
    dataset = load(ADULT)
    spec = arm("global", data=ADULT, seed=task["seed"], budget=task["budget"], share=SHARE)
    fields = arm_recipe(spec, dataset).model_dump(mode="json")
    fields["advanced"]["order"]["spread"] = task["arm"]
    recipe = Recipe.model_validate(fields)
    trained = train(recipe, dataset, work=Path(task["runs"]) / f"{task['arm']}-{task['seed']}")
    assert trained is not None, "run in one process"
    net, rows = trained.denoiser, as_rows(dataset.test, limit=task["rows"])
    law = Law(net)
    values = {GREEDY: law.greedy(net, rows), UNIFORM: nelbo(net, rows, torch.zeros_like(law.log_w), seed=SEED)}
    return {
        "spread": task["arm"],
        "seed": task["seed"],
        "rows": len(rows),
        "budget": task["budget"],
        "order": [dataset.names[i] for i in law.order()],
        "nats": {name: asdict(Estimate.of(value)) for name, value in values.items()},
    }


def report(results: Sequence[Fields]) -> Fields:
    """Both sides, and their paired differences over seeds."""
    sides = {spread: [result for result in results if result["spread"] == spread] for spread in SPREADS}

    def means(spread: float, name: str) -> list[float]:
        return [result["nats"][name]["mean"] for result in sides[spread]]

    with_it, without = SPREADS
    return {
        "nats": {
            name: {str(spread): interval(means(spread, name)) for spread in SPREADS} for name in (GREEDY, UNIFORM)
        },
        "spread minus none": {
            name: interval([a - b for a, b in zip(means(with_it, name), means(without, name), strict=True)])
            for name in (GREEDY, UNIFORM)
        },
        "arms": list(results),
        "torch": torch.__version__,
    }


def as_text(full: Fields) -> str:
    """A table for `docs/results.md`."""
    lines = ["| nats a row | spread 0.5 | spread 0 | difference [95 %] |", "|---" * 4 + "|"]
    for name, sides in full["nats"].items():
        cells = [f"{sides[str(spread)]['mean']:.4f}" for spread in SPREADS]
        lines.append(f"| {name} | {' | '.join(cells)} | {with_interval(full['spread minus none'][name])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
