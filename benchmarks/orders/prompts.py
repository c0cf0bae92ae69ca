"""What does a learned order cost a user's prompts? The arms of `benchmarks/domains/tables.py`, given random known sets.

    python -m benchmarks prompts [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--plot FILE]
        [--no-adult] [--table FILE[=SEEDS]]... [--drop COLUMN]... [--categorical COLUMN]... [--masked]

On evenly spaced test rows, paired by row: the NELBO of the hidden columns given a random known set (|C| ~ U{0..L-1}, C
uniform given its size), a hidden column, of the global arm minus the uniform one; once with both under uniform orders
of what is hidden, once with each under its own law of it, as it is deployed. And the accuracy of guessing each single
column from all others, in points. Goals: the upper 95 % limits over seeds at most .01 nat and .5 points.

The share of prompted rows is chosen by a curve on Adult's validation rows, with other seeds: for each share the gain of
the learned law without a prompt (uniform NELBO minus its own) beside its price with one. Arms are taken from DIR if
they are there.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.domains.problems.tables import (
    ADULT,
    SHARE,
    add_tables,
    budget,
    load,
    pair,
    query_layers_of,
    tables_of,
)
from unveil.model.network.base import Network
from unveil.training.data.dataset import Dataset
from unveil.training.evaluation.comparison_orders import Law
from unveil.training.evaluation.likelihood import Estimate, Rows, as_rows, known_sets, nelbo

SEED = 1995  # of the known sets and the orders
TEST_CELLS, QUICK_CELLS = 23_040, 1920
SHARES, CURVE_SEEDS = (0.0, 0.1, 0.25, 0.5), (100,)
PRICE, OWN_PRICE, LOST_HITS = (
    "uniform orders, nats a hidden column",
    "own law, nats a hidden column",
    "accuracy lost, points",
)
GOALS = {PRICE: 0.01, OWN_PRICE: 0.01, LOST_HITS: 0.5}


def main() -> None:
    parser = add_tables(arguments(__doc__, work="runs/tables", seeds=5))
    parser.add_argument("--plot", type=Path, help="a PNG of the curve")
    given = parser.parse_args()
    tables = tables_of(given)
    curve = run_all(on_validation, _curve_tasks(given), folder=given.work, jobs=given.jobs)
    reports = []
    for table, seeds, dataset in tables:
        common = {**_common(table, dataset, given), "problem": f"prompts-{dataset.name}", "share": SHARE}
        tasks = [{**common, "seed": seed} for seed in range(seeds)]
        results = run_all(measure, tasks, folder=given.work, jobs=given.jobs)
        reports.append({"name": dataset.name, **summary(results)})
    full: Fields = {
        "curve": curve_of(curve),
        "share": SHARE,
        "tables": reports,
        "goals": GOALS,
        "torch": torch.__version__,
    }
    if given.plot is not None:
        plot(full["curve"], given.plot)
    print(json.dumps(full, indent=2) if given.json else as_text(full))


def _common(table: Fields, dataset: Dataset, given: Namespace) -> Fields:
    """What the tasks of a table share."""
    return {
        "data": table,
        "content": dataset.fingerprint,
        "budget": budget(dataset, quick=given.quick),
        "query_layers": query_layers_of(given),
        "rows": (QUICK_CELLS if given.quick else TEST_CELLS) // dataset.train.shape[1],
        "work": str(given.work),
    }


def _curve_tasks(given: Namespace) -> list[Fields]:
    common = {**_common(ADULT, load(ADULT), given), "problem": "prompts-curve"}
    seeds = CURVE_SEEDS[:1] if given.quick else CURVE_SEEDS
    return [{**common, "seed": seed, "share": share} for seed in seeds for share in SHARES]


def measure(task: Fields) -> Fields:
    """Price of one pair of arms on test rows."""
    dataset = load(task["data"])
    nets = pair(task, dataset)
    return {"seed": task["seed"], **price(nets, as_rows(dataset.test, limit=task["rows"]))}


def on_validation(task: Fields) -> Fields:
    """Gain and price of one share on validation rows."""
    dataset = load(task["data"])
    nets = pair(task, dataset)
    rows = as_rows(dataset.validation, limit=task["rows"])
    law = Law(nets["global"])
    uniform = nelbo(nets["uniform"], rows, torch.zeros(rows.x.shape[1]), seed=SEED)
    gain = uniform - law.nelbo(nets["global"], rows, seed=SEED)
    return {"seed": task["seed"], "share": task["share"], "gain": asdict(Estimate.of(gain)), **price(nets, rows)}


def price(nets: dict[str, Network], rows: Rows) -> Fields:
    """What the global net loses to the uniform one, paired by row; positive is lost."""
    known = known_sets(rows, seed=SEED)
    own = {kind: conditional(net, rows, known, Law(net).log_w) for kind, net in nets.items()}
    plain = {kind: conditional(net, rows, known, torch.zeros(rows.x.shape[1])) for kind, net in nets.items()}
    right = {kind: hits(net, rows) for kind, net in nets.items()}
    lost = {
        PRICE: plain["global"] - plain["uniform"],
        OWN_PRICE: own["global"] - own["uniform"],
        LOST_HITS: 100 * (right["uniform"] - right["global"]).mean(1),
    }
    return {
        "rows": len(rows),
        "nats_a_hidden_column": {kind: asdict(Estimate.of(value)) for kind, value in plain.items()},
        "accuracy": {kind: float(value.mean()) for kind, value in right.items()},
        "lost": {name: asdict(Estimate.of(value)) for name, value in lost.items()},
    }


def conditional(net: Network, rows: Rows, known: Tensor, log_w: Tensor) -> Tensor:
    """Each row's NELBO given its known set [N, L], a hidden column: [N]."""
    return nelbo(net, rows, log_w, seed=SEED, known=known) / (~known).sum(-1)


