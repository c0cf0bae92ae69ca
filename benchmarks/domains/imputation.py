"""How well are missing cells filled in? One net for all columns against boosted trees for each, and the mode.

    python -m benchmarks imputation [--quick] [--seeds N] [--json] [--work DIR] [--jobs N]
        [--no-adult] [--table FILE[=SEEDS]]... [--drop COLUMN]... [--categorical COLUMN]... [--masked]

Adult, and any table given. Of evenly spaced test rows a share of all cells is hidden, each by chance alone (MCAR),
another mask for each seed; cells that are missing in the file are never scored. On the same cells, all at the
resolution of the table's at most 32 bins:

- `unveil`: a net of about 86,000 parameters with the shipped settings, learned order, a quarter of its rows prompted
  (with `--masked`, a masked network);
  one forward gives each hidden cell's law given all that is known, and a missing value is never offered, as
  `unveil impute` has it. `unveil, filled in its order` is what `unveil impute --mode` writes: cell after cell, each
  given the ones before.
- `boosting`: scikit-learn's HistGradientBoostingClassifier, one for each column, from all other columns, trained on
  training rows of which the same share of cells is hidden, since it takes missing inputs as they are. For each column
  the best by nats on validation rows, hidden likewise, of two settings (its defaults, but for fewer rounds; slower
  and more regular, which rare classes take) and of the column's shares.
- `mode`: the commonest value of each column in the training rows, its confidence that value's share there.

Accuracy (the likeliest value is right), ECE of the likeliest value's probability (15 bins of equal width), and nats a
cell. Differences are paired by row; intervals are Student's over seeds. Seconds of training are processor seconds, of
boosting with the choice of its settings. Needs scikit-learn: `pip install 'unveil[bench]'`.
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

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval, write_whole
from unveil.benchmarks.domains.problems.tables import (
    SHARE,
    add_tables,
    arm,
    arm_name,
    description,
    load,
    query_layers_of,
    tables_of,
    trained,
)
from unveil.model.along.serving import decode
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.denoiser import Barring
from unveil.model.network.base import Network
from unveil.training.data.dataset import Dataset
from unveil.training.data.rows import evenly_spaced
from unveil.training.evaluation.estimate import Estimate

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

HIDDEN_SHARE = 0.2
CELLS, QUICK_CELLS = 60_000, 1_500  # of the test rows: 4,000 rows of Adult, fewer of a wider table
FILLED_ROWS, QUICK_FILLED_ROWS = 1_000, 20
BUDGET: Fields = {"steps": 2000, "cells": 3840}  # 256 rows of Adult a step
FORESTS: list[Fields] = [
    {"max_iter": 60, "learning_rate": 0.1},
    {"max_iter": 150, "learning_rate": 0.05, "max_leaf_nodes": 15, "min_samples_leaf": 50, "l2_regularization": 5.0},
]
QUICK_FORESTS: list[Fields] = [{"max_iter": 2, "max_leaf_nodes": 4}]
QUICK_TRAIN_ROWS = 300
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
        "forests": QUICK_FORESTS if given.quick else FORESTS,
        "forest_rows": QUICK_TRAIN_ROWS if given.quick else len(dataset.train),
        "share": SHARE,
        "query_layers": query_layers_of(given),
        "hidden_share": HIDDEN_SHARE,
        "rows": min((QUICK_CELLS if given.quick else CELLS) // L, len(dataset.test)),
        "filled_rows": QUICK_FILLED_ROWS if given.quick else FILLED_ROWS,
        "work": str(given.work),
        "seed": seed,
    }


def measure(task: Fields) -> Fields:
    """All arms of one seed on the same hidden cells."""
    dataset = load(task["data"])
    rows = dataset.test[evenly_spaced(len(dataset.test), task["rows"])]
    hidden = _hide(rows, dataset, share=task["hidden_share"], seed=task["seed"])
    net, net_seconds = _net(task, dataset)
    guesses = {"unveil": by_net(net, dataset, rows, hidden), "mode": by_mode(dataset, rows, hidden)}
    started = time.process_time()
    guesses["boosting"], chosen = by_boosting(dataset, rows, hidden, task)
    seconds = {"unveil": net_seconds, "boosting": time.process_time() - started}
    some = evenly_spaced(len(rows), task["filled_rows"])
    filled = fill_in_order(net, dataset, rows[some], hidden[some], seed=task["seed"])
    return {
        "seed": task["seed"],
        "rows": len(rows),
        "cells": int(hidden.sum()),
        "budget": task["budget"],
        "forests": task["forests"],
        "chosen": chosen,
        "parameters": net.num_parameters,
        "train_seconds": seconds,
        "arms": {name: _figures(guesses[name], rows[hidden]) for name in ARMS},
        "filled": _filled_figures(filled, guesses["unveil"], some, rows, hidden),
        "columns": _by_column(guesses, rows, hidden, dataset),
        "unveil_minus": {rival: _paired(guesses["unveil"], guesses[rival], rows, hidden) for rival in RIVALS},
    }


def _net(task: Fields, dataset: Dataset) -> tuple[Network, float]:
    """The net and the seconds its training took, which are kept beside it."""
    own = {"budget": task["budget"], "share": task["share"], "query_layers": task["query_layers"]}
    spec = arm("global", data=task["data"], seed=task["seed"], **own)
    work, started = Path(task["work"]), time.process_time()
    note = work / "arms" / arm_name(spec, dataset) / "seconds.json"
    net = trained(spec, dataset, work=work)
    if not note.exists():
        write_whole(note, time.process_time() - started)
    return net, json.loads(note.read_text(encoding="utf-8"))


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
        lengths, (at, positions) = torch.full((len(part),), part.shape[1]), mask.nonzero(as_tuple=True)
        logits = denoise.bar(net(part.masked_fill(mask, 0), mask, lengths).token_logits[at, positions], positions)
        laws.append(logits.double().softmax(-1))
    return _guesses(torch.cat(laws).numpy(), rows[hidden])


def by_mode(dataset: Dataset, rows: Ids, hidden: Mask) -> Guesses:
    """Each column's shares in the training rows."""
    laws = np.stack([_shares(dataset, position) for position in range(rows.shape[1])])
    return _guesses(laws[np.nonzero(hidden)[1]], rows[hidden])


