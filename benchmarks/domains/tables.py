"""Does a learned order help on real tables? Arms at equal forwards, scored on the same test rows with every control.

    python -m benchmarks tables [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--table FILE[=SEEDS]]...
        [--no-adult] [--drop COLUMN]... [--categorical COLUMN]... [--masked] [--larger] [--no-fidelity]

Adult, and any CSV given. For each table and seed, nets of about 86,000 parameters (`--larger`: 340,000) with the same
bins, first weights and batches:

- `uniform` orders, a masked network, no prompted rows;
- `global`, an order learned with the shipped settings, a share of its rows prompted (`benchmarks/orders/prompts.py`
  chose it); the network has late queries, with as many layers and parameters; with `--masked` it is a masked one too;
- `fixed`, an order that is decided and not learned: left to right, and three random ones, drawn anew for each seed. All
  else is as in the global arm: network, warm-up, share of uniform rows, share of prompted rows. So what the learned
  order gains over the random ones is owed to learning it, and what these gain over uniform orders to deciding on one;
- `fixed`, left to right without prompted rows, which the learned arm has: a stronger rival on rows without a prompt.

In nats a row on evenly spaced test rows, with common random numbers: each arm's NELBO under its own law and its exact
cost along the order it deploys; the uniform net also along the learned order, along an order of its own, searched on
validation rows within a stated number of forwards, from left to right, and by the margin heuristic. Negative
differences mean that the learned order, deployed, is better; intervals are Student's over seeds. The budget was chosen
on seed 100's validation rows.

A NELBO is a mean over orders of -log p, above the cost -log of the mean of p of a model that draws its order. So the
uniform and the global net are also scored as mixtures of 16 orders drawn from their laws, the same 16 for all rows:
exact costs of models that draw one of the 16. For a mixture over all orders they are still upper bounds on average.

Shape and Trend (sdmetrics, as TabDiff computes them) are of as many samples as there are training rows, drawn along the
greedy order of seed 0's global arm, and of the test rows, which are the ceiling. Results are kept in DIR, and found
again: remove DIR after a change to the method.

Bins and splits against the published: Adult's test file is the test split, as theirs; a tenth of the train file is
validation. Files are split 80/10/10 at random, which is not their split. Here a number is one of at most 32 bins fitted
on training rows and is drawn inside its bin by the training rows' quantiles; TabDiff models numbers as such. The
paper's bins are not known here, and nats depend on them, so only Shape and Trend can be set beside its figures.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.domains.problems.fidelity import cut, require_sdmetrics, shape_and_trend
from unveil.benchmarks.domains.problems.mixture import drawn_orders, mixture_log_likelihood
from unveil.benchmarks.domains.problems.tables import (
    LARGER,
    PARAMETERS,
    SHARE,
    add_tables,
    arm,
    budget,
    config_of,
    description,
    load,
    query_layers_of,
    tables_of,
    trained,
)
from unveil.benchmarks.orders.problems.order_search import search_order
from unveil.commands.training import cache_folder
from unveil.model.network.base import Network
from unveil.model.order.plackett_luce import order_entropy
from unveil.training.data.dataset import Dataset
from unveil.training.data.rows import evenly_spaced
from unveil.training.evaluation.comparison_orders import Law
from unveil.training.evaluation.judging.rows import decoded, real_rows, sample
from unveil.training.evaluation.likelihood import Estimate, Rows, as_rows, log_likelihood, nelbo, policy_log_likelihood

SEED = 1994  # of the evaluation's orders and of the samples
TEST_CELLS, QUICK_CELLS = 23_040, 1920  # 1,536 test rows of Adult, fewer of a wider table
SEARCH_ROWS, SEARCH_SETS = 512, 100  # validation rows and prefix sets of the search for an order
MIXTURE = 16  # orders of a mixture
RANDOM = tuple(f"random {number}" for number in (1, 2, 3))  # arms along fixed random orders
LEFT_TO_RIGHT, UNPROMPTED = "left to right", "left to right, no prompted rows"
LEARNED = "global, its greedy order (exact)"
BOUND = "global, its law (NELBO)"
LEARNED_MIXTURE = f"global, mixture of {MIXTURE} orders of its law (exact)"
UNIFORM_BOUND = "uniform, random orders (NELBO)"
UNIFORM_MIXTURE = f"uniform, mixture of {MIXTURE} orders (exact)"
DECIDED = f"fixed, mean of {len(RANDOM)} random orders (exact)"
RIVALS = (
    UNIFORM_BOUND,
    UNIFORM_MIXTURE,
    "uniform, the learned order (exact)",
    "uniform, an order searched for it (exact)",
    "uniform, left to right (exact)",
    "uniform, margin heuristic (exact)",
    f"fixed, {LEFT_TO_RIGHT} (exact)",
    f"fixed, {UNPROMPTED} (exact)",
    DECIDED,
)
PUBLISHED = {
    "adult": {"paper (86K)": (0.9878, 0.9778), "TabDiff (10M)": (0.9937, 0.9851)},
    "default": {"paper (86K)": (0.9830, 0.9705), "TabDiff (10M)": (0.9876, 0.9745)},
    "shoppers": {"paper (86K)": (0.9832, 0.9710), "TabDiff (10M)": (0.9922, 0.9924)},
}  # (Shape, Trend): arXiv 2511.19152, its ~86K-parameter model, and the figures of TabDiff that it quotes


def main() -> None:
    parser = add_tables(arguments(__doc__, work="runs/tables", seeds=5))
    parser.add_argument("--no-fidelity", action="store_true", help="no Shape and Trend: they take sdmetrics")
    parser.add_argument("--larger", action="store_true", help=f"nets of about {LARGER:,} parameters")
    given = parser.parse_args()
    if not given.no_fidelity:
        require_sdmetrics()
    tables = tables_of(given)
    reports = []
    for table, seeds, dataset in tables:
        common = _common(table, dataset, quick=given.quick, work=given.work) | {"query_layers": query_layers_of(given)}
        common |= {"size": LARGER} if given.larger else {}
        tasks = [{**{k: v for k, v in common.items() if k != "samples"}, "seed": seed} for seed in range(seeds)]
        results = run_all(measure, tasks, folder=given.work, jobs=given.jobs)
        likeness = [] if given.no_fidelity else run_all(fidelity, [_fidelity_task(common)], folder=given.work, jobs=1)
        reports.append(report(dataset, results, likeness))
    full = {"tables": reports, "share": SHARE, "torch": torch.__version__}
    print(json.dumps(full, indent=2) if given.json else as_text(full))


def _common(table: Fields, dataset: Dataset, *, quick: bool, work: Path) -> Fields:
    """What the tasks of a table share."""
    cells, search_rows, sets = (QUICK_CELLS, 64, 60) if quick else (TEST_CELLS, SEARCH_ROWS, SEARCH_SETS)
    return {
        "problem": f"tables-{dataset.name}",
        "data": table,
        "content": dataset.fingerprint,
        "budget": budget(dataset, quick=quick),
        "share": SHARE,
        "rows": min(cells // dataset.train.shape[1], len(dataset.test)),
        "search": {"rows": search_rows, "sets": sets},
        "mixture": MIXTURE,
        "samples": 300 if quick else None,
        "work": str(work),
    }


def _fidelity_task(common: Fields) -> Fields:
    dropped = ("rows", "search", "mixture", "problem")
    return {
        **{k: v for k, v in common.items() if k not in dropped},
        "problem": common["problem"] + "-fidelity",
        "seed": 0,
    }


def arms_of(task: Fields, length: int) -> dict[str, Fields]:
    """The arms of a seed by name. Uniform orders have no prompted rows: they meet every known set anyway."""
    own = {"data": task["data"], "seed": task["seed"], "budget": task["budget"], "size": task.get("size", PARAMETERS)}
    left_to_right, asked = list(range(length)), {"query_layers": task["query_layers"], **own}
    orders = {LEFT_TO_RIGHT: left_to_right} | {
        name: np.random.default_rng([SEED, task["seed"], number]).permutation(length).tolist()
        for number, name in enumerate(RANDOM)
    }
    return {
        "uniform": arm("uniform", **own),
        "global": arm("global", share=task["share"], **asked),
        **{name: arm("fixed", share=task["share"], fixed=order, **asked) for name, order in orders.items()},
        UNPROMPTED: arm("fixed", fixed=left_to_right, **asked),
    }


def measure(task: Fields) -> Fields:
    """All arms of one seed of one table."""
    dataset = load(task["data"])
    arms = arms_of(task, dataset.train.shape[1])
    nets = {name: trained(spec, dataset, work=Path(task["work"])) for name, spec in arms.items()}
    fixed = {name: spec["fixed"] for name, spec in arms.items() if spec["kind"] == "fixed"}
    rows = as_rows(dataset.test, limit=task["rows"])
    order = Law(nets["global"]).order()
    chosen, chosen_cost = _searched(nets["uniform"], dataset, order, task)
    values = score(nets, rows, order=order, chosen=chosen, fixed=fixed, mixture=task["mixture"])
    orders = {"learned": order, "searched for the uniform net": chosen, **{name: fixed[name] for name in RANDOM}}
    return {
        "seed": task["seed"],
        "rows": len(rows),
        "budget": task["budget"],
        "search": task["search"],
        "mixture": task["mixture"],
        "parameters": {name: net.num_parameters for name, net in nets.items()},
        "orders": {name: [dataset.names[i] for i in sigma] for name, sigma in orders.items()},
        "searched_validation_nats": chosen_cost,
        "order_entropy": float(order_entropy(Law(nets["global"]).log_w)),
        "nats": {name: asdict(Estimate.of(value)) for name, value in values.items()},
        "minus": {
            name: {rival: asdict(Estimate.of(values[name] - values[rival])) for rival in rivals}
            for name, rivals in _compared(list(values)).items()
        },
    }


def _compared(names: Sequence[str]) -> dict[str, list[str]]:
    """Minus what each figure is reported: the greedy order minus all others, laws and mixtures minus uniform ones,
    and orders that are decided but not learned minus those that are not decided."""
    return {
        LEARNED: [name for name in names if name not in (LEARNED, BOUND, LEARNED_MIXTURE)],
        BOUND: [UNIFORM_BOUND],
        LEARNED_MIXTURE: [UNIFORM_MIXTURE],
        DECIDED: [UNIFORM_BOUND, UNIFORM_MIXTURE],
    }


def _searched(net: Network, dataset: Dataset, learned: Sequence[int], task: Fields) -> tuple[list[int], float]:
    """The uniform net's own order, chosen on validation rows: from the learned, left to right and the greedy order."""
    rows = as_rows(dataset.validation, limit=task["search"]["rows"])
    starts = [list(learned), list(range(len(learned)))]
    return search_order(net, rows, starts=starts, max_sets=task["search"]["sets"], seed=task["seed"])