@torch.inference_mode()
def hits(net: Network, rows: Rows) -> Tensor:
    """Whether each single column is guessed from all others: [N, L] of 0 and 1."""
    found = []
    for batch, _ in rows.batches():
        columns = []
        for position in range(rows.x.shape[1]):
            hidden = torch.zeros_like(batch.padding)
            hidden[:, position] = True
            logits = net(batch.x.masked_fill(hidden, 0), hidden, batch.lengths).token_logits[:, position]
            columns.append(logits.argmax(-1) == batch.x[:, position])
        found.append(torch.stack(columns, dim=1))
    return torch.cat(found).double()


def summary(results: Sequence[Fields]) -> Fields:
    """What is lost over seeds, and whether each goal is met by the interval's upper limit."""
    lost = {name: interval([result["lost"][name]["mean"] for result in results]) for name in GOALS}
    met = {name: found["high"] is not None and found["high"] <= GOALS[name] for name, found in lost.items()}
    return {"seeds": list(results), "lost": lost, "met": met}


def curve_of(results: Sequence[Fields]) -> list[Fields]:
    """One point a share: means over seeds on validation rows."""
    points = []
    for share in SHARES:
        own = [result for result in results if result["share"] == share]
        gains = [result["gain"]["mean"] for result in own]
        lost = {name: interval([result["lost"][name]["mean"] for result in own]) for name in GOALS}
        points.append({"share": share, "gain": interval(gains), "lost": lost, "seeds": own})
    return points


def plot(curve: Sequence[Fields], path: Path) -> None:
    """Gain against price, a point a share."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    prices = [point["lost"][PRICE]["mean"] for point in curve]
    gains = [point["gain"]["mean"] for point in curve]
    axes.plot(prices, gains, marker="o")
    for point, x, y in zip(curve, prices, gains, strict=True):
        axes.annotate(f" {point['share']:g}", (x, y))
    axes.axvline(GOALS[PRICE], color="grey", linestyle=":")
    axes.set_xlabel("price of prompts: nats a hidden column more than uniform")
    axes.set_ylabel("gain without a prompt: nats a row")
    axes.set_title("Adult, validation rows: share of prompted rows")
    figure.savefig(path, dpi=120)


def as_text(full: Fields) -> str:
    """Markdown tables."""
    lines = [
        f"| share of prompted rows | gained without a prompt, nats a row | {' | '.join(GOALS)} |",
        f"|{'---|' * 5}",
    ]
    for point in full["curve"]:
        lost = " | ".join(f"{found['mean']:+.4f}" for found in point["lost"].values())
        lines.append(f"| {point['share']:g} | {point['gain']['mean']:+.4f} | {lost} |")
    lines += ["", "| table | seeds | lost by learned orders | mean [95 %] | goal | met |", "|---|---|---|---|---|---|"]
    for table in full["tables"]:
        for name, found in table["lost"].items():
            met = "yes" if table["met"][name] else "no"
            row = (table["name"], found["seeds"], name, with_interval(found, "+.4f"), f"{GOALS[name]:g}", met)
            lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
