"""Is the learned order a good one, exactly? Regret on a reference net, every subset enumerated, and retraining.

    python -m benchmarks.regret [--quick] [--seeds N] [--json] [--work DIR] [--threads N] [--table FILE]...
      [--no-networks] [--no-adult]

Problems: five Bayesian networks with true tables, the Adult table and any CSV given, tables cut to eight columns. For
each problem and seed a net of the arm `global` (the shipped order settings) learns an order. A SEPARATE net of the same
size, trained under uniform orders from another seed, is asked about every subset of every row; the best order V* is
chosen on its validation rows, and regret is `(L(w) - V*) / (L(uniform) - V*)` on its test rows: of the learned law and
of its likeliest order, the one that is deployed. Beside it stands a floor: the regret of the best order of yet another
uniform net, for what suits one net need not suit the next (`transferred`). Then nets are trained from scratch, all from
a third seed and with equal forwards, along the learned order, V*'s order, the learned order reversed, and uniform
orders, and their exact log-likelihoods on test rows compared; for networks also with the true law. Data, order of the
columns and nets all change with the seed.

Nets and budgets are small on purpose: a perfect denoiser is equally good in every order. They were chosen for headroom
on asia, on validation rows and on data of seeds from 100 on, and serve every problem; no test row of these seeds was
looked at for it. Results are kept in DIR by problem, seed and settings, and found again: remove DIR after a change to
the method.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import DataError
from model.exact import best_order, exact_nelbo, order_table
from model.exact import log_likelihood as exact_log_likelihood
from model.network import Network
from model.orders import deterministic_order, order_entropy
from model.regret import Regret, regret
from model.tokenizers.table import TableTokenizer
from training.config import Recipe
from training.data.config import NetworkData
from training.data.dataset import Dataset
from training.data.load import load_dataset
from training.data.network import Network as BayesianNetwork
from training.data.network import read_network
from training.enumeration import token_table
from training.evaluate import Estimate, as_rows, log_likelihood
from training.trainer import train
from unveil.training_commands import cache_folder

NETWORKS = ("cancer", "earthquake", "survey", "asia", "sachs")
ADULT_COLUMNS = ("age", "education", "education-num", "marital-status", "occupation", "relationship", "sex", "income")
MAX_COLUMNS = 8
MAX_CELLS = 2**25  # of a table of all subsets of all rows
NET = {"width": 8, "layers": 1, "heads": 1, "mlp_width": 8, "dropout": 0.0}
BUDGET = {"steps": 300, "batch_size": 1024, "learning_rate": 2e-3, "warmup_steps": 50, "ema_decay": 0.99}
QUICK_BUDGET = {**BUDGET, "steps": 30, "batch_size": 64, "warmup_steps": 5}
REFERENCE, RETRAINED = 1000, 2000  # added to the seed: neither shares first weights or batches with the learner
FAR_APART = 64.0  # log-weights this far apart are a deterministic order
Fields = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large everything is; the quick one takes every path, and its figures mean nothing."""

    networks: tuple[str, ...] = NETWORKS
    rows: int = 16_000  # of validation, and of test, where the table of all subsets stays under MAX_CELLS
    table_rows: int = 2000
    budget: Mapping[str, float] = field(default_factory=lambda: BUDGET)


FULL, QUICK = Scale(), Scale(networks=("cancer", "asia"), rows=200, table_rows=100, budget=QUICK_BUDGET)


@dataclass(frozen=True)
class Problem:
    """Data to learn an order of; `network` is its true law where that is known."""

    name: str
    data: Fields
    dataset: Dataset
    rows: int
    network: BayesianNetwork | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two networks and 30 steps; the figures mean nothing")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/regret"), help="where results are kept, and found again"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", type=Path, action="append", default=[], help="a CSV more; repeatable")
    parser.add_argument("--no-networks", action="store_true", help="tables alone")
    parser.add_argument("--no-adult", action="store_true", help="without the Adult table")
    arguments = parser.parse_args()
    if arguments.no_networks and arguments.no_adult and not arguments.table:
        parser.error("--no-networks --no-adult: leaves nothing to measure; give a --table")
    torch.set_num_threads(arguments.threads)
    scale = QUICK if arguments.quick else FULL
    if arguments.no_networks:
        scale = replace(scale, networks=())
    results: dict[str, list[Fields]] = {"networks": [], "tables": []}
    try:
        for seed in range(arguments.seeds):
            for problem in problems(scale, arguments.table, seed=seed, has_adult=not arguments.no_adult):
                found = kept(problem, scale, seed=seed, work=arguments.work, threads=arguments.threads)
                results["tables" if problem.network is None else "networks"].append(found)
                print(as_text(found), file=sys.stderr, flush=True)
    except DataError as error:
        raise SystemExit(f"error: {error}") from None
    report = summary(results, scale)
    print(json.dumps(report, indent=2) if arguments.json else closing(report))


