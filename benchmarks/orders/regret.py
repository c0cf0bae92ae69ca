"""How good is a learned order: on the net it was learned on, and among other orders when nets are trained along each?

    python -m benchmarks regret [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--table FILE]...

Problems: the Bayesian networks asia and sachs, and eight columns of Adult and of any CSV given. Every subset of a row's
positions can be enumerated, so NELBOs, best orders and likelihoods are exact. Data, nets and random orders all change
with the seed. Two questions, for each problem and seed:

- **Regret on a frozen net.** A net trained under uniform orders is left as it is. The shipped estimator, the critic,
  learns log w from its losses on training rows; V* is the best order on its validation rows; then, on its test rows,
  regret is `(L(w) - V*) / (L(uniform) - V*)`: 0 is the best order there is, 1 no better than random. Of the learned law
  and of its likeliest order, only where `L(uniform) - V*` is headroom enough (`model/oracle/regret.py`).
- **Rank after retraining.** Nets are trained from scratch, all from one seed and with equal forwards, along each of
  about ten decided orders: the learned one of the arm `global` (order and net trained jointly), its reverse, the best
  one of the frozen net, left to right, and random ones; and one net under uniform orders. Compared are exact
  log-likelihoods of test rows. The percentile of the learned order is the share of the other decided orders that it
  beats (a tie counts half). The learned order less the mean of the random ones is what learning is worth; the random
  ones less uniform orders, what deciding is worth.

Nets are masked ones, so that a loss depends on the set that is known alone. They and their budgets are small on
purpose: a perfect denoiser is equally good in every order. They were chosen for headroom on asia, on data of seeds from
100 on; no test row of these seeds was looked at for it. Rows of a split are evenly spaced. Intervals are 95 % over
seeds. Results are kept in DIR by all that they depend on, and found again.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.orders.problems.decided import LEARNED, decided_orders, percentile
from unveil.benchmarks.orders.problems.enumeration import token_table
from unveil.benchmarks.orders.problems.frozen_learner import learned_law
from unveil.benchmarks.orders.problems.frozen_problem import Frozen
from unveil.benchmarks.orders.problems.short_rows import (
    NETWORK,
    Problem,
    content_of,
    network_data,
    read_problem,
    table_data,
)
from unveil.model.errors import UnveilError
from unveil.model.network.base import Network
from unveil.model.oracle.exact import exact_nelbo, order_table
from unveil.model.oracle.exact import log_likelihood as exact_log_likelihood
from unveil.model.oracle.regret import regret
from unveil.model.order.plackett_luce import deterministic_order, order_entropy
from unveil.training.config import Recipe
from unveil.training.data.dataset import Dataset
from unveil.training.data.rows import as_rows
from unveil.training.evaluation.estimate import Estimate
from unveil.training.evaluation.likelihood import log_likelihood
from unveil.training.order_config import GlobalOrder
from unveil.training.step.batches import marginal_logprobs
from unveil.training.trainer import train

NETWORKS = ("asia", "sachs")
NET: Fields = {"width": 8, "layers": 1, "heads": 1, "mlp_width": 8, "dropout": 0.0, "query_layers": 0}
BUDGET: Fields = {
    "steps": 300,
    "batch_size": 1024,
    "learning_rate": 2e-3,
    "matrix_rate": 0.0,  # AdamW alone, with which the headroom was measured
    "warmup_steps": 50,
    "ema_decay": 0.99,
}
FULL: Fields = {"networks": NETWORKS, "network_rows": 16_000, "table_rows": 2000, "budget": BUDGET, "random": 6}
QUICK: Fields = FULL | {
    "networks": NETWORKS[:1],
    "network_rows": 200,
    "table_rows": 100,
    "budget": BUDGET | {"steps": 30, "batch_size": 64, "warmup_steps": 5},
    "random": 2,
}
REFERENCE, RETRAINED = 1000, 2000  # added to the seed: neither shares first weights or batches with the learner
FAR_APART = 64.0  # log-weights this far apart are a deterministic order
UNIFORM, RANDOM = "uniform", "mean of random"


def main() -> None:
    parser = arguments(__doc__, work="runs/regret", seeds=5)
    parser.add_argument("--table", type=Path, action="append", default=[], help="a CSV more; repeatable")
    given = parser.parse_args()
    scale = QUICK if given.quick else FULL
    try:
        tasks = [
            task for seed in range(given.seeds) for task in list_tasks(scale, given.table, seed=seed, work=given.work)
        ]
        results = run_all(measure, tasks, folder=given.work, jobs=given.jobs)
    except (UnveilError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    report = summary(results, scale)
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def list_tasks(scale: Fields, tables: Sequence[Path], *, seed: int, work: Path) -> list[Fields]:
    """One for each problem."""
    sources = [(name, network_data(name, rows=scale["network_rows"], seed=seed), "") for name in scale["networks"]]
    for path in (None, *tables):
        name = "adult" if path is None else path.stem
        sources.append((name, table_data(path, seed=seed), content_of(path)))
    return [
        {
            "problem": name,
            "seed": seed,
            "rows": scale["network_rows" if data["kind"] == NETWORK else "table_rows"],
            "random": scale["random"],
            "data": data,
            "recipe": make_recipe(name, data, scale["budget"]).model_dump(mode="json"),
            "content": content,
            "runs": f"{work}/runs",
        }
        for name, data, content in sources
    ]


def make_recipe(name: str, data: Fields, budget: Fields) -> Recipe:
    """What all arms share; the order's settings are those shipped."""
    run = dict.fromkeys(("log_every", "validate_every", "checkpoint_every"), budget["steps"])
    run |= {"precision": "32-true", "accelerator": "cpu", "threads": 1, "validate_rows": 256}
    if data["kind"] == NETWORK:
        data = {"kind": "table", "path": "drawn-by-the-benchmark"}  # a recipe must name some
    return Recipe.of({"name": name, "data": data, "model": NET, "optimizer": budget, "run": run})