def score(
    nets: dict[str, Network],
    rows: Rows,
    *,
    order: Sequence[int],
    chosen: Sequence[int],
    fixed: Mapping[str, Sequence[int]],
    mixture: int,
) -> dict[str, Tensor]:
    """Each row's cost in nats [N] for each arm under its own law, and for every control. `order` is the learned one,
    `chosen` the one searched for the uniform net, `fixed` those of the fixed arms."""
    uniform, learned = nets["uniform"], nets["global"]
    law, nothing = Law(learned), torch.zeros(len(order))
    along = {name: -log_likelihood(nets[name], rows, sigma) for name, sigma in fixed.items()}

    def mixed(net: Network, log_w: Tensor) -> Tensor:
        return -mixture_log_likelihood(net, rows, drawn_orders(log_w, mixture, seed=SEED))

    return {
        LEARNED: law.greedy(learned, rows),
        BOUND: law.nelbo(learned, rows, seed=SEED),
        LEARNED_MIXTURE: mixed(learned, law.log_w),
        "global, that order reversed (exact)": law.reversed_greedy(learned, rows),
        UNIFORM_BOUND: nelbo(uniform, rows, nothing, seed=SEED),
        UNIFORM_MIXTURE: mixed(uniform, nothing),
        RIVALS[2]: law.greedy(uniform, rows),
        RIVALS[3]: -log_likelihood(uniform, rows, chosen),
        RIVALS[4]: -log_likelihood(uniform, rows, list(range(len(order)))),
        RIVALS[5]: -policy_log_likelihood(uniform, rows, "margin"),
        **{f"fixed, {name} (exact)": value for name, value in along.items()},
        DECIDED: torch.stack([along[name] for name in RANDOM]).mean(0),
    }


