"""Does training find a known order? Latents and observations in shuffled positions:
`benchmarks/orders/problems/latent.py`.

    python -m benchmarks known_order [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--scales 1,3]
      [--first-seed N]

For each scale (1: 8 latents, 12 observations; 3: three times as many) and seed, three arms of the same net with late
queries, first weights and number of forwards: `uniform` orders; `learned`, a global order found with the shipped
settings and told nothing; and `best`, which is given an order with the latents first, with the learned arm's share of
uniform rows and spread. Every seed is another problem.

On held-out draws, in nats a row: `gap_closed = (L_uniform - L_learned) / (L_uniform - L_best)`, L the NELBO under the
arm's own law, and Kendall's tau of the learned order over (observation, own parent) pairs. The budget of scale 1 was
chosen on seed 100's validation rows; so was that of scale 3.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all
from unveil.benchmarks.orders.problems.latent import LatentProblem, kendall_tau
from unveil.model.network.base import Network
from unveil.model.order.plackett_luce import deterministic_order, order_entropy
from unveil.training.config import Recipe
from unveil.training.data.dataset import Dataset
from unveil.training.evaluation.likelihood import Estimate, Rows, as_rows, log_likelihood, nelbo
from unveil.training.trainer import Trained, train

ARMS = {"uniform": "uniform", "learned": "global", "best": "fixed"}
MODEL = {"width": 64, "layers": 1, "heads": 4, "mlp_width": 192, "dropout": 0.0, "query_layers": 2}
BUDGETS: dict[int, Fields] = {1: {"steps": 1000, "batch_size": 128}, 3: {"steps": 1500, "batch_size": 128}}
QUICK: Fields = {"steps": 40, "batch_size": 32, "warmup_steps": 5}
TEST_ROWS = {1: 4000, 3: 1000}  # a row takes as many forwards as it has positions, whatever order it is scored in
VALIDATION_ROWS, EVALUATION_SEED = 512, 1


def main() -> None:
    parser = arguments(__doc__, work="runs/known_order", seeds=5)
    parser.add_argument("--scales", default="1,3", help="1, 3 or both")
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    scales = [1] if given.quick else [int(scale) for scale in given.scales.split(",")]
    tasks = [
        {
            "problem": f"latent{scale}",
            "arm": arm,
            "seed": seed,
            "scale": scale,
            **settings(scale, quick=given.quick),
        }
        for scale in scales
        for seed in range(given.first_seed, given.first_seed + given.seeds)
        for arm in ARMS
    ]
    runs = f"{given.work}/runs"
    results = run_all(measure, [{**task, "runs": runs} for task in tasks], folder=given.work, jobs=given.jobs)
    reports = {scale: report([r for r in results if r["scale"] == scale]) for scale in scales}
    first = reports.pop(scales[0])
    full = {**first, "longer": {str(scale): longer for scale, longer in reports.items()}}
    print(json.dumps(full, indent=2) if given.json else as_text(full))


def settings(scale: int, *, quick: bool) -> Fields:
    """What a task depends on besides its seed."""
    if quick:
        return {"model": MODEL, "optimizer": QUICK, "rows": 2000, "test_rows": 64, "validation_rows": 16}
    budget = BUDGETS[scale]
    return {
        "model": MODEL,
        "optimizer": budget,
        "rows": budget["steps"] * budget["batch_size"],
        "test_rows": TEST_ROWS[scale],
        "validation_rows": VALIDATION_ROWS,
    }


def measure(task: Fields) -> Fields:
    """Trains one arm and scores it on held-out draws."""
    problem = LatentProblem(seed=task["seed"], scale=task["scale"])
    dataset = problem.dataset(train=task["rows"], validation=task["validation_rows"], test=task["test_rows"])
    trained = train_arm(task["arm"], problem, dataset, task)
    return {
        **{name: task[name] for name in ("problem", "arm", "seed", "scale")},
        **score(trained.denoiser, problem, as_rows(dataset.test)),
        "entropy": problem.entropy,
        "model": task["model"],
        "optimizer": task["optimizer"],
        "row_forwards": trained.summary["row_forwards"],
    }


def train_arm(arm: str, problem: LatentProblem, dataset: Dataset, task: Fields) -> Trained:
    """An arm of a problem, found in `task["runs"]` or trained into it."""
    kind = ARMS[arm]
    own = {"positions": problem.best_order} if kind == "fixed" else {}
    recipe = make_recipe(f"{task['problem']}-{arm}-{task['seed']}", task, order={"method": kind, **own})
    trained = train(recipe, dataset, work=Path(task["runs"]) / recipe.name)
    assert trained is not None, "run in one process"
    return trained


def score(net: Network, problem: LatentProblem, rows: Rows) -> Fields:
    """A net under its own law on held-out draws, and how near its order is to latents first."""
    log_w = net.order_head.global_log_w().detach()
    order = deterministic_order(log_w).tolist()
    latents, observations = problem.places[: problem.num_latents], problem.places[problem.num_latents :]
    return {
        "nelbo": asdict(Estimate.of(nelbo(net, rows, log_w, seed=EVALUATION_SEED))),
        "greedy": asdict(Estimate.of(-log_likelihood(net, rows, order))),
        "kendall_tau": kendall_tau(order, problem.pairs),
        "order_entropy": float(order_entropy(log_w)),
        "mean_log_w": {"latents": float(log_w[latents].mean()), "observations": float(log_w[observations].mean())},
    }


def make_recipe(name: str, task: Fields, *, order: Fields) -> Recipe:
    """The recipe of an arm: shipped settings but for the net, the budget and the prompts, of which there are none."""
    return Recipe.of(
        {
            "name": name,
            "seed": task["seed"],
            "data": {"kind": "table", "path": "drawn-by-the-benchmark"},
            "model": task["model"],
            "order": order,
            "prompts": {"share": 0.0},
            "optimizer": task["optimizer"],
            "run": {"threads": 1, "validate_rows": task["validation_rows"], "validate_every": 250, "log_every": 50},
        }
    )


def report(results: Sequence[Fields]) -> Fields:
    """The three arms of each seed side by side."""
    seeds = []
    for seed in sorted({result["seed"] for result in results}):
        arms = {result["arm"]: result for result in results if result["seed"] == seed}
        loss = {arm: arms[arm]["nelbo"]["mean"] for arm in ARMS}
        learned = arms["learned"]
        seeds.append(
            {
                "seed": seed,
                "gap_closed": (loss["uniform"] - loss["learned"]) / (loss["uniform"] - loss["best"]),
                "kendall_tau": learned["kendall_tau"],
                "nelbo": {arm: arms[arm]["nelbo"] for arm in ARMS},
                "greedy": learned["greedy"],
                "order_entropy": learned["order_entropy"],
                "mean_log_w": learned["mean_log_w"],
            }
        )
    gaps = [seed["gap_closed"] for seed in seeds]
    return {
        "seeds": seeds,
        "gap_closed_min": min(gaps),
        "gap_closed": interval(gaps),
        "kendall_tau_min": min(seed["kendall_tau"] for seed in seeds),
        "entropy": results[0]["entropy"],
        "model": results[0]["model"],
        "optimizer": results[0]["optimizer"],
        "row_forwards": results[0]["row_forwards"],
    }


def as_text(full: Fields) -> str:
    """The same for a reader."""
    lines = []
    for part in (full, *full["longer"].values()):
        lines.append(f"truth {part['entropy']:.2f} nats, {part['row_forwards']:,} row-forwards an arm")
        for seed in part["seeds"]:
            losses = "  ".join(f"{arm} {value['mean']:.3f}" for arm, value in seed["nelbo"].items())
            found = f"gap closed {seed['gap_closed']:.4f}  tau {seed['kendall_tau']:.3f}"
            lines.append(f"  seed {seed['seed']}: {losses}  {found}")
        lines.append(f"  smallest gap closed {part['gap_closed_min']:.4f}, smallest tau {part['kendall_tau_min']:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