def problems(scale: Scale, tables: list[Path], *, seed: int, has_adult: bool = True) -> Iterator[Problem]:
    """One after the other. Raises DataError."""
    cache = cache_folder()
    for name in scale.networks:
        config = NetworkData(name=name, validation_rows=scale.rows, test_rows=scale.rows, seed=seed)
        network = read_network(config, cache=cache)
        dataset = load_dataset(config, cache=cache)
        rows = min(scale.rows, MAX_CELLS // (2 ** len(network.names) * len(network.names)))
        yield Problem(name, config.model_dump(mode="json"), dataset, rows, network)
    adult: list[Fields] = [{"kind": "adult"}] if has_adult else []
    for given in [*adult, *({"kind": "table", "path": str(path)} for path in tables)]:
        recipe = Recipe.model_validate({"name": "table", "data": {**given, "max_bins": 16, "seed": seed}})
        dataset = load_dataset(recipe.data, cache=cache)
        wanted = ADULT_COLUMNS if given["kind"] == "adult" else tuple(map(str, dataset.names[:MAX_COLUMNS]))
        yield Problem(dataset.name, recipe.data.model_dump(mode="json"), cut(dataset, wanted), scale.table_rows)


def cut(dataset: Dataset, columns: tuple[str, ...]) -> Dataset:
    """The same rows with these columns alone."""
    assert isinstance(dataset.tokenizer, TableTokenizer)
    places = [dataset.names.index(name) for name in columns]
    tokenizer = TableTokenizer([dataset.tokenizer.columns[i] for i in places])
    train_rows, validation, test = (split[:, places] for split in (dataset.train, dataset.validation, dataset.test))
    return Dataset(name=dataset.name, tokenizer=tokenizer, train=train_rows, validation=validation, test=test)


def kept(problem: Problem, scale: Scale, *, seed: int, work: Path, threads: int) -> Fields:
    """The result, from `work` if it is there. Arms that were done when a run was killed are not trained again."""
    recipe = Recipe.model_validate(
        {
            "name": problem.name,
            "data": problem.data,
            "model": NET,
            "optimizer": scale.budget,
            "run": {"precision": "32-true", "accelerator": "cpu", "threads": threads, "validate_rows": 256}
            | dict.fromkeys(("log_every", "validate_every", "checkpoint_every"), scale.budget["steps"]),
        }
    )
    settings = f"{recipe.fingerprint()} {problem.dataset.fingerprint} {problem.rows} {REFERENCE} {RETRAINED}"
    folder = work / f"{problem.name}-{seed}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
    path = folder / "result.json"
    if path.exists():
        found: Fields = json.loads(path.read_text(encoding="utf-8"))
        return found
    result = measure(problem, recipe, seed=seed, work=folder)
    staging = folder / "result.writing"
    staging.write_text(json.dumps(result, indent=2), encoding="utf-8")
    staging.rename(path)
    for runs in folder.glob("*.run"):
        shutil.rmtree(runs)
    return result


def measure(problem: Problem, recipe: Recipe, *, seed: int, work: Path) -> Fields:
    """Trains all arms and compares them."""
    arm = partial(train_arm, recipe, problem.dataset, work=work)
    learned = arm("learner", kind="global", seed=seed)
    log_w = learned.order_head.global_log_w().detach()
    order = deterministic_order(log_w)
    reference = arm("reference", kind="uniform", seed=seed + REFERENCE)
    uniform = arm("uniform", kind="uniform", seed=seed + RETRAINED)
    _, other_best = best_order(token_table(uniform, rows_of(problem, "validation")).mean(0))
    law, deployed, transferred = regrets(problem, reference, [log_w, law_of(order), law_of(other_best)])
    orders = {"learned": order.tolist(), "best": list(law.best_sigma), "reversed": order.flip(0).tolist()}
    nets = {name: arm(name, kind="fixed", seed=seed + RETRAINED, fixed=sigma) for name, sigma in orders.items()}
    x = rows_of(problem, "test")
    losses = {name: -log_likelihood(nets[name], as_rows(x.numpy()), sigma) for name, sigma in orders.items()}
    losses |= uniform_losses(uniform, x)
    names = problem.dataset.names
    return {
        "name": problem.name,
        "seed": seed,
        "regret": law.ratio,
        "regret_standard_error": law.ratio_standard_error if law.has_headroom else None,
        "regret_deployed": deployed.ratio,
        "regret_transferred": transferred.ratio,
        "headroom": law.headroom,
        "headroom_standard_error": law.headroom_standard_error,
        "has_headroom": law.has_headroom,
        "reference": {"law": law.nelbo, "deployed": deployed.nelbo, "best": law.best, "uniform": law.uniform},
        "orders": {name: [names[i] for i in sigma] for name, sigma in orders.items()},
        "order_entropy": float(order_entropy(log_w)),
        "log_w": dict(zip(map(str, names), log_w.tolist(), strict=True)),
        "retrained": {name: asdict(Estimate.of(loss)) for name, loss in losses.items()},
        "learned_minus": {
            name: asdict(Estimate.of(losses["learned"] - loss)) for name, loss in losses.items() if name != "learned"
        },
        **(truth(problem.network, orders, losses, x) if problem.network is not None else {}),
        "test_rows": len(x),
        "parameters": learned.num_parameters,
        "forwards_per_arm": recipe.optimizer.num_steps * recipe.optimizer.batch_size,
    }


def regrets(problem: Problem, reference: Network, laws: list[Tensor]) -> list[Regret]:
    """Of each log-weights [L], on the same tables."""
    validation, test = (token_table(reference, rows_of(problem, split)) for split in ("validation", "test"))
    return [regret(order_table(log_w), validation=validation, test=test) for log_w in laws]


def uniform_losses(net: Network, x: Tensor) -> dict[str, Tensor]:
    """Minus the exact log-likelihood of the uniform model, orders summed out, and its NELBO: [N] each."""
    table = token_table(net, x)
    zero = torch.zeros(x.shape[1])
    return {"uniform": -exact_log_likelihood(-table, order_table(zero)), "uniform_nelbo": exact_nelbo(zero, table)}


def truth(network: BayesianNetwork, orders: Mapping[str, list[int]], losses: Mapping[str, Tensor], x: Tensor) -> Fields:
    """Nats above the true law on the same rows, and the share of edges whose parent comes first."""
    true = -torch.from_numpy(network.log_prob(x.numpy()))
    return {
        "true_nats": asdict(Estimate.of(true)),
        "above_truth": {name: asdict(Estimate.of(loss - true)) for name, loss in losses.items()},
        "parents_first": {name: parents_first(network, order) for name, order in orders.items()},
    }


def parents_first(network: BayesianNetwork, order: list[int]) -> float:
    """Share of (parent, child) edges with the parent revealed first."""
    return sum(order.index(parent) < order.index(child) for parent, child in network.edges) / len(network.edges)


def summary(results: Mapping[str, list[Fields]], scale: Scale) -> Fields:
    """The report; `regret_max` is over every problem and seed with headroom, None if there is none."""
    ratios = [result["regret"] for part in results.values() for result in part if result["has_headroom"]]
    settings = {"net": NET, "budget": dict(scale.budget), "torch": torch.__version__}
    return {**results, "regret_max": max(ratios, default=None), "num_with_headroom": len(ratios), "settings": settings}


def as_text(result: Fields) -> str:
    """One result for a reader."""
    room = f"{result['headroom']:.3f} ± {result['headroom_standard_error']:.3f} nats"
    verdict = f"no headroom ({room})"
    if result["has_headroom"]:
        own = (
            f"{result['regret']:.3f} ± {result['regret_standard_error']:.3f}, deployed {result['regret_deployed']:.3f}"
        )
        verdict = f"regret {own}; headroom {room}"
    lines = [f"{result['name']} seed {result['seed']}: {verdict}"]
    for name, order in result["orders"].items():
        first = f"  parents first {result['parents_first'][name]:.2f}" if "parents_first" in result else ""
        lines.append(f"  {name:<9}{', '.join(order)}{first}")
    shown = result["above_truth" if "above_truth" in result else "retrained"]
    what = "nats above the truth" if "above_truth" in result else "nats a row"
    figures = "  ".join(f"{name} {v['mean']:.3f} ± {v['standard_error']:.3f}" for name, v in shown.items())
    paired = "  ".join(
        f"{name} {v['mean']:+.3f} ± {v['standard_error']:.3f}" for name, v in result["learned_minus"].items()
    )
    return "\n".join([*lines, f"  retrained, {what}: {figures}", f"  learned minus: {paired}"])


def closing(report: Fields) -> str:
    """Everything again, and the largest regret."""
    lines = [as_text(result) for result in [*report["networks"], *report["tables"]]]
    largest = "no headroom anywhere" if report["regret_max"] is None else f"{report['regret_max']:.3f}"
    return "\n".join([*lines, f"largest regret where there is headroom ({report['num_with_headroom']}): {largest}"])


def rows_of(problem: Problem, split: str) -> Tensor:
    return as_rows(getattr(problem.dataset, split), limit=problem.rows).x


def law_of(order: Tensor) -> Tensor:
    """Log-weights [L] under which sigma [L] is certain."""
    return torch.zeros(len(order)).index_copy_(0, order, -FAR_APART * torch.arange(len(order)))


def train_arm(
    recipe: Recipe, dataset: Dataset, name: str, *, kind: str, seed: int, work: Path, fixed: list[int] | None = None
) -> Network:
    fields = recipe.model_dump(mode="json")
    fields["seed"] = seed
    fields["order"] |= {"kind": kind, "fixed": fixed}
    print(f"{recipe.name}: training {name}", file=sys.stderr, flush=True)
    trained = train(Recipe.model_validate(fields), dataset, work=work / f"{name}.run")
    assert trained is not None, "run in one process"
    return trained.denoiser


if __name__ == "__main__":
    main()