def fidelity(task: Fields) -> Fields:
    """Shape and Trend against the training rows: of the global arm's samples, of real test rows, and of the training
    rows themselves when numbers are known by their bins alone."""
    dataset = load(task["data"])
    spec = arms_of(task, dataset.train.shape[1])["global"]
    net = trained(spec, dataset, work=Path(task["work"]))
    tokenizer: Any = dataset.tokenizer
    real = real_rows(config_of(task["data"]), tokenizer, cache=cache_folder())
    limit = task["samples"] or len(dataset.train)
    some = evenly_spaced(len(dataset.train), limit)
    ids = sample(net, order=Law(net).order(), rows=limit, seed=SEED)
    shown = {
        "samples": decoded(ids, tokenizer, seed=SEED),
        "real test rows": real["test"],
        "training rows through the bins": decoded(dataset.train[some], tokenizer, seed=SEED),
    }
    categorical = [column.name for column in tokenizer.columns if column.kind == "categorical"]
    return {
        name: shape_and_trend(cut(real["train"], limit), cut(other, limit), categorical=categorical)
        for name, other in shown.items()
    }


def report(dataset: Dataset, results: Sequence[Fields], likeness: Sequence[Fields]) -> Fields:
    """A table's seeds, and what holds over them."""
    over = {
        name: {
            rival: interval([result["minus"][name][rival]["mean"] for result in results])
            for rival in results[0]["minus"][name]
        }
        for name in results[0]["minus"]
    }
    against = [over[LEARNED][rival] for rival in RIVALS]
    return {
        **description(dataset),
        "seeds": list(results),
        "nats": {name: interval([r["nats"][name]["mean"] for r in results]) for name in results[0]["nats"]},
        "minus": over,
        "learned_beats_all": all(found["high"] is not None and found["high"] < 0 for found in against),
        "fidelity": likeness[0] if likeness else None,
        "published": PUBLISHED.get(dataset.name),
    }


