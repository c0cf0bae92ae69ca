"""Does context matter? A mixture in which one column decides which order is good:
`benchmarks/orders/problems/switch.py`.

    python -m benchmarks selector [--quick] [--seeds N] [--first-seed N] [--walks N] [--json] [--work DIR] [--jobs N]

For each seed (another mixture) a reference net is trained under uniform orders. On it, under the true law, every
expectation is exact: the NELBO of uniform orders, the best single order there is, what it costs to ask for the selector
first and then to follow the best order of each half, the order of least entropy first, and the contextual optimum
`V*(x_S) = min_l E[CE(l | x_S) + V*(x_S + l)]`. Then orders are learned: a global one with a net of the same size, with
the shipped settings, and for the frozen reference the cost to go, N steps of branched walks; its forwards, none of
which trains the denoiser, are counted too (`forwards`). Each is scored on the reference along its deployed argmax
order: `context_gained = (best single order - policy) / (best single order - contextual optimum)`. Problem, net and
budgets were chosen on seed 100, the problem and the net such that most of what there is to gain is the structure's,
not the net's accidents.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all
from unveil.benchmarks.orders.problems.switch import SelectorProblem
from unveil.model.artifact.folder import save_artifact
from unveil.model.confidence import confidence_of
from unveil.model.denoiser import cross_entropy
from unveil.model.network.base import Network
from unveil.model.oracle.exact import (
    best_order,
    best_policy,
    exact_nelbo,
    order_nelbo,
    policy_cost,
    subset_masks,
    subset_table,
    table_nelbo,
)
from unveil.model.order.plackett_luce import deterministic_order, next_log_probs
from unveil.training.config import Recipe, settle
from unveil.training.data.dataset import Dataset
from unveil.training.evaluation.likelihood import as_rows
from unveil.training.step.cost_to_go import forwards_a_row
from unveil.training.trainer import train

MODEL = {"width": 64, "layers": 1, "heads": 4, "mlp_width": 128, "dropout": 0.0, "query_layers": 0}
BATCH = 128
OPTIMIZER: Fields = {"batch_size": BATCH, "warmup_steps": 100}
WALKING: Fields = {"batch_size": 64, "warmup_steps": 50, "ema_decay": 0.98, "learning_rate": 2e-3}
STEPS, QUICK_STEPS = 9000, 40
WALKS, QUICK_WALKS = 6000, 3
GROUP, QUICK_GROUP = 5, 3
ORDER: Fields = {"method": "cost_to_go", "exploration": 0.3, "branches": 4}
STRUCTURE = "selector first, then the best of each half"
RUN: Fields = {"threads": 1, "precision": "32-true", "validate_rows": 256, "log_every": 100}
COST_TO_GO = "cost to go, frozen denoiser"
REFERENCE = 1000  # added to the seed: the reference shares neither first weights nor batches with the other arms


def main() -> None:
    parser = arguments(__doc__, work="runs/selector", seeds=5)
    parser.add_argument("--walks", type=int, default=WALKS)
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    budget = (
        {"steps": QUICK_STEPS, "walks": QUICK_WALKS, "group": QUICK_GROUP}
        if given.quick
        else {"steps": STEPS, "walks": given.walks, "group": GROUP}
    )
    folder, seeds = str(given.work / "runs"), range(given.first_seed, given.first_seed + given.seeds)
    tasks = [{"problem": "selector", "seed": seed, **budget, "runs": folder} for seed in seeds]
    report = summary(run_all(measure, tasks, folder=given.work, jobs=given.jobs))
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def measure(task: Fields) -> Fields:
    """All arms of one seed."""
    problem = SelectorProblem(seed=task["seed"], group=task["group"])
    dataset = problem.dataset(train=200_000, validation=512, test=512)
    work = Path(task["runs"]) / f"{task['seed']}-{task['steps']}-{task['walks']}"

    def arm(name: str, **fields: Any) -> Network:
        return trained(dataset, name=name, steps=task["steps"], work=work, **fields)

    reference = arm("reference", kind="uniform", seed=task["seed"] + REFERENCE)
    frozen = work / "reference"
    save_artifact(frozen, denoiser=reference, tokenizer=dataset.tokenizer, training={}, metrics={}, card="")
    x = as_rows(problem.support).x
    ce = tables(reference, x)[0]
    exact = optima(ce, x, selector=int(problem.places[0]), halves=problem.halves)
    single = arm("global", kind="global", seed=task["seed"])
    policy = walked(dataset, task, work=work, frozen=frozen)
    order = deterministic_order(single.order_head.global_log_w().detach())
    surest = greedy(reference, ce, x, by_entropy=True)
    taken = {"least entropy first": surest, COST_TO_GO: greedy(policy, ce, x)}
    nats = {
        **exact,
        "global, learned": float(order_nelbo(ce.mean(0), order)),
        **{name: float(paid) for name, (paid, _) in taken.items()},
    }
    best, optimum = nats["best single order"], nats["contextual optimum"]
    forwards = forwards_a_row(problem.length, branches=int(ORDER["branches"])) * WALKING["batch_size"]
    return {
        "seed": task["seed"],
        "forwards": {"walks": round(task["walks"] * forwards), "others": task["steps"] * BATCH},
        "entropy": problem.entropy,
        "nats": nats,
        "context_gained": {name: (best - nats[name]) / (best - optimum) for name in taken},
        "structure_gains": (best - nats[STRUCTURE]) / (best - optimum),
        "own_nats": {"global": own_nats(single, x)},
        "selector_first": {name: first == int(problem.places[0]) for name, (_, first) in taken.items()},
    }


def optima(ce: Tensor, x: Tensor, *, selector: int, halves: Sequence[slice]) -> Fields:
    """What the reference pays along orders that nobody had to learn, exactly, from its tables [N, 2**L, L]."""
    mean, p = ce.mean(0), torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    return {
        "uniform orders": float(exact_nelbo(torch.zeros(x.shape[1]), mean)),
        "best single order": float(best_order(mean)[0]),
        STRUCTURE: sum(_best_from(ce[half].mean(0), selector) for half in halves) / len(halves),
        "contextual optimum": float(best_policy(ce, x, p)[0]),
    }


def _best_from(mean: Tensor, first: int) -> float:
    """The best order that begins with `first`."""
    barred = mean.clone()
    barred[0] = torch.where(torch.arange(mean.shape[1]) == first, mean[0], torch.inf)
    return float(best_order(barred)[0])


@torch.inference_mode()
def greedy(net: Network, ce: Tensor, x: Tensor, *, by_entropy: bool = False) -> tuple[float, int]:
    """The mean nats that the reference pays for rows along a net's own argmax order, and the first position of it.

    Or along the order of the least entropy of that net's token head."""
    hidden, rows = torch.ones_like(x, dtype=torch.bool), torch.arange(len(x))
    lengths, bits = torch.full((len(x),), x.shape[1]), 1 << torch.arange(x.shape[1])
    paid, first = torch.zeros(len(x), dtype=torch.float64), -1
    while bool(hidden.any()):
        logits, order = net(x.masked_fill(hidden, 0), hidden, lengths)
        keys = -confidence_of(logits).entropy if by_entropy else order
        chosen = keys.masked_fill(~hidden, -torch.inf).argmax(-1)
        first = int(chosen[0]) if first < 0 else first
        paid += ce[rows, (~hidden * bits).sum(-1), chosen]
        hidden[rows, chosen] = False
    return float(paid.mean()), first


