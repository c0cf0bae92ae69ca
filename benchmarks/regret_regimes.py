"""Is there a net and a budget for which orders matter, and matter alike to two such nets? For `benchmarks/regret.py`.

    python -m benchmarks.regret_regimes [--quick] [--seeds N] [--json] [--work DIR] [--jobs N]

An order learned with one net can have a small regret on another only if what is best for the first is nearly best for
the second. So in each regime (width, width of the MLP, weight decay, steps, learning rate) three nets that differ by
their seed alone are trained under uniform orders on asia and eight columns of Adult; every subset is enumerated.
Printed are the headroom on each, `L(uniform) - V*` in nats, and the regret of each net's best order on each of the
other two, whether there is headroom by the rules of `model/regret.py` or not. Rows, nets and problems are those of
`benchmarks.regret`, of data seeds from 100 on, which that benchmark does not report. No order is learned here.
"""

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from statistics import median

import torch

from benchmarks.problems.runs import Fields, arguments, run_all
from benchmarks.regret import FULL, Problem, Scale, law_of, problems, rows_of, train_arm
from model.exact import best_order, order_table
from model.regret import regret
from training.config import Recipe
from training.enumeration import token_table

NETWORKS = ("asia",)
NETS, FIRST_SEED, APART = 3, 100, 1000
REGIMES: tuple[Fields, ...] = (
    {"width": 2, "mlp_width": 4, "steps": 1000, "learning_rate": 1e-2},
    {"width": 8, "mlp_width": 8, "steps": 300, "learning_rate": 2e-3},  # that of `benchmarks.regret`
    {"width": 8, "mlp_width": 2, "steps": 1500, "learning_rate": 1e-2},
    {"width": 64, "mlp_width": 64, "steps": 100, "learning_rate": 3e-3},
    # One head, and a weight decay that keeps every weight of a matrix below a 24th or a 20th, however long it trains.
    {"width": 16, "mlp_width": 128, "steps": 400, "learning_rate": 3e-3, "heads": 1, "weight_decay": 24.0},
    {"width": 64, "mlp_width": 128, "steps": 400, "learning_rate": 3e-3, "heads": 1, "weight_decay": 20.0},
)
WEIGHT_DECAY = 0.01  # where a regime names none
BATCH, QUICK_BATCH, QUICK_STEPS, QUICK_ROWS = 1024, 64, 10, 200


def main() -> None:
    given = arguments(__doc__, work="runs/regret_regimes", seeds=1).parse_args()
    regimes = [{**regime, "batch_size": BATCH, "rows": FULL.rows} for regime in REGIMES]
    if given.quick:
        regimes = [{**REGIMES[0], "steps": QUICK_STEPS, "batch_size": QUICK_BATCH, "rows": QUICK_ROWS}]
    tasks = [
        {"problem": "regimes", "regime": regime, "seed": FIRST_SEED + n, "runs": f"{given.work}/runs"}
        for regime in regimes
        for n in range(given.seeds)
    ]
    found = [one for part in run_all(measure, tasks, folder=given.work, jobs=given.jobs) for one in part["found"]]
    print(json.dumps({"regimes": found, "torch": torch.__version__}, indent=2) if given.json else as_text(found))


def measure(task: Fields) -> Fields:
    """One regime on all problems of a seed."""
    torch.set_num_threads(1)
    rows = task["regime"]["rows"]
    scale = Scale(networks=NETWORKS, rows=rows, table_rows=min(rows, FULL.table_rows))
    return {"found": [transfers(problem, task) for problem in problems(scale, [], seed=task["seed"])]}


def transfers(problem: Problem, task: Fields) -> Fields:
    """Three nets, and what the best order of each is worth on the others."""
    recipe = make_recipe(problem, task["regime"])
    work = Path(task["runs"]) / f"{recipe.fingerprint()[:12]}-{task['seed']}"
    nets = [
        train_arm(recipe, problem.dataset, f"net{n}", kind="uniform", seed=task["seed"] + APART * n, work=work)
        for n in range(1, NETS + 1)
    ]
    splits = ("validation", "test")
    tables = [{split: token_table(net, rows_of(problem, split)) for split in splits} for net in nets]
    laws = [order_table(law_of(best_order(table["validation"].mean(0))[1])) for table in tables]
    found = [[regret(law, **table) for law in laws] for table in tables]
    others = [found[i][j] for i, j in permutations(range(NETS), 2)]
    return {
        "problem": problem.name,
        "seed": task["seed"],
        "regime": task["regime"],
        "uniform": [own[0].uniform for own in found],
        "headroom": [own[0].headroom for own in found],
        "has_headroom": [own[0].has_headroom for own in found],
        "transferred": [(other.nelbo - other.best) / other.headroom for other in others],
        "parameters": nets[0].num_parameters,
    }


def make_recipe(problem: Problem, regime: Fields) -> Recipe:
    """A net and a budget; every net of a regime differs from it by its seed alone."""
    steps, width = regime["steps"], regime["width"]
    heads = regime.get("heads", 4 if width >= 16 else 1)
    return Recipe.model_validate(
        {
            "name": problem.name,
            "data": problem.data,
            "model": {"width": width, "layers": 1, "heads": heads, "mlp_width": regime["mlp_width"], "dropout": 0.0},
            "optimizer": {
                "steps": steps,
                "batch_size": regime["batch_size"],
                "learning_rate": regime["learning_rate"],
                "warmup_steps": min(50, steps // 4),
                "ema_decay": 0.99,
                "weight_decay": regime.get("weight_decay", WEIGHT_DECAY),
            },
            "run": {"precision": "32-true", "accelerator": "cpu", "threads": 1, "validate_rows": 256}
            | dict.fromkeys(("log_every", "validate_every", "checkpoint_every"), steps),
        }
    )


def as_text(found: Sequence[Fields]) -> str:
    """A table for `docs/results.md`."""
    lines = ["| width, MLP | decay | steps | rate | problem | headroom, nats | another's best order: median | range |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for one in found:
        regime, room, ratios = one["regime"], sorted(one["headroom"]), sorted(one["transferred"])
        decay = regime.get("weight_decay", WEIGHT_DECAY)
        lines.append(
            f"| {regime['width']}, {regime['mlp_width']} | {decay:g} | {regime['steps']}"
            f" | {regime['learning_rate']:g} |"
            f" {one['problem']} | {room[0]:.3f} to {room[-1]:.3f} | {median(ratios):.2f} |"
            f" {ratios[0]:.2f} to {ratios[-1]:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
