"""Does context matter? A mixture in which one column decides which order is good: `benchmarks/problems/selector.py`.

    python -m benchmarks.selector [--quick] [--seeds N] [--walks N] [--json] [--work DIR] [--jobs N]

For each seed (another mixture) a reference net is trained under uniform orders. On it, under the true law, every
expectation is exact: the NELBO of uniform orders, the best single order there is, and the contextual optimum
`V*(x_S) = min_l E[CE(l | x_S) + V*(x_S + l)]`. Then orders are learned, by nets of the same size at equal forwards (the
posterior's passes counted), with the shipped settings: a global one and a contextual one jointly with their denoisers,
and a contextual one for the reference itself, frozen. For the frozen reference two more learn on whole walks, N steps
of 128 rows, nine forwards each: `foresight` what each reveal costs, `cost to go` also what it leaves to pay. They take
more forwards than the other arms (`forwards`). Each is scored on the reference along its deployed argmax order:
`context_gained = (best single order - policy) / (best single order - contextual optimum)`. Net and budget were chosen
on seed 100 such that there is something to gain.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.problems.runs import Fields, arguments, interval, run_all
from benchmarks.problems.selector import SelectorProblem
from model.artifact import save_artifact
from model.denoiser import cross_entropy
from model.exact import (
    best_order,
    best_policy,
    exact_nelbo,
    order_nelbo,
    policy_cost,
    subset_masks,
    subset_table,
    table_nelbo,
)
from model.network import Network
from model.orders import deterministic_order, next_log_probs
from training.config import Recipe, settle
from training.data.dataset import Dataset
from training.evaluate import as_rows
from training.trainer import posterior_forwards, train

MODEL = {"width": 32, "layers": 1, "heads": 2, "mlp_width": 64, "dropout": 0.0}
BATCH = 128
OPTIMIZER: Fields = {"batch_size": BATCH, "warmup_steps": 100}
WALKING: Fields = {"batch_size": BATCH, "warmup_steps": 50, "ema_decay": 0.98}
STEPS, QUICK_STEPS = 1500, 40
WALKS, QUICK_WALKS = 1500, 3
EXPLORATION = 0.2  # of the walks
REFERENCE = 1000  # added to the seed: the reference shares neither first weights nor batches with the other arms


def main() -> None:
    parser = arguments(__doc__, work="runs/selector", seeds=5)
    parser.add_argument("--walks", type=int, default=WALKS)
    given = parser.parse_args()
    budget = {"steps": QUICK_STEPS, "walks": QUICK_WALKS} if given.quick else {"steps": STEPS, "walks": given.walks}
    folder = str(given.work / "runs")
    tasks = [{"problem": "selector", "seed": seed, **budget, "runs": folder} for seed in range(given.seeds)]
    report = summary(run_all(measure, tasks, folder=given.work, jobs=given.jobs))
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def measure(task: Fields) -> Fields:
    """All arms of one seed."""
    problem = SelectorProblem(seed=task["seed"])
    dataset = problem.dataset(train=200_000, validation=512, test=512)
    work = Path(task["runs"]) / f"{task['seed']}-{task['steps']}-{task['walks']}"

    def arm(name: str, **fields: Any) -> Network:
        return trained(dataset, name=name, steps=task["steps"], work=work, **fields)

    reference = arm("reference", kind="uniform", seed=task["seed"] + REFERENCE)
    frozen = work / "reference"
    save_artifact(frozen, denoiser=reference, tokenizer=dataset.tokenizer, training={}, figures={}, card="")
    x = as_rows(problem.support).x
    ce, p = tables(reference, x)[0], torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    mean = ce.mean(0)
    best, sigma = best_order(mean)
    optimum, choice = best_policy(ce, x, p)
    single = arm("global", kind="global", seed=task["seed"])
    policies = {
        "contextual": arm("contextual", kind="contextual", seed=task["seed"]),
        "contextual, frozen denoiser": arm("frozen", kind="contextual", seed=task["seed"], frozen=frozen),
        "foresight, frozen denoiser": walked(dataset, "foresight", task, work=work, frozen=frozen),
        "cost to go, frozen denoiser": walked(dataset, "cost_to_go", task, work=work, frozen=frozen),
    }
    taken = {name: choices(net, x) for name, net in policies.items()}
    order = deterministic_order(single.order_head.global_log_w().detach())
    nats = {
        "uniform orders": float(exact_nelbo(torch.zeros(x.shape[1]), mean)),
        "best single order": float(best),
        "global, learned": float(order_nelbo(mean, order)),
        **{name: float(policy_cost(ce, choice).mean()) for name, choice in taken.items()},
        "contextual optimum": float(optimum),
    }
    own = {name: own_nats(net, x) for name, net in {"global": single, "contextual": policies["contextual"]}.items()}
    gains = {name: (nats["best single order"] - nats[name]) / float(best - optimum) for name in policies}
    return {
        "seed": task["seed"],
        "forwards": {"walks": task["walks"] * WALKING["batch_size"] * x.shape[1], "others": task["steps"] * BATCH},
        "entropy": problem.entropy,
        "nats": nats,
        "context_gained": gains,
        "own_nats": own,
        "selector_first": {
            "best single order": bool(sigma[0] == int(problem.places[0])),
            "contextual optimum": bool(choice[0, 0] == int(problem.places[0])),
            **{name: bool(choice[0, 0] == int(problem.places[0])) for name, choice in taken.items()},
        },
    }


def trained(
    dataset: Dataset, *, name: str, kind: str, seed: int, steps: int, work: Path, frozen: Path | None = None
) -> Network:
    """One arm, with as many steps as its forwards allow."""
    fields = _fields(name, seed, order={"kind": kind}, optimizer={**OPTIMIZER, "steps": steps})
    fields |= {"model": MODEL} if frozen is None else {"start": {"artifact": str(frozen), "freeze_denoiser": True}}
    recipe = settle(Recipe.model_validate(fields), num_rows=len(dataset.train))
    budget = steps * recipe.optimizer.batch_size
    asked = budget + posterior_forwards(recipe)
    affordable = recipe.optimizer.model_copy(update={"steps": steps * budget // asked})
    result = train(recipe.model_copy(update={"optimizer": affordable}), dataset, work=work / f"{name}.run")
    assert result is not None, "run in one process"
    return result.denoiser


def walked(dataset: Dataset, head: str, task: Fields, *, work: Path, frozen: Path) -> Network:
    """An order that learns on whole walks of the frozen reference."""
    order = {"kind": "contextual", "head": head, "signal": head, "exploration": EXPLORATION}
    fields = _fields(head, task["seed"], order=order, optimizer={**WALKING, "steps": task["walks"]})
    fields |= {"start": {"artifact": str(frozen), "freeze_denoiser": True}}
    recipe = settle(Recipe.model_validate(fields), num_rows=len(dataset.train))
    result = train(recipe, dataset, work=work / f"{head}.run")
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
        "run": {"threads": 1, "validate_rows": 256, "validate_every": optimizer["steps"], "log_every": 100},
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


def choices(net: Network, x: Tensor) -> Tensor:
    """The net's likeliest next position at every subset of every row: [N, 2**L]."""
    return tables(net, x)[1].argmax(-1)


def own_nats(net: Network, x: Tensor) -> Fields:
    """What the net itself gives the law's rows: under its policy's law, and along its argmax order."""
    ce, law = tables(net, x)
    return {"nelbo": float(table_nelbo(law, ce).mean()), "deployed": float(policy_cost(ce, law.argmax(-1)).mean())}


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
        lines += [f"  {name:<30}{value:8.4f}" for name, value in seed["nats"].items()]
        lines += [f"  gained by {name:<28}{value:6.3f}" for name, value in seed["context_gained"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
