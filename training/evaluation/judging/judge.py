"""All that judges say of a table's model: as many generated rows as there are training rows, against these. Test rows
in their place stand beside, which is what was to be had."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unveil.model.errors import UnveilError
from unveil.model.network.base import Network
from unveil.model.tokenizers.table.columns import MISSING, Column
from unveil.model.tokenizers.table.table import Cells, TableTokenizer
from unveil.model.tokenizers.wording import listed, shown
from unveil.training.data.config import DataConfig
from unveil.training.data.dataset import Dataset
from unveil.training.data.rows import as_rows, evenly_spaced
from unveil.training.evaluation.comparison_orders import Law
from unveil.training.evaluation.fidelity import column_shapes, shape_and_trend
from unveil.training.evaluation.judging.coverage import coverage
from unveil.training.evaluation.judging.detection import detection, usefulness, why_no_judges
from unveil.training.evaluation.judging.histograms import histogram
from unveil.training.evaluation.judging.membership import membership
from unveil.training.evaluation.judging.rows import decoded, real_rows, sample
from unveil.training.evaluation.privacy import compare
from unveil.training.evaluation.tables import generate_rows

MAX_ROWS = 20_000
_NEIGHBORS, _SCORED, _COMPARED = 5_000, 2_000, 2_000  # rows whose distances, likelihoods, nearest rows are looked at
_SMALLER_IS_BETTER = "rmse"
Say = Callable[[str], None]
Rows = Mapping[str, Cells]


def judge(
    denoiser: Network,
    dataset: Dataset,
    data: DataConfig,
    *,
    cache: Path,
    target: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    threads: int = 1,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Figures of generated rows and of test rows in their place, as JSON; see `figures`. `target` is the column that is
    predicted, the last one if None. `limit` rows at most, evenly spaced. `say` is told what is being done.

    Raises UnveilError where judges are not installed, for a target that the table has not, and for other models.
    """
    tokenizer = dataset.tokenizer
    if not isinstance(tokenizer, TableTokenizer):
        raise UnveilError(f"judges are for models of tables, and this is a {tokenizer.domain} model")
    if (reason := why_no_judges()) is not None:
        raise UnveilError(reason)
    columns = list(tokenizer.columns)
    wanted = _target(columns, target)
    real = real_rows(data, tokenizer, cache=cache)
    number = min(len(dataset.train), limit or MAX_ROWS)
    say(f"generating {number:,} rows")
    ids = _generated(denoiser, dataset, number=number, seed=seed)
    generated, train, test = decoded(ids, tokenizer, seed=seed), _cut(real["train"], number), real["test"]
    levels = [column.name for column in columns if column.kind == "categorical"]
    say("telling them from training rows")
    sides = {"generated": generated, "test_rows": test}
    found = {name: _told_apart(train, rows, levels, threads=threads) for name, rows in sides.items()}
    say("learning from them")
    useful = _useful({"generated": generated, "training_rows": train}, test, wanted, columns, threads=threads)
    say("attacking by likelihood")
    closer = compare(torch.from_numpy(ids[:_COMPARED].copy()), dataset, seed=seed)["closer_to_training"]
    return {
        "rows": number,
        "seed": seed,
        "target": wanted.name,
        **{name: {side: own[name] for side, own in found.items()} for name in found["generated"]},
        **useful,
        **_attacked(denoiser, dataset),
        "closer": closer["mean"],
        "closer_standard_error": closer["standard_error"],
        "columns": _columns(_cut(train, number), generated, columns),
    }


def _target(columns: Sequence[Column], name: str | None) -> Column:
    if name is None:
        return columns[-1]
    found = next((column for column in columns if column.name == name), None)
    if found is None:
        names = listed(column.name for column in columns)
        raise UnveilError(f"--target {shown(name)}: no such column; the columns are {names}")
    return found


def _generated(denoiser: Network, dataset: Dataset, *, number: int, seed: int) -> NDArray[np.int64]:
    """Ids along the model's likeliest order; of one that has not decided on an order, as it is served."""
    if denoiser.order.kind == "global":
        return sample(denoiser, order=Law(denoiser).order(), rows=number, seed=seed)
    found: NDArray[np.int64] = generate_rows(denoiser, dataset.train.shape[1], number=number, seed=seed).numpy()
    return found


def _told_apart(train: Rows, other: Rows, levels: list[str], *, threads: int) -> dict[str, float]:
    """Of as many of both as there are of the fewer."""
    size = min(_num(train), _num(other))
    own, others = _cut(train, size), _cut(other, size)
    apart = detection(own, others, categorical=levels, threads=threads)
    likeness = shape_and_trend(_as_text(own, levels), _as_text(others, levels), levels=levels)
    near = coverage(_cut(own, _NEIGHBORS), _cut(others, _NEIGHBORS), categorical=levels)
    return {"c2st": apart["xgboost"], "logistic": apart["logistic"], **likeness, **near}


def _useful(
    sides: Mapping[str, Rows], test: Rows, target: Column, columns: list[Column], *, threads: int
) -> dict[str, Any]:
    """What a model trained on each side is worth on test rows, and the first as a share of the second."""
    found = {
        name: usefulness(rows, test, target=target, columns=columns, threads=threads) for name, rows in sides.items()
    }
    measures = set.intersection(*(set(own) for own in found.values()))
    if not measures:
        return {"usefulness": None, "learned": found}
    (measure,) = measures
    own, real = (found[name][measure] for name in ("generated", "training_rows"))
    share = real / own if measure == _SMALLER_IS_BETTER else own / real
    return {"usefulness": share, "learned": {"measure": measure, **{name: own[measure] for name, own in found.items()}}}


def _attacked(denoiser: Network, dataset: Dataset) -> dict[str, Any]:
    size = min(len(dataset.train), len(dataset.test), _SCORED)
    law = Law(denoiser)
    nats = [law.greedy(denoiser, as_rows(rows, limit=size)).double().numpy() for rows in (dataset.train, dataset.test)]
    found = membership(*nats)
    return {"attack": found["attack"], "attack_standard_error": found["attack_standard_error"], "found": found["found"]}


def _columns(train: Rows, generated: Rows, columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Each with its Shape and its histograms, in the table's order."""
    levels = [column.name for column in columns if column.kind == "categorical"]
    shapes = column_shapes(_as_text(train, levels), _as_text(generated, levels), levels=levels)
    return [
        {
            "name": column.name,
            "kind": column.kind,
            "shape": shapes[column.name],
            "histogram": histogram(column, train[column.name], generated[column.name]),
        }
        for column in columns
    ]


def _as_text(rows: Rows, levels: Sequence[str]) -> dict[str, Cells]:
    """A missing level is one of its own."""
    return {
        name: np.array([MISSING if cell is None else str(cell) for cell in cells], object) if name in levels else cells
        for name, cells in rows.items()
    }


def _cut(rows: Rows, limit: int) -> dict[str, Cells]:
    return {name: cells[evenly_spaced(len(cells), limit)] for name, cells in rows.items()}


def _num(rows: Rows) -> int:
    return len(next(iter(rows.values())))
