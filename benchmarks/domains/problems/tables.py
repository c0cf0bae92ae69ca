"""Real tables, and the arms that are trained on them. Knows how an arm is made and found again, not how it is scored.

An arm is a plain `Fields`: the table, the kind of order, the seed, the size of its network, its layers of queries, the
share of prompted rows and the budget. It is kept as an artifact in a folder named by all of that and by the table's
content, so that the benchmarks of one `--work` folder share their arms.
"""

import hashlib
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unveil.benchmarks.common.runs import Fields
from unveil.commands.training import cache_folder
from unveil.model.artifact.folder import load_artifact, save_artifact
from unveil.model.errors import UnveilError
from unveil.model.network.architecture import Architecture
from unveil.model.network.base import Network
from unveil.training.config import Recipe, build_recipe
from unveil.training.data.config import DataConfig
from unveil.training.data.dataset import Dataset
from unveil.training.data.files import read_table
from unveil.training.data.load import load_dataset
from unveil.training.trainer import train

MAX_BINS = 32
PARAMETERS, LARGER = 86_000, 340_000
WIDTHS = {4_000: 8, 10_000: 16, 28_000: 32, PARAMETERS: 64, LARGER: 128}  # of the network, by its parameters
LAYERS, HEADS = 2, 2  # with those of queries
QUERY_LAYERS = 1  # of learned and fixed orders, as shipped; 0 is a masked network
STEPS, QUICK_STEPS = 1000, 20
CELLS = 1920  # of a batch: 128 rows of Adult, fewer of a wider table
SHARE = 0.25  # of the rows of learned orders that are prompted: chosen by benchmarks/orders/prompts.py
ADULT: Fields = {"kind": "adult", "max_bins": MAX_BINS}


def add_tables(parser: ArgumentParser) -> ArgumentParser:
    """Which tables a benchmark takes."""
    parser.add_argument("--table", action="append", default=[], metavar="FILE[=SEEDS]", help="a CSV more; repeatable")
    parser.add_argument("--no-adult", action="store_true", help="the files alone")
    parser.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="of the tables; repeatable")
    parser.add_argument("--categorical", action="append", default=[], metavar="COLUMN", help="likewise")
    parser.add_argument("--masked", action="store_true", help="masked networks for learned and fixed orders too")
    return parser


def query_layers_of(given: Namespace) -> int:
    """Of the networks of learned and fixed orders."""
    return 0 if given.masked else QUERY_LAYERS


def tables_of(given: Namespace) -> list[tuple[Fields, int, Dataset]]:
    """Adult and the tables asked for: their `[data]`, how many seeds, and the rows. Exits with one line."""
    if given.no_adult and not given.table:
        raise SystemExit("error: --no-adult: no --table is given, so none is left")
    try:
        files = [_file_and_seeds(text, given.seeds) for text in given.table]
        data = table_data([path for path, _ in files], drop=given.drop, categorical=given.categorical)
        own = [] if given.no_adult else [(ADULT, given.seeds)]
        tables = [*own, *zip(data, (seeds for _, seeds in files), strict=True)]
        return [(table, seeds, load(table)) for table, seeds in tables]
    except UnveilError as error:
        raise SystemExit(f"error: {error}") from None


def _file_and_seeds(text: str, seeds: int) -> tuple[Path, int]:
    path, _, number = text.rpartition("=")
    if path and number.isdigit() and int(number) > 0:
        return Path(path), int(number)
    return Path(text), seeds


def table_data(paths: Sequence[Path], *, drop: Sequence[str] = (), categorical: Sequence[str] = ()) -> list[Fields]:
    """The recipe's `[data]` of each file. A column is named without its table: it is meant wherever it occurs.

    Raises UnveilError in one line, also for a column that no file has.
    """
    headers = [read_table(path, delimiter=",").frame.columns for path in paths]
    for option, names in (("--drop", drop), ("--categorical", categorical)):
        for name in names:
            if not any(name in header for header in headers):
                raise UnveilError(f'{option} {name}: no --table has a column "{name}"')
    return [
        {
            "kind": "table",
            "path": str(path),
            "drop": [name for name in drop if name in header],
            "columns": {name: {"kind": "categorical"} for name in categorical if name in header},
            "max_bins": MAX_BINS,
        }
        for path, header in zip(paths, headers, strict=True)
    ]


