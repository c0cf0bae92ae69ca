"""How well are missing cells filled in? One net for all columns against boosted trees for each, and the mode.

    python -m benchmarks.imputation [--quick] [--seeds N] [--json] [--work DIR] [--jobs N]
        [--table FILE[=SEEDS]]... [--drop COLUMN]... [--categorical COLUMN]...

Adult, and any table given. Of the first test rows a share of all cells is hidden, each by chance alone (MCAR), another
mask for each seed; cells that are missing in the file are never scored. On the same cells, all at the resolution of the
table's at most 32 bins:

- `unveil`: a net of about 86,000 parameters with the shipped settings, learned order, a quarter of its rows prompted;
  one forward gives each hidden cell's law given all that is known, and a missing value is never offered, as
  `unveil impute` has it. `unveil, filled in its order` is what `unveil impute --mode` writes: cell after cell, each
  given the ones before.
- `boosting`: scikit-learn's HistGradientBoostingClassifier, one for each column, from all other columns, trained on
  training rows of which the same share of cells is hidden, since it takes missing inputs as they are. It stops early on
  a tenth of its rows.
- `mode`: the commonest value of each column in the training rows, its confidence that value's share there.

Accuracy (the likeliest value is right), ECE of the likeliest value's probability (15 bins of equal width), and nats a
cell. Differences are paired by row; intervals are Student's over seeds. Seconds of training are those of one core, data
read: both sides are trained in one run. Needs scikit-learn: `pip install 'unveil[bench]'`.
"""

import json
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.problems.runs import Fields, arguments, interval, run_all
from benchmarks.problems.tables import SHARE, add_tables, arm, arm_name, description, load, tables_of, trained
from model.canvas import Canvas, SamplingParams
from model.denoiser import Barring
from model.network import Network
from model.sampler import decode
from training.data.dataset import Dataset
from training.rows import Estimate

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

HIDDEN_SHARE = 0.2
CELLS, QUICK_CELLS = 60_000, 1_500  # of the test rows: 4,000 rows of Adult, fewer of a wider table
FILLED_ROWS, QUICK_FILLED_ROWS = 1_000, 20
BUDGET: Fields = {"steps": 2000, "cells": 3840}  # 256 rows of Adult a step
FOREST: Fields = {"rows": 20_000, "max_iter": 60, "learning_rate": 0.1, "max_leaf_nodes": 31}
QUICK_FOREST: Fields = {"rows": 300, "max_iter": 2, "learning_rate": 0.1, "max_leaf_nodes": 4}
ECE_BINS = 15
ARMS = ("unveil", "boosting", "mode")
RIVALS = ARMS[1:]
FILLED = "unveil, filled in its order"


@dataclass(frozen=True)
class Guesses:
    """For every scored cell, in the same order: the likeliest id, its probability, and the truth's."""

    likeliest: Ids
    confidence: Floats
    truth: Floats


def main() -> None:
    given = add_tables(arguments(__doc__, work="runs/imputation", seeds=3)).parse_args()
    if find_spec("sklearn") is None:
        raise SystemExit("error: the comparison takes scikit-learn: pip install 'unveil[bench]'")
    reports = []
    for table, seeds, dataset in tables_of(given):
        tasks = [_task(table, dataset, given, seed) for seed in range(seeds)]
        results = run_all(measure, tasks, folder=given.work, jobs=given.jobs)
        reports.append(report(dataset, results))
    full = {"tables": reports, "hidden_share": HIDDEN_SHARE, "torch": torch.__version__, "sklearn": _sklearn_version()}
    print(json.dumps(full, indent=2) if given.json else as_text(full))