def as_text(full: Fields) -> str:
    """Markdown tables."""
    return "\n\n".join(block for table in full["tables"] for block in _blocks(table))


def _blocks(table: Fields) -> list[str]:
    seeds = table["seeds"]
    sizes = ", ".join(f"{kind} {number:,}" for kind, number in seeds[0]["parameters"].items())
    head = f"{table['name']}: {seeds[0]['rows']:,} test rows, seeds 0 to {len(seeds) - 1}; parameters: {sizes}."
    lines = ["| nats a row | mean over seeds | deployed learned order minus it [95 %] |", "|---|---|---|"]
    for name, value in table["nats"].items():
        difference = table["minus"][LEARNED].get(name)
        lines.append(f"| {name} | {value['mean']:.4f} | {'' if difference is None else as_interval(difference)} |")
    verdict = "below all of its rivals" if table["learned_beats_all"] else "not below all of its rivals"
    after = [f"The learned order is {verdict}.", ""]
    for name in (BOUND, LEARNED_MIXTURE, DECIDED):
        after += [f"- {name} minus {rival}: {as_interval(found)}" for rival, found in table["minus"][name].items()]
    first = f"Learned order, seed {seeds[0]['seed']}: {', '.join(map(str, seeds[0]['orders']['learned']))}."
    blocks = [head, "\n".join(lines), "\n".join(after), first]
    return [*blocks, _fidelity_block(table)] if table["fidelity"] else blocks


def _fidelity_block(table: Fields) -> str:
    lines = ["| against the training rows | rows | Shape | Trend |", "|---|---|---|---|"]
    for name, found in table["fidelity"].items():
        lines.append(f"| {name} | {found['rows']:,} | {found['shape']:.4f} | {found['trend']:.4f} |")
    lines += [f"| {name} | | {s:.4f} | {t:.4f} |" for name, (s, t) in (table["published"] or {}).items()]
    return "\n".join(lines)


def as_interval(found: Fields) -> str:
    """A mean with its interval, signed."""
    return with_interval(found, "+.4f", alone=" (one seed)")


if __name__ == "__main__":
    main()