def budget(dataset: Dataset, *, quick: bool) -> Fields:
    """Steps and rows a step of an arm, the same for all arms of a table."""
    return {"steps": QUICK_STEPS if quick else STEPS, "batch_size": max(CELLS // dataset.train.shape[1], 1)}


def load(data: Fields) -> Dataset:
    """Raises UnveilError in one line."""
    return load_dataset(config_of(data), cache=cache_folder())


def config_of(data: Fields) -> DataConfig:
    """A recipe's `[data]`. Raises UnveilError in one line."""
    return build_recipe({"name": "table", "data": data}, source="--table").data


def arm(
    kind: str,
    *,
    data: Fields,
    seed: int,
    budget: Fields,
    share: float = 0.0,
    size: int = PARAMETERS,
    query_layers: int = 0,
    fixed: Sequence[int] | None = None,
) -> Fields:
    """All that an arm is. `share` of its training rows are prompted; `size` is its number of parameters, about; so many
    of its layers are `query_layers`; `fixed` is the order of an arm of that kind."""
    own = {} if fixed is None else {"fixed": list(fixed)}
    shape = {"size": size, "query_layers": query_layers}
    return {"kind": kind, "data": data, "seed": seed, "share": share, **shape, **own, **budget}


def pair(task: Fields, dataset: Dataset) -> dict[str, Network]:
    """The uniform and the global arm of a task; the latter with the task's `query_layers`, if any. Only learned orders
    have prompted rows: uniform ones meet every known set anyway."""
    own = {"data": task["data"], "seed": task["seed"], "budget": task["budget"], "size": task.get("size", PARAMETERS)}
    asked = {"share": task["share"], "query_layers": task.get("query_layers", 0)}
    specs = {"uniform": arm("uniform", **own), "global": arm("global", **asked, **own)}
    return {kind: trained(spec, dataset, work=Path(task["work"])) for kind, spec in specs.items()}


def trained(spec: Fields, dataset: Dataset, *, work: Path) -> Network:
    """The arm's network, found in `work` or trained into it."""
    folder = work / "arms" / arm_name(spec, dataset)
    if not (folder / "artifact").exists():
        result = train(arm_recipe(spec, dataset), dataset, work=folder / "run")
        assert result is not None, "run in one process"
        save_artifact(
            folder / "artifact",
            denoiser=result.denoiser,
            tokenizer=dataset.tokenizer,
            training=dict(result.summary),
            metrics={},
            card="An arm of a benchmark.\n",
        )
    return load_artifact(folder / "artifact").denoiser


def arm_name(spec: Fields, dataset: Dataset) -> str:
    """Names the folder of an arm. The content of the table counts, not where it lies."""
    own = {**spec, "data": dataset.fingerprint}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    return f"{dataset.name}-{spec['kind']}-{spec['seed']}-{digest[:12]}"


def arm_recipe(spec: Fields, dataset: Dataset) -> Recipe:
    """The recipe of an arm: shipped settings, but for its size and budget.

    A fixed order has the learned arm's warm-up, share of uniform rows and spread.
    """
    steps = spec["steps"]
    fields: Fields = {
        "name": f"{dataset.name}-{spec['kind']}",
        "seed": spec["seed"],
        "data": spec["data"],
        "model": network(spec["size"], dataset, query_layers=spec["query_layers"]),
        "order": {"method": spec["kind"], **({"positions": spec["fixed"]} if "fixed" in spec else {})},
        "prompts": {"share": spec["share"]},
        "optimizer": {"steps": steps, "batch_size": spec["batch_size"], "warmup_steps": min(200, steps // 10)},
        "run": {
            "threads": 1,
            "log_every": 100,
            "validate_every": steps,
            "validate_rows": 1024,
            "checkpoint_every": 1000,
            "keep_checkpoints": 1,
        },
    }
    return Recipe.of(fields)


def network(size: int, dataset: Dataset, *, query_layers: int = 0) -> Fields:
    """The shape with about `size` parameters on this table: the width is given, the MLP takes what is left. No bias for
    pairs of columns: a small network would be little else."""
    width = WIDTHS[size]

    def count(mlp_width: int) -> int:
        V, L = sum(dataset.tokenizer.vocabulary_sizes), dataset.train.shape[1]
        block = width * (4 * width + 2 * mlp_width + 3) + mlp_width
        late = bool(query_layers) * L + query_layers * (4 * L + 1)  # targets; gains and shifts of each place, a norm
        parameters: int = V * (width + 1) + (L + 2 + late) * width + L + LAYERS * block
        return parameters

    mlp_width = min(range(8, 1024, 8), key=lambda candidate: abs(count(candidate) - size))
    shape = {"width": width, "layers": LAYERS - query_layers, "query_layers": query_layers, "heads": HEADS}
    return {**shape, "mlp_width": mlp_width, "dropout": 0.0, "pair_bias": False}


def as_architecture(spec: Fields, dataset: Dataset) -> Architecture:
    """The network of an arm, for its number of parameters and for the report."""
    return Architecture(
        length=dataset.train.shape[1],
        vocabulary_sizes=tuple(dataset.tokenizer.vocabulary_sizes),
        **network(spec["size"], dataset, query_layers=spec["query_layers"]),
    )


def description(dataset: Dataset) -> dict[str, Any]:
    """What a reader compares a table by: rows of its splits, columns, bins."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    sizes = dict(zip((str(name) for name in dataset.names), dataset.tokenizer.vocabulary_sizes, strict=True))
    return {
        "name": dataset.name,
        "rows": {name: len(rows) for name, rows in splits.items()},
        "ids": sizes,
        "notices": list(dataset.summary.get("notices", [])),
    }
