"""What makes learning an order come out right? The known-order problem with each part of the method taken away.

    python -m benchmarks ablation [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--plot FILE.png]

The latent/observation problem of `benchmarks/orders/known_order.py` at scale 1, its net and its budget of forwards, on
problems of seeds from 100 on: nothing was chosen on the seeds that the known-order benchmark reports. The arms are the
`shipped` settings and changes to them. In nats a row: NELBO on held-out draws under the arm's own law,
along its likeliest order, Kendall's tau over (observation, own parent) pairs; and the validation NELBO along the way.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from unveil.benchmarks.common.runs import Fields, arguments, run_all
from unveil.benchmarks.orders.known_order import make_recipe, score, settings
from unveil.benchmarks.orders.problems.latent import LatentProblem
from unveil.training.evaluation.likelihood import as_rows
from unveil.training.trainer import train

AT_ONCE: Fields = {"warmup": 0.0, "anneal": 0.0, "exploration": 0.0}
ARMS: dict[str, Fields] = {
    "shipped": {},
    "without spread": {"spread": 0.0},
    "no warm-up": {"warmup": 0.0},
    "no uniform orders at all": AT_ONCE,
}
FIRST_SEED = 100


def main() -> None:
    parser = arguments(__doc__, work="runs/ablation", seeds=2)
    parser.add_argument("--plot", type=Path, help="where to draw the curves, as a PNG")
    given = parser.parse_args()
    common = {**settings(1, quick=given.quick), "problem": "latent1", "runs": f"{given.work}/runs"}
    tasks = [
        {**common, "arm": arm, "seed": FIRST_SEED + n, "order": ARMS[arm]} for n in range(given.seeds) for arm in ARMS
    ]
    results = run_all(measure, tasks, folder=given.work, jobs=given.jobs)
    report = {"arms": results, "optimizer": common["optimizer"]}
    if given.plot is not None:
        draw(results, given.plot)
    print(json.dumps(report, indent=2) if given.json else as_text(results))


def measure(task: Fields) -> Fields:
    """Trains one arm of one seed."""
    problem = LatentProblem(seed=task["seed"], scale=1)
    dataset = problem.dataset(train=task["rows"], validation=task["validation_rows"], test=task["test_rows"])
    recipe = make_recipe(
        f"arm{list(ARMS).index(task['arm'])}-{task['seed']}", task, order={"method": "global", **task["order"]}
    )
    work = Path(task["runs"]) / recipe.name
    trained = train(recipe, dataset, work=work)
    assert trained is not None, "run in one process"
    lines = [json.loads(line) for line in (work / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "arm": task["arm"],
        "seed": task["seed"],
        "order": task["order"],
        **score(trained.denoiser, problem, as_rows(dataset.test)),
        "entropy": problem.entropy,
        "curve": [[line["step"], line["nelbo"]] for line in lines if line["kind"] == "validation"],
    }


def draw(results: Sequence[Fields], path: Path) -> None:
    """Validation NELBO against steps, an arm a colour, a seed a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, arm in enumerate(ARMS):
        for index, result in enumerate(r for r in results if r["arm"] == arm):
            steps, nats = zip(*result["curve"], strict=True)
            axes.plot(steps, nats, color=f"C{number}", label=arm if index == 0 else None, marker=".")
    axes.axhline(results[0]["entropy"], color="black", linestyle=":", label="truth")
    axes.set(xlabel="steps", ylabel="validation NELBO, nats a row", yscale="log")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter("{x:.0f}")
    axes.legend()
    figure.savefig(path, dpi=120)


def as_text(results: Sequence[Fields]) -> str:
    """A table for `docs/orders.md`."""
    lines = ["| arm | seed | NELBO | along its likeliest order | tau | mean log w, latents / observations |"]
    lines.append("|---|---|---|---|---|---|")
    for arm in ARMS:
        for r in (r for r in results if r["arm"] == arm):
            weights = f"{r['mean_log_w']['latents']:+.1f} / {r['mean_log_w']['observations']:+.1f}"
            metrics = f"{r['nelbo']['mean']:.3f} | {r['greedy']['mean']:.3f} | {r['kendall_tau']:.3f}"
            lines.append(f"| {arm} | {r['seed']} | {metrics} | {weights} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