def measure(task: Fields) -> Fields:
    """A problem and a seed: all nets trained and compared. Nets done before a run was killed are not trained again."""
    torch.set_num_threads(1)
    recipe, seed = Recipe.model_validate(task["recipe"]), task["seed"]
    problem = read_problem(task["data"], rows=task["rows"])
    work = Path(task["runs"]) / f"{recipe.fingerprint()[:12]}-{task['content'][:12]}-{seed}"
    arm = partial(train_arm, recipe, problem.dataset, work=work)
    frozen, best = frozen_regret(arm("reference", kind="uniform", seed=seed + REFERENCE), problem, recipe, seed=seed)
    learner = arm("learner", kind="global", seed=seed)
    log_w = learner.order_head.global_log_w().detach()
    orders = decided_orders(deterministic_order(log_w).tolist(), best, num_random=task["random"], seed=seed)
    x = problem.rows("test")
    losses = decided_losses(partial(arm, seed=seed + RETRAINED), orders, x)
    losses |= uniform_losses(arm("uniform", kind="uniform", seed=seed + RETRAINED), x)
    names = [str(name) for name in problem.dataset.names]
    result = {
        "problem": task["problem"],
        "seed": seed,
        "frozen": frozen,
        "order_entropy": float(order_entropy(log_w)),
        "orders": {name: [names[i] for i in sigma] for name, sigma in orders.items()},
        "test_rows": len(x),
        "parameters": learner.num_parameters,
        "forwards_per_arm": recipe.optimizer.num_steps * recipe.optimizer.batch_size,
        **compared(losses, orders),
    }
    shutil.rmtree(work)
    return result


def frozen_regret(net: Network, problem: Problem, recipe: Recipe, *, seed: int) -> tuple[Fields, list[int]]:
    """Regret of the order learned on this net, from as many forwards as a net is trained with; and its best order."""
    tables = {split: token_table(net, problem.rows(split)) for split in ("validation", "test")}
    x = problem.rows("train")
    marginals = marginal_logprobs(as_rows(problem.dataset.train), net.architecture.vocabulary_sizes)
    seen = Frozen(ce=token_table(net, x), control=-marginals.gather(1, x.T).T.contiguous())
    forwards = recipe.optimizer.num_steps * recipe.optimizer.batch_size
    log_w = learned_law(seen, forwards=forwards, rate=GlobalOrder().learning_rate, seed=seed)
    law, greedy = (regret(order_table(w), **tables) for w in (log_w, law_of(deterministic_order(log_w))))
    found = {
        "law": law.ratio,
        "law_standard_error": law.ratio_standard_error if law.has_headroom else None,
        "greedy": greedy.ratio,
        "greedy_standard_error": greedy.ratio_standard_error if greedy.has_headroom else None,
        "headroom": law.headroom,
        "headroom_standard_error": law.headroom_standard_error,
        "nats": {"law": law.nelbo, "greedy": greedy.nelbo, "best": law.best, "uniform": law.uniform},
    }
    return found, list(law.best_sigma)


def decided_losses(arm: partial[Network], orders: Mapping[str, Sequence[int]], x: Tensor) -> dict[str, Tensor]:
    """Minus the exact log-likelihood of rows [N, L] under a net trained along each order: [N] each.

    An order that two names share is trained along once.
    """
    found: dict[tuple[int, ...], Tensor] = {}
    for name, sigma in orders.items():
        if tuple(sigma) not in found:
            net = arm(name.replace(" ", "_").replace(",", ""), kind="fixed", fixed=list(sigma))
            found[tuple(sigma)] = -log_likelihood(net, as_rows(x.numpy()), sigma)
    return {name: found[tuple(sigma)] for name, sigma in orders.items()}


