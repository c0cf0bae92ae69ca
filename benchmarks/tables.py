"""Does a learned order help on real tables? Arms at equal forwards, scored on the same test rows with every control.

    python -m benchmarks.tables [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--table FILE[=SEEDS]]...
        [--no-adult] [--drop COLUMN]... [--categorical COLUMN]... [--also TABLE:KIND=SEEDS]... [--larger]
        [--no-fidelity]

Adult, and any CSV given. For each table and seed, nets of about 86,000 parameters (`--larger`: 340,000) with the same
bins, first weights and batches: `uniform` orders, no prompted rows; `global`, an order learned with the shipped
settings, a share of its rows prompted (`benchmarks/prompts.py` chose it); `fixed`, left to right with the global arm's
warm-up and share of uniform rows; and on some seeds `contextual`, its posterior's passes counted as forwards, so that
it takes fewer steps.

In nats a row on the first test rows, with common random numbers: each arm's NELBO under its own law and its exact cost
along the order it deploys; the uniform net also along the learned order, along an order of its own, searched on
validation rows within a stated number of forwards, from left to right, and by the margin heuristic. Negative
differences mean that the learned order, deployed, is better; intervals are Student's over seeds. The budget was chosen
on seed 100's validation rows.

Shape and Trend (sdmetrics, as TabDiff computes them) are of as many samples as there are training rows, drawn along the
deployed order of seed 0's global arm, and of the test rows, which are the ceiling. Results are kept in DIR, and found
again: remove DIR after a change to the method.

Bins and splits against the published: Adult's test file is the test split, as theirs; a tenth of the train file is
validation. Files are split 80/10/10 at random, which is not their split. Here a number is one of at most 32 bins fitted
on training rows and is drawn inside its bin by the training rows' quantiles; TabDiff models numbers as such. The
paper's bins are not known here, and nats depend on them, so only Shape and Trend can be set beside its figures.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.problems.fidelity import cut, decoded, real_rows, require_sdmetrics, sample, shape_and_trend
from benchmarks.problems.order_search import search_order
from benchmarks.problems.runs import Fields, arguments, interval, run_all, with_interval
from benchmarks.problems.tables import (
    LARGER,
    PARAMETERS,
    SHARE,
    add_tables,
    arm,
    budget,
    description,
    load,
    tables_of,
    trained,
)
from model.network import Network
from model.orders import order_entropy
from training.controls import Law
from training.data.dataset import Dataset
from training.evaluate import Estimate, Rows, as_rows, log_likelihood, nelbo, policy_log_likelihood

SEED = 1994  # of the evaluation's orders and of the samples
TEST_CELLS, QUICK_CELLS = 23_040, 1920  # 1,536 test rows of Adult, fewer of a wider table
ALSO = {"fixed": 5, "contextual": 2}  # arms that need not be trained with every seed: on how many they are
SEARCH_ROWS, SEARCH_SETS = 512, 100  # validation rows and prefix sets of the search for an order
LEARNED = "global, its deployed order (exact)"
BOUND = "global, its law (NELBO)"
RIVALS = (
    "uniform, random orders (NELBO)",
    "uniform, the learned order (exact)",
    "uniform, an order searched for it (exact)",
    "uniform, left to right (exact)",
    "fixed, left to right (exact)",
)
PUBLISHED = {
    "adult": {"paper (86K)": (0.9878, 0.9778), "TabDiff (10M)": (0.9937, 0.9851)},
    "default": {"paper (86K)": (0.9830, 0.9705), "TabDiff (10M)": (0.9876, 0.9745)},
    "shoppers": {"paper (86K)": (0.9832, 0.9710), "TabDiff (10M)": (0.9922, 0.9924)},
}  # (Shape, Trend): arXiv 2511.19152, its ~86K-parameter model, and the figures of TabDiff that it quotes


def main() -> None:
    parser = add_tables(arguments(__doc__, work="runs/tables", seeds=5))
    parser.add_argument(
        "--also", action="append", default=[], metavar="TABLE:KIND=SEEDS", help="seeds of a table with arm KIND"
    )
    parser.add_argument("--no-fidelity", action="store_true", help="no Shape and Trend: they take sdmetrics")
    parser.add_argument("--larger", action="store_true", help=f"nets of about {LARGER:,} parameters")
    given = parser.parse_args()
    if not given.no_fidelity:
        require_sdmetrics()
    also, tables = _also(given.also), tables_of(given)
    reports = []
    for table, seeds, dataset in tables:
        common = _common(table, dataset, quick=given.quick, work=given.work) | (
            {"size": LARGER} if given.larger else {}
        )
        counts = {kind: also.get((dataset.name, kind), number) for kind, number in ALSO.items()}
        tasks = [_task(common, seed, counts) for seed in range(seeds)]
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
        "samples": 300 if quick else None,
        "work": str(work),
    }


def _also(texts: Sequence[str]) -> dict[tuple[str, str], int]:
    """Numbers of seeds by table and kind. Exits with one line."""
    found = {}
    for text in texts:
        match = re.fullmatch(r"(.+):(\w+)=(\d+)", text)
        if match is None or match[2] not in ALSO:
            raise SystemExit(f"error: --also {text}: takes TABLE:KIND=SEEDS, KIND one of {', '.join(ALSO)}")
        found[match[1], match[2]] = int(match[3])
    return found


def _task(common: Fields, seed: int, counts: Mapping[str, int]) -> Fields:
    also = [kind for kind, number in counts.items() if seed < number]
    return {**{k: v for k, v in common.items() if k != "samples"}, "seed": seed, "kinds": ["uniform", "global", *also]}


def _fidelity_task(common: Fields) -> Fields:
    dropped = ("rows", "search", "problem")
    return {
        **{k: v for k, v in common.items() if k not in dropped},
        "problem": common["problem"] + "-fidelity",
        "seed": 0,
    }


def arms_of(task: Fields) -> dict[str, Fields]:
    """The arms of a seed by kind. Only learned orders have prompted rows: uniform ones meet every prompt anyway."""
    own = {"data": task["data"], "seed": task["seed"], "budget": task["budget"], "size": task.get("size", PARAMETERS)}
    shares = {"global": task["share"], "contextual": task["share"]}
    kinds = task.get("kinds", ["global"])
    return {kind: arm(kind, share=shares.get(kind, 0.0), **own) for kind in kinds}


def measure(task: Fields) -> Fields:
    """All arms of one seed of one table."""
    dataset = load(task["data"])
    nets = {kind: trained(spec, dataset, work=Path(task["work"])) for kind, spec in arms_of(task).items()}
    rows = as_rows(dataset.test, limit=task["rows"])
    order = Law(nets["global"]).order()
    chosen, chosen_cost = _searched(nets["uniform"], dataset, order, task)
    values = score(nets, rows, order=order, chosen=chosen)
    minus = {LEARNED: [name for name in values if name not in (LEARNED, BOUND)], BOUND: [RIVALS[0]]}
    return {
        "seed": task["seed"],
        "rows": len(rows),
        "budget": task["budget"],
        "search": task["search"],
        "parameters": {kind: net.num_parameters for kind, net in nets.items()},
        "orders": {
            "learned": [dataset.names[i] for i in order],
            "searched for the uniform net": [dataset.names[i] for i in chosen],
        },
        "searched_validation_nats": chosen_cost,
        "order_entropy": float(order_entropy(Law(nets["global"]).log_w)),
        "nats": {name: asdict(Estimate.of(value)) for name, value in values.items()},
        "learned_minus": {
            learned: {rival: asdict(Estimate.of(values[learned] - values[rival])) for rival in rivals}
            for learned, rivals in minus.items()
        },
    }


def _searched(net: Network, dataset: Dataset, learned: Sequence[int], task: Fields) -> tuple[list[int], float]:
    """The uniform net's own order, chosen on validation rows: from the learned, left to right and the greedy order."""
    rows = as_rows(dataset.validation, limit=task["search"]["rows"])
    starts = [list(learned), list(range(len(learned)))]
    return search_order(net, rows, starts=starts, max_sets=task["search"]["sets"], seed=task["seed"])