def _shares(dataset: Dataset, position: int) -> Floats:
    """A column's shares, one row more spread over all levels so that none has nothing: [largest V]."""
    sizes = dataset.tokenizer.vocabulary_sizes
    counts = np.bincount(dataset.train[:, position], minlength=max(sizes)).astype(np.float64)
    counts[: sizes[position]] += 1 / sizes[position]
    if (missing := _missing_ids(dataset).get(position)) is not None:
        counts[missing] = 0
    shares: Floats = counts / counts.sum()
    return shares


def by_boosting(dataset: Dataset, rows: Ids, hidden: Mask, task: Fields) -> tuple[Guesses, dict[str, int | None]]:
    """One classifier for each column, from the ids of the others; hidden inputs are missing ones. And which of the
    settings each column has, None where its shares were better."""
    law = np.zeros((int(hidden.sum()), max(dataset.tokenizer.vocabulary_sizes)))
    column_of_cell = np.nonzero(hidden)[1]
    known = np.where(hidden, np.nan, rows)
    train = dataset.train[evenly_spaced(len(dataset.train), task["forest_rows"])]
    masks = [
        _hide(part, dataset, share=task["hidden_share"], seed=task["seed"] + stream)
        for part, stream in ((train, 1000), (dataset.validation, 2000))
    ]
    inputs, validation = (np.where(m, np.nan, x) for m, x in zip(masks, (train, dataset.validation), strict=True))
    chosen: dict[str, int | None] = {}
    for position, name in enumerate(map(str, dataset.names)):
        asked = np.concatenate([validation[masks[1][:, position]], known[hidden[:, position]]])
        truth = dataset.validation[masks[1][:, position], position]
        laws = {None: np.broadcast_to(_shares(dataset, position), (len(asked), law.shape[1]))} | {
            number: _boosted(inputs, train, asked, position=position, own=own, dataset=dataset, seed=task["seed"])
            for number, own in enumerate(task["forests"])
        }
        costs = {number: -np.log(found[np.arange(len(truth)), truth]).mean() for number, found in laws.items()}
        chosen[name] = min(costs, key=lambda number: costs[number])
        law[column_of_cell == position] = laws[chosen[name]][len(truth) :]
    return _guesses(law, rows[hidden]), chosen


def _boosted(
    inputs: Floats, train: Ids, asked: Floats, *, position: int, own: Fields, dataset: Dataset, seed: int
) -> Floats:
    """Probabilities [N, largest V], mixed with a thousandth of the column's shares so that no truth costs without
    end. It stops early on a tenth of the rows it is given, where they are enough for that."""
    targets = train[:, position]
    has_value = targets != _missing_ids(dataset).get(position, -1)
    classes, counts = np.unique(targets[has_value], return_counts=True)
    kept = has_value & np.isin(targets, classes[counts > 1])  # early stopping sets a part of each class aside
    law = np.tile(_shares(dataset, position), (len(asked), 1))
    if len(np.unique(targets[kept])) < 2:
        return law
    forest = import_module("sklearn.ensemble").HistGradientBoostingClassifier(
        categorical_features=np.delete(_is_categorical(dataset), position),
        early_stopping=bool(kept.sum() >= 10 * len(classes)),
        n_iter_no_change=5,
        random_state=seed,
        **own,
    )
    forest.fit(np.delete(inputs, position, 1)[kept], targets[kept])
    law *= 1e-3
    law[:, forest.classes_] += (1 - 1e-3) * forest.predict_proba(np.delete(asked, position, 1))
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
    decoded = decode(denoise, canvases, end_id=None, max_batch=250)
    filled = np.array([canvas.tokens for canvas, _ in decoded], dtype=rows.dtype)
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


def _filled_figures(filled: Ids, guesses: Guesses, some: Ids, rows: Ids, hidden: Mask) -> Fields:
    """Filling cell by cell beside each cell's own likeliest value, on the same cells: those of the rows `some`, which
    `filled` is of; all else is of all rows."""
    truth = rows[some][hidden[some]]
    alone = guesses.likeliest[np.isin(np.nonzero(hidden)[0], some)]
    return {
        "rows": len(some),
        "accuracy": float((filled == truth).mean()),
        "each_alone": float((alone == truth).mean()),
        "difference": asdict(_by_row((filled == truth) * 1.0 - (alone == truth), hidden[some])),
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
        "train_seconds": {m: interval([r["train_seconds"][m] for r in results]) for m in ("unveil", "boosting")},
    }


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
    return with_interval(found, "+.4f", alone=" (one seed)")


def _sklearn_version() -> str:
    return str(import_module("sklearn").__version__)


if __name__ == "__main__":
    main()