def trained(dataset: Dataset, *, name: str, kind: str, seed: int, steps: int, work: Path) -> Network:
    """One arm with a net of its own."""
    fields = _fields(name, seed, order={"method": kind}, optimizer={**OPTIMIZER, "steps": steps}) | {"model": MODEL}
    recipe = settle(Recipe.of(fields), num_rows=len(dataset.train))
    result = train(recipe, dataset, work=work / f"{name}.run")
    assert result is not None, "run in one process"
    return result.denoiser


def walked(dataset: Dataset, task: Fields, *, work: Path, frozen: Path) -> Network:
    """The cost to go, learned on branched walks of the frozen reference."""
    fields = _fields("cost_to_go", task["seed"], order=ORDER, optimizer={**WALKING, "steps": task["walks"]})
    fields |= {"start": {"artifact": str(frozen), "freeze_denoiser": True}}
    recipe = settle(Recipe.of(fields), num_rows=len(dataset.train))
    result = train(recipe, dataset, work=work / "cost_to_go.run")
    assert result is not None, "run in one process"
    return result.denoiser


def _fields(name: str, seed: int, *, order: Fields, optimizer: Fields) -> Fields:
    return {
        "name": name,
        "seed": seed,
        "data": {"kind": "table", "path": "drawn-by-the-benchmark"},
        "order": order,
        "prompts": {"share": 0.0},
        "optimizer": optimizer,
        "run": {
            "threads": 1,
            "precision": "32-true",
            "validate_rows": 256,
            "validate_every": optimizer["steps"],
            "log_every": 100,
        },
    }


@torch.inference_mode()
def tables(net: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of every subset of every row: token losses, and log pi (minus infinity inside the subset): [N, 2**L, L] each."""
    lengths = torch.full((1,), x.shape[1])

    def losses(tokens: Tensor, hidden: Tensor) -> Tensor:
        return cross_entropy(net(tokens.masked_fill(hidden, 0), hidden, lengths.expand(len(tokens)))[0], tokens)

    def order(tokens: Tensor, hidden: Tensor) -> Tensor:
        logits = net(tokens.masked_fill(hidden, 0), hidden, lengths.expand(len(tokens))).order_logits
        return next_log_probs(logits, hidden)

    law = subset_table(order, x)
    return subset_table(losses, x), law.masked_fill(subset_masks(x.shape[1]), -torch.inf)


def own_nats(net: Network, x: Tensor) -> Fields:
    """What the net itself gives the law's rows: under its policy's law, and along its argmax order."""
    ce, law = tables(net, x)
    return {"nelbo": float(table_nelbo(law, ce).mean()), "greedy": float(policy_cost(ce, law.argmax(-1)).mean())}


def summary(results: Sequence[Fields]) -> Fields:
    """All seeds, and the smallest gain of each policy."""
    names = list(results[0]["context_gained"])
    gained = {name: [result["context_gained"][name] for result in results] for name in names}
    return {
        "seeds": list(results),
        "context_gained_min": {name: min(values) for name, values in gained.items()},
        "context_gained": {name: interval(values) for name, values in gained.items()},
        "model": MODEL,
        "optimizer": OPTIMIZER,
        "walking": WALKING,
    }


def as_text(report: Fields) -> str:
    """The same for a reader."""
    lines = []
    for seed in report["seeds"]:
        lines.append(f"seed {seed['seed']}: nats on the reference (truth {seed['entropy']:.3f})")
        lines += [f"  {name:<44}{value:8.4f}" for name, value in seed["nats"].items()]
        lines += [f"  gained by {name:<42}{value:6.3f}" for name, value in seed["context_gained"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