def score(nets: dict[str, Network], rows: Rows, *, order: Sequence[int], chosen: Sequence[int]) -> dict[str, Tensor]:
    """Each row's cost in nats [N] for each arm under its own law, and for every control."""
    uniform, learned = nets["uniform"], nets["global"]
    law = Law(learned)
    left_to_right = list(range(len(order)))
    values = {
        LEARNED: law.deployed(learned, rows),
        BOUND: law.nelbo(learned, rows, seed=SEED),
        "global, that order reversed (exact)": law.reversed_deployed(learned, rows),
        RIVALS[0]: nelbo(uniform, rows, torch.zeros(len(order)), seed=SEED),
        RIVALS[1]: law.deployed(uniform, rows),
        RIVALS[2]: -log_likelihood(uniform, rows, chosen),
        RIVALS[3]: -log_likelihood(uniform, rows, left_to_right),
        "uniform, margin heuristic (exact)": -policy_log_likelihood(uniform, rows, "margin"),
    }
    if "fixed" in nets:
        values[RIVALS[4]] = -log_likelihood(nets["fixed"], rows, left_to_right)
    if "contextual" in nets:
        policy = Law(nets["contextual"])
        values["contextual, its law (NELBO)"] = policy.nelbo(nets["contextual"], rows, seed=SEED)
        values["contextual, its deployed order (exact)"] = policy.deployed(nets["contextual"], rows)
    return values


