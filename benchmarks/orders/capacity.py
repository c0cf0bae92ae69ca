"""Does a learned order gain more on a smaller network? The gain against four sizes on Adult, at equal forwards.

    python -m benchmarks capacity [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--plot FILE]

For each size and seed a uniform and a global arm, masked networks both, as of `benchmarks/domains/tables.py` with
`--masked`, whose arms of 86,000 parameters are taken from DIR if they are there. The gain is paired, row by row on
evenly spaced test rows: NELBO of the uniform net under random orders minus that of the global net under its learned
law, and minus its exact cost along the order it deploys. For each seed a line is fitted to the gains against log10 of
the number of parameters; the interval of its slope is Student's over seeds. A negative slope means that smaller
networks gain more. Budget and learning rate are the same.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.domains.problems.tables import ADULT, PARAMETERS, SHARE, budget, load, pair
from unveil.training.evaluation.comparison_orders import Law
from unveil.training.evaluation.likelihood import Estimate, as_rows, nelbo

SEED = 1994
SIZES = (4_000, 10_000, 28_000, PARAMETERS)
TEST_ROWS, QUICK_ROWS = 1536, 128
BOUND, GREEDY = "learned law (NELBO)", "greedy order (exact)"


def main() -> None:
    parser = arguments(__doc__, work="runs/tables", seeds=3)
    parser.add_argument("--plot", type=Path, help="a PNG of the gains")
    given = parser.parse_args()
    common: Fields = {"problem": "capacity", "data": ADULT, "share": SHARE, "work": str(given.work)}
    common["budget"] = budget(load(ADULT), quick=given.quick)
    common["rows"] = QUICK_ROWS if given.quick else TEST_ROWS
    tasks = [{**common, "size": size, "seed": seed} for size in SIZES for seed in range(given.seeds)]
    report = summary(run_all(measure, tasks, folder=given.work, jobs=given.jobs))
    if given.plot is not None:
        plot(report, given.plot)
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def measure(task: Fields) -> Fields:
    """Both arms of one size and seed."""
    dataset = load(task["data"])
    nets = pair(task, dataset)
    rows, law = as_rows(dataset.test, limit=task["rows"]), Law(nets["global"])
    uniform = nelbo(nets["uniform"], rows, torch.zeros(rows.x.shape[1]), seed=SEED)
    learned = {BOUND: law.nelbo(nets["global"], rows, seed=SEED), GREEDY: law.greedy(nets["global"], rows)}
    return {
        "size": task["size"],
        "seed": task["seed"],
        "parameters": nets["uniform"].num_parameters,
        "rows": len(rows),
        "uniform": asdict(Estimate.of(uniform)),
        "learned": {name: asdict(Estimate.of(value)) for name, value in learned.items()},
        "gain": {name: asdict(Estimate.of(uniform - value)) for name, value in learned.items()},
    }


def summary(results: Sequence[Fields]) -> Fields:
    """Gains over seeds at each size, and the slope over sizes."""
    sizes = []
    for size in sorted({result["size"] for result in results}):
        own = [result for result in results if result["size"] == size]
        sizes.append(
            {
                "parameters": own[0]["parameters"],
                "uniform": interval([result["uniform"]["mean"] for result in own]),
                "gain": {name: interval([r["gain"][name]["mean"] for r in own]) for name in (BOUND, GREEDY)},
            }
        )
    slopes = {name: interval(_slopes(results, name)) for name in (BOUND, GREEDY)}
    return {
        "sizes": sizes,
        "slope": slopes,
        "results": list(results),
        "share": SHARE,
        "torch": torch.__version__,
    }


def _slopes(results: Sequence[Fields], name: str) -> list[float]:
    """Each seed's slope: nats of gain for ten times the parameters."""
    slopes = []
    for seed in sorted({result["seed"] for result in results}):
        own = [result for result in results if result["seed"] == seed]
        x = np.log10([result["parameters"] for result in own])
        slopes.append(float(np.polyfit(x, [result["gain"][name]["mean"] for result in own], 1)[0]))
    return slopes


def plot(report: Fields, path: Path) -> None:
    """Gain of each seed against size, and the means."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, name in enumerate((BOUND, GREEDY)):
        for points, marker, label in ((report["results"], ".", None), (report["sizes"], "_-", name)):
            x = [point["parameters"] for point in points]
            y = [point["gain"][name]["mean"] for point in points]
            axes.plot(x, y, marker, color=f"C{number}", label=label)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([size["parameters"] for size in report["sizes"]])
    axes.set_xticklabels([f"{size['parameters']:,}" for size in report["sizes"]])
    axes.minorticks_off()
    axes.set_xlabel("parameters")
    axes.set_ylabel("gain over uniform orders, nats a row")
    axes.set_title("Adult, test rows")
    axes.legend()
    figure.savefig(path, dpi=120)


def as_text(report: Fields) -> str:
    """A Markdown table."""
    lines = [f"| parameters | uniform, nats a row | gain, {BOUND} | gain, {GREEDY} |", "|---|---|---|---|"]
    for size in report["sizes"]:
        gains = " | ".join(with_interval(size["gain"][name], "+.4f") for name in (BOUND, GREEDY))
        lines.append(f"| {size['parameters']:,} | {size['uniform']['mean']:.4f} | {gains} |")
    slopes = " | ".join(with_interval(report["slope"][name], "+.4f") for name in (BOUND, GREEDY))
    return "\n".join([*lines, f"| slope a tenfold size | | {slopes} |"])


if __name__ == "__main__":
    main()
