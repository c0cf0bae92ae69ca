"""What does the network's `pair_bias` earn where places have meanings of their own? With and without it, one budget.

    python -m benchmarks pair_bias [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--steps N]

The known-order problem at 60 positions (`benchmarks/orders/known_order.py`, scale 3: 24 latents, 36 observations in
shuffled places), its `best` arm, which is given an order with the latents first, so that nothing is said of learning
one. In nats a row: the exact cost of held-out draws along that order; the truth is the problem's entropy. Same seeds,
batches and number of forwards. Negative differences mean that `pair_bias` helps; intervals are Student's over seeds,
each of which is another problem.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.orders.known_order import MODEL, make_recipe, score, settings
from unveil.benchmarks.orders.problems.latent import LatentProblem
from unveil.training.evaluation.likelihood import as_rows
from unveil.training.trainer import train

SCALE, STEPS, TEST_ROWS = 3, 700, 400
SIDES = {"with pair_bias": True, "without": False}
GREEDY = "greedy"


def main() -> None:
    parser = arguments(__doc__, work="runs/pair_bias", seeds=2)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    usual = settings(SCALE, quick=given.quick)
    optimizer = usual["optimizer"] if given.quick else {**usual["optimizer"], "steps": given.steps}
    common = {
        **usual,
        "problem": f"pairs{SCALE}",
        "optimizer": optimizer,
        "rows": optimizer["steps"] * optimizer["batch_size"],
        "test_rows": usual["test_rows"] if given.quick else TEST_ROWS,
        "runs": f"{given.work}/runs",
    }
    tasks = [
        {**common, "arm": side, "seed": seed, "model": {**MODEL, "pair_bias": has_it}}
        for seed in range(given.seeds)
        for side, has_it in SIDES.items()
    ]
    full = report(run_all(measure, tasks, folder=given.work, jobs=given.jobs))
    print(json.dumps(full, indent=2) if given.json else as_text(full))


def measure(task: Fields) -> Fields:
    """Trains one side of one seed and scores it on held-out draws."""
    problem = LatentProblem(seed=task["seed"], scale=SCALE)
    dataset = problem.dataset(train=task["rows"], validation=task["validation_rows"], test=task["test_rows"])
    name = f"{task['problem']}-{task['arm'].replace(' ', '-')}-{task['seed']}"
    recipe = make_recipe(name, task, order={"method": "fixed", "positions": problem.best_order})
    trained = train(recipe, dataset, work=Path(task["runs"]) / name)
    assert trained is not None, "run in one process"
    found = score(trained.denoiser, problem, as_rows(dataset.test))
    return {
        "side": task["arm"],
        "seed": task["seed"],
        "entropy": problem.entropy,
        "model": task["model"],
        "optimizer": task["optimizer"],
        "parameters": trained.denoiser.num_parameters,
        "test_rows": len(dataset.test),
        GREEDY: found[GREEDY],
    }


def report(results: Sequence[Fields]) -> Fields:
    """Both sides, and their paired differences over seeds."""
    sides = {side: [result for result in results if result["side"] == side] for side in SIDES}
    means = {side: [result[GREEDY]["mean"] for result in found] for side, found in sides.items()}
    return {
        "entropy": results[0]["entropy"],
        "nats": {side: interval(values) for side, values in means.items()},
        "with minus without": interval([a - b for a, b in zip(*means.values(), strict=True)]),
        "arms": list(results),
    }


def as_text(full: Fields) -> str:
    """A table for `docs/results.md`."""
    lines = [
        f"| nats a row (truth {full['entropy']:.2f}) | {' | '.join(SIDES)} | difference [95 %] |",
        "|---" * 4 + "|",
    ]
    cells = [f"{full['nats'][side]['mean']:.3f}" for side in SIDES]
    lines.append(f"| along the order | {' | '.join(cells)} | {with_interval(full['with minus without'], '.3f')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