def fidelity(task: Fields) -> Fields:
    """Shape and Trend against the training rows: of the global arm's samples, of real test rows, and of the training
    rows themselves when numbers are known by their bins alone."""
    dataset = load(task["data"])
    (spec,) = arms_of(task).values()
    net = trained(spec, dataset, work=Path(task["work"]))
    tokenizer: Any = dataset.tokenizer
    real = real_rows(task["data"], tokenizer)
    limit = task["samples"] or len(dataset.train)
    ids = sample(net, order=Law(net).order(), rows=limit, seed=SEED)
    shown = {
        "samples": decoded(ids, tokenizer, seed=SEED),
        "real test rows": real["test"],
        "training rows through the bins": decoded(dataset.train[:limit], tokenizer, seed=SEED),
    }
    categorical = [column.name for column in tokenizer.columns if column.kind == "categorical"]
    return {
        name: shape_and_trend(cut(real["train"], limit), cut(other, limit), categorical=categorical)
        for name, other in shown.items()
    }


def report(dataset: Dataset, results: Sequence[Fields], likeness: Sequence[Fields]) -> Fields:
    """A table's seeds, and what holds over them."""
    over: Fields = {}
    for learned in (LEARNED, BOUND):
        rivals = {rival: None for result in results for rival in result["learned_minus"][learned]}
        over[learned] = {
            rival: interval([r["learned_minus"][learned][rival]["mean"] for r in results if rival in r["nats"]])
            for rival in rivals
        }
    against = [over[LEARNED].get(rival) for rival in RIVALS]
    names = {name: None for result in results for name in result["nats"]}
    return {
        **description(dataset),
        "seeds": list(results),
        "nats": {name: interval([r["nats"][name]["mean"] for r in results if name in r["nats"]]) for name in names},
        "learned_minus": over,
        "learned_beats_all": all(found and found["high"] is not None and found["high"] < 0 for found in against),
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
        difference = table["learned_minus"][LEARNED].get(name)
        lines.append(f"| {name} | {value['mean']:.4f} | {'' if difference is None else as_interval(difference)} |")
    verdict = "below all of its rivals" if table["learned_beats_all"] else "not below all of its rivals"
    bound = as_interval(table["learned_minus"][BOUND][RIVALS[0]])
    after = f"The learned order is {verdict}. NELBO, learned law minus random orders: {bound}."
    first = f"Learned order, seed {seeds[0]['seed']}: {', '.join(map(str, seeds[0]['orders']['learned']))}."
    blocks = [head, "\n".join(lines), after, first]
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