def uniform_losses(net: Network, x: Tensor) -> dict[str, Tensor]:
    """Minus the exact log-likelihood of the uniform model, orders summed out, and its NELBO: [N] each."""
    table = token_table(net, x)
    zero = torch.zeros(x.shape[1])
    return {UNIFORM: -exact_log_likelihood(-table, order_table(zero)), "uniform, NELBO": exact_nelbo(zero, table)}


def compared(losses: Mapping[str, Tensor], orders: Mapping[str, Sequence[int]]) -> Fields:
    """Nats of each, the learned order's percentile, and differences paired by row."""
    means = {name: float(losses[name].mean()) for name in orders}
    random = torch.stack([losses[name] for name in orders if name.startswith("random")]).mean(0)
    rivals = {name: loss for name, loss in losses.items() if name != LEARNED} | {RANDOM: random}
    return {
        "retrained": {name: asdict(Estimate.of(loss)) for name, loss in losses.items()},
        "percentile": percentile(means),
        "learned_minus": {name: asdict(Estimate.of(losses[LEARNED] - loss)) for name, loss in rivals.items()},
        "random_minus_uniform": asdict(Estimate.of(random - losses[UNIFORM])),
    }


def law_of(order: Tensor) -> Tensor:
    """Log-weights [L] under which sigma [L] is certain."""
    return torch.zeros(len(order)).index_copy_(0, order, -FAR_APART * torch.arange(len(order)))


def train_arm(
    recipe: Recipe, dataset: Dataset, name: str, *, kind: str, seed: int, work: Path, fixed: list[int] | None = None
) -> Network:
    order = {"method": kind} if fixed is None else {"method": kind, "positions": fixed}
    fields = {**recipe.model_dump(mode="json", exclude={"order"}), "seed": seed, "order": order}
    trained = train(Recipe.model_validate(fields), dataset, work=work / f"{name}.run")
    assert trained is not None, "run in one process"
    return trained.denoiser


def summary(results: Sequence[Fields], scale: Fields) -> Fields:
    """Every problem over its seeds, and all problems and seeds together."""
    by_problem: dict[str, list[Fields]] = {}
    for result in results:
        by_problem.setdefault(result["problem"], []).append(result)
    settings = {"net": NET, "scale": scale, "torch": torch.__version__}
    problems = {name: problem_summary(found) for name, found in by_problem.items()}
    return {"problems": problems, "all": problem_summary(results), "results": list(results), "settings": settings}


def problem_summary(found: Sequence[Fields]) -> Fields:
    """Means with intervals; regret over those seeds alone that have headroom."""
    with_room = [result["frozen"] for result in found if result["frozen"]["law"] is not None]
    rivals = found[0]["learned_minus"]
    return {
        "num_with_headroom": len(with_room),
        "headroom": [result["frozen"]["headroom"] for result in found],
        "frozen_regret": {
            what: interval([frozen[what] for frozen in with_room]) if with_room else None for what in ("law", "greedy")
        },
        "percentiles": [result["percentile"] for result in found],
        "percentile": interval([result["percentile"] for result in found]),
        "learned_minus": {name: interval([r["learned_minus"][name]["mean"] for r in found]) for name in rivals},
        "random_minus_uniform": interval([r["random_minus_uniform"]["mean"] for r in found]),
    }


def as_text(report: Fields) -> str:
    """Markdown tables for `docs/results.md`."""
    shown = [UNIFORM, RANDOM, "best of the reference", "left to right", "learned, reversed"]
    rows = {**report["problems"], "all": report["all"]}
    frozen = ["| frozen net | headroom, nats | seeds with headroom | regret of the law | of its likeliest order |"]
    frozen += ["|---|---|---|---|---|", *(_frozen_text(name, found) for name, found in rows.items())]
    ranks = [
        "| retrained | percentile | " + " | ".join(f"minus {name}" for name in shown) + " | random minus uniform |"
    ]
    ranks.append("|---" * (len(shown) + 3) + "|")
    for name, found in rows.items():
        metrics = [*(found["learned_minus"][rival] for rival in shown), found["random_minus_uniform"]]
        cells = [with_interval(found["percentile"], ".2f"), *(with_interval(figure, "+.3f") for figure in metrics)]
        ranks.append(" | ".join([f"| {name}", *cells]) + " |")
    return "\n".join([*frozen, "", *ranks])


def _frozen_text(name: str, found: Fields) -> str:
    room, regrets = found["headroom"], found["frozen_regret"]
    cells = ["–" if one is None else with_interval(one, ".3f") for one in (regrets["law"], regrets["greedy"])]
    seeds = f"{found['num_with_headroom']} of {len(room)}"
    return " | ".join([f"| {name}", f"{min(room):.3f} to {max(room):.3f}", seeds, *cells]) + " |"


if __name__ == "__main__":
    main()