def _task(table: Fields, dataset: Dataset, given: Namespace, seed: int) -> Fields:
    L = dataset.train.shape[1]
    steps, cells = (20, 960) if given.quick else (BUDGET["steps"], BUDGET["cells"])
    return {
        "problem": f"imputation-{dataset.name}",
        "data": table,
        "content": dataset.fingerprint,
        "budget": {"steps": steps, "batch_size": max(cells // L, 1)},
        "forest": QUICK_FOREST if given.quick else FOREST,
        "share": SHARE,
        "hidden_share": HIDDEN_SHARE,
        "rows": min((QUICK_CELLS if given.quick else CELLS) // L, len(dataset.test)),
        "filled_rows": QUICK_FILLED_ROWS if given.quick else FILLED_ROWS,
        "work": str(given.work),
        "seed": seed,
    }


def measure(task: Fields) -> Fields:
    """All arms of one seed on the same hidden cells."""
    dataset = load(task["data"])
    rows = dataset.test[: task["rows"]]
    hidden = _hide(rows, dataset, share=task["hidden_share"], seed=task["seed"])
    net, net_seconds = _net(task, dataset)
    guesses = {"unveil": by_net(net, dataset, rows, hidden), "mode": by_mode(dataset, rows, hidden)}
    started = time.process_time()
    guesses["boosting"] = by_boosting(dataset, rows, hidden, task)
    seconds = {"unveil": net_seconds, "boosting": time.process_time() - started}
    cut = slice(task["filled_rows"])
    filled = fill_in_order(net, dataset, rows[cut], hidden[cut], seed=task["seed"])
    return {
        "seed": task["seed"],
        "rows": len(rows),
        "cells": int(hidden.sum()),
        "budget": task["budget"],
        "forest": task["forest"],
        "parameters": net.num_parameters,
        "train_seconds": seconds,
        "arms": {name: _figures(guesses[name], rows[hidden]) for name in ARMS},
        "filled": _filled_figures(filled, guesses["unveil"], rows[cut], hidden[cut]),
        "columns": _by_column(guesses, rows, hidden, dataset),
        "unveil_minus": {rival: _paired(guesses["unveil"], guesses[rival], rows, hidden) for rival in RIVALS},
    }


def _net(task: Fields, dataset: Dataset) -> tuple[Network, float | None]:
    """The net and the seconds its training took, None where it was found trained."""
    spec = arm("global", data=task["data"], seed=task["seed"], budget=task["budget"], share=task["share"])
    work, started = Path(task["work"]), time.process_time()
    is_found = (work / "arms" / arm_name(spec, dataset) / "artifact").exists()
    net = trained(spec, dataset, work=work)
    return net, None if is_found else time.process_time() - started


def _hide(rows: Ids, dataset: Dataset, *, share: float, seed: int) -> Mask:
    """Cells hidden by chance alone [N, L]; a cell without a value in the file stays known to be missing."""
    by_chance = np.random.default_rng([seed, 2]).random(rows.shape) < share
    for position, token in _missing_ids(dataset).items():
        by_chance[:, position] &= rows[:, position] != token
    return by_chance


@torch.inference_mode()
def by_net(net: Network, dataset: Dataset, rows: Ids, hidden: Mask) -> Guesses:
    """Each hidden cell's law given everything known in its row: one forward a row."""
    denoise = Barring(net, _missing_ids(dataset))
    laws = []
    for start in range(0, len(rows), 512):
        part, mask = (torch.from_numpy(x[start : start + 512]) for x in (rows, hidden))
        lengths = torch.full((len(part),), part.shape[1])
        logits = denoise(part.masked_fill(mask, 0), mask, lengths).token_logits[mask]
        laws.append(logits.double().softmax(-1))
    return _guesses(torch.cat(laws).numpy(), rows[hidden])


def by_mode(dataset: Dataset, rows: Ids, hidden: Mask) -> Guesses:
    """Each column's shares in the training rows, smoothed by one row in all so that no level has none."""
    sizes = dataset.tokenizer.vocabulary_sizes
    missing = _missing_ids(dataset)
    table = np.zeros((len(sizes), max(sizes)))
    for position, size in enumerate(sizes):
        counts = np.bincount(dataset.train[:, position], minlength=size) + 1 / size
        if position in missing:
            counts[missing[position]] = 0
        table[position, :size] = counts / counts.sum()
    return _guesses(table[np.nonzero(hidden)[1]], rows[hidden])


def by_boosting(dataset: Dataset, rows: Ids, hidden: Mask, task: Fields) -> Guesses:
    """One classifier for each column, from the ids of the others; hidden inputs are missing ones."""
    sizes = dataset.tokenizer.vocabulary_sizes
    law = np.zeros((int(hidden.sum()), max(sizes)))
    column_of_cell = np.nonzero(hidden)[1]
    known = np.where(hidden, np.nan, rows)
    train = dataset.train[: task["forest"]["rows"]]
    mask = np.random.default_rng([task["seed"], 3]).random(train.shape) < task["hidden_share"]
    inputs = np.where(mask, np.nan, train)
    for position in range(len(sizes)):
        targets = train[:, position]
        has_value = targets != _missing_ids(dataset).get(position, -1)
        asked = hidden[:, position]
        if not asked.any():
            continue
        law[column_of_cell == position] = _boosted(
            np.delete(inputs, position, 1)[has_value],
            targets[has_value],
            np.delete(known, position, 1)[asked],
            size=max(sizes),
            categorical=np.delete(_is_categorical(dataset), position),
            task=task,
        )
    return _guesses(law, rows[hidden])


def _boosted(
    inputs: Floats, targets: Ids, asked: Floats, *, size: int, categorical: Mask, task: Fields
) -> NDArray[np.float64]:
    """Probabilities [N, size], mixed with a thousandth of even shares so that no truth costs without end."""
    own = task["forest"]
    classes, counts = np.unique(targets, return_counts=True)
    present = classes[counts > 1]  # early stopping sets a part of each class aside
    kept = np.isin(targets, present)
    law = np.full((len(asked), size), 1e-3 / size)
    if len(present) == 1:
        law[:, present] += 1 - 1e-3
        return law
    forest = import_module("sklearn.ensemble").HistGradientBoostingClassifier(
        max_iter=own["max_iter"],
        learning_rate=own["learning_rate"],
        max_leaf_nodes=own["max_leaf_nodes"],
        categorical_features=categorical,
        early_stopping=bool(kept.sum() >= 10 * len(present)),
        n_iter_no_change=5,
        random_state=task["seed"],
    )
    forest.fit(inputs[kept], targets[kept])
    law[:, forest.classes_] += (1 - 1e-3) * forest.predict_proba(asked)
    return law


def _missing_ids(dataset: Dataset) -> dict[int, int]:
    tokenizer: Any = dataset.tokenizer
    found: dict[int, int] = tokenizer.missing_ids
    return found


def _is_categorical(dataset: Dataset) -> Mask:
    tokenizer: Any = dataset.tokenizer
    return np.array([column.kind == "categorical" for column in tokenizer.columns])


def fill_in_order(net: Network, dataset: Dataset, rows: Ids, hidden: Mask, *, seed: int) -> Ids:
    """The ids of the hidden cells as `unveil impute --mode` fills them, likeliest position and value first."""
    denoise = Barring(net, _missing_ids(dataset))
    params = SamplingParams(order_temperature=0.0, temperature=0.0)
    canvases = [
        Canvas.start(tuple(row), tuple(mask), seed=seed, params=params)
        for row, mask in zip(rows.tolist(), hidden.tolist(), strict=True)
    ]
    filled = rows.copy()
    for start in range(0, len(canvases), 250):
        for step in decode(denoise, canvases[start : start + 250]):
            for reveal in step.reveals:
                filled[start + step.sample, reveal.position] = reveal.token_id
    return filled[hidden]


def _guesses(law: Floats, truth: Ids) -> Guesses:
    return Guesses(law.argmax(1), law.max(1), law[np.arange(len(law)), truth])


def _figures(guesses: Guesses, truth: Ids) -> Fields:
    hits = guesses.likeliest == truth
    return {
        "accuracy": float(hits.mean()),
        "ece": expected_calibration_error(guesses.confidence, hits),
        "nats": float(-np.log(guesses.truth).mean()),
    }


def expected_calibration_error(confidence: Floats, hits: Mask) -> float:
    """Mean over cells of |accuracy - confidence| of their bin, in bins of equal width."""
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=hits - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(hits))


def _filled_figures(filled: Ids, guesses: Guesses, rows: Ids, hidden: Mask) -> Fields:
    """Filling cell by cell beside each cell's own likeliest value, on the same cells."""
    truth = rows[hidden]
    alone = guesses.likeliest[: len(truth)]
    return {
        "rows": len(rows),
        "accuracy": float((filled == truth).mean()),
        "each_alone": float((alone == truth).mean()),
        "difference": asdict(_by_row((filled == truth) * 1.0 - (alone == truth), hidden)),
    }


def _by_column(guesses: Mapping[str, Guesses], rows: Ids, hidden: Mask, dataset: Dataset) -> Fields:
    column_of_cell, truth = np.nonzero(hidden)[1], rows[hidden]
    found = {}
    for position, name in enumerate(dataset.names):
        cells = column_of_cell == position
        if cells.any():
            hits = {arm: (guesses[arm].likeliest == truth)[cells] for arm in ARMS}
            found[str(name)] = {"cells": int(cells.sum()), **{arm: float(h.mean()) for arm, h in hits.items()}}
    return found


def _paired(one: Guesses, other: Guesses, rows: Ids, hidden: Mask) -> Fields:
    truth = rows[hidden]
    accuracy = (one.likeliest == truth) * 1.0 - (other.likeliest == truth)
    nats = np.log(other.truth) - np.log(one.truth)
    return {name: asdict(_by_row(cells, hidden)) for name, cells in (("accuracy", accuracy), ("nats", nats))}


def _by_row(cells: Floats, hidden: Mask) -> Estimate:
    """The mean over cells, with the error of cells that come in rows: rows without hidden cells do not count."""
    row_of_cell = np.nonzero(hidden)[0]
    sums = np.bincount(row_of_cell, weights=cells, minlength=len(hidden))
    counts = np.bincount(row_of_cell, minlength=len(hidden))
    mean = float(cells.mean())
    residuals = (sums - mean * counts)[counts > 0]
    error = residuals.std(ddof=1) * len(residuals) ** 0.5 / counts.sum() if len(residuals) > 1 else float("nan")
    return Estimate(mean, float(error))


def report(dataset: Dataset, results: Sequence[Fields]) -> Fields:
    """A table's seeds, and what holds over them."""
    metrics = ("accuracy", "ece", "nats")
    return {
        **description(dataset),
        "seeds": list(results),
        "arms": {name: {m: interval([r["arms"][name][m] for r in results]) for m in metrics} for name in ARMS},
        "unveil_minus": {
            rival: {m: interval([r["unveil_minus"][rival][m]["mean"] for r in results]) for m in ("accuracy", "nats")}
            for rival in RIVALS
        },
        "ece_minus": {
            rival: interval([r["arms"]["unveil"]["ece"] - r["arms"][rival]["ece"] for r in results]) for rival in RIVALS
        },
        "filled": {m: interval([r["filled"][m] for r in results]) for m in ("accuracy", "each_alone")},
        "train_seconds": {m: _seconds([r["train_seconds"][m] for r in results]) for m in ("unveil", "boosting")},
    }


def _seconds(found: Sequence[float | None]) -> Fields | None:
    known = [seconds for seconds in found if seconds is not None]
    return interval(known) if known else None


def as_text(full: Fields) -> str:
    """Markdown tables."""
    return "\n\n".join(_block(table) for table in full["tables"])


def _block(table: Fields) -> str:
    first = table["seeds"][0]
    lines = [
        f"{table['name']}: {first['rows']:,} test rows, {first['cells']:,} hidden cells, "
        f"seeds 0 to {len(table['seeds']) - 1}.",
        "",
        "| | accuracy | ECE | nats a cell | seconds of training |",
        "|---|---|---|---|---|",
    ]
    for name, found in table["arms"].items():
        seconds = table["train_seconds"].get(name)
        cells = [f"{found[m]['mean']:.4f}" for m in ("accuracy", "ece", "nats")]
        lines.append(f"| {name} | {' | '.join(cells)} | {'' if seconds is None else format(seconds['mean'], '.0f')} |")
    for rival in RIVALS:
        minus = table["unveil_minus"][rival]
        shown = [*(minus[m] for m in ("accuracy",)), table["ece_minus"][rival], minus["nats"]]
        lines.append(f"| unveil minus {rival} [95 %] | {' | '.join(map(_as_interval, shown))} | |")
    filled = table["filled"]
    lines += ["", f"{FILLED}, {first['filled']['rows']:,} rows: {filled['accuracy']['mean']:.4f}; each cell alone: "]
    return "\n".join(lines) + f"{filled['each_alone']['mean']:.4f}."


def _as_interval(found: Fields) -> str:
    if found["low"] is None:
        return f"{found['mean']:+.4f} (one seed)"
    return f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"


def _sklearn_version() -> str:
    return str(import_module("sklearn").__version__)


if __name__ == "__main__":
    main()
