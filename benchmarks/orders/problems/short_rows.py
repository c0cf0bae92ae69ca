"""Rows short enough that every subset of their positions can be enumerated.

Bayesian networks with known tables, the Adult table and any CSV given; tables are cut to eight columns.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from torch import Tensor

from unveil.benchmarks.common.runs import Fields
from unveil.benchmarks.orders.problems.network import NetworkSource, load_network
from unveil.commands.training import cache_folder
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.data.config import DataConfig
from unveil.training.data.dataset import Dataset
from unveil.training.data.load import load_dataset
from unveil.training.data.rows import as_rows

NETWORK = "network"
ADULT_COLUMNS = ("age", "education", "education-num", "marital-status", "occupation", "relationship", "sex", "income")
MAX_COLUMNS = 8
MAX_CELLS = 2**25  # of a table of all subsets of all rows


@dataclass(frozen=True)
class Problem:
    """Data to learn an order of, and how many rows of a split are enumerated."""

    dataset: Dataset
    num_rows: int

    def rows(self, split: str) -> Tensor:
        """Rows of a split [N, L], evenly spaced, never its head."""
        return as_rows(getattr(self.dataset, split), limit=self.num_rows).x


def network_data(name: str, *, rows: int, seed: int) -> Fields:
    """What `read_problem` takes for a Bayesian network."""
    return {"kind": NETWORK, "name": name, "validation_rows": rows, "test_rows": rows, "seed": seed}


def table_data(path: Path | None, *, seed: int) -> Fields:
    """The same for a CSV, or for Adult where that is None: a recipe's `[data]`."""
    kind = {"kind": "adult"} if path is None else {"kind": "table", "path": str(path)}
    return kind | {"max_bins": 16, "seed": seed}


def content_of(path: Path | None) -> str:
    """A hash of what a CSV holds; "" of no CSV."""
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def read_problem(data: Fields, *, rows: int) -> Problem:
    """At most `rows` rows of a split, and no more than fit a table of MAX_CELLS. Raises UnveilError."""
    if data["kind"] == NETWORK:
        source = NetworkSource(**{name: value for name, value in data.items() if name != "kind"})
        dataset = load_network(source, cache=cache_folder())
    else:
        dataset = load_dataset(TypeAdapter[Any](DataConfig).validate_python(data), cache=cache_folder())
        columns = ADULT_COLUMNS if data["kind"] == "adult" else tuple(map(str, dataset.names[:MAX_COLUMNS]))
        dataset = cut(dataset, columns)
    L = len(dataset.names)
    return Problem(dataset, min(rows, MAX_CELLS // (2**L * L)))


def cut(dataset: Dataset, columns: tuple[str, ...]) -> Dataset:
    """The same rows with these columns alone."""
    assert isinstance(dataset.tokenizer, TableTokenizer)
    places = [dataset.names.index(name) for name in columns]
    tokenizer = TableTokenizer([dataset.tokenizer.columns[i] for i in places])
    train_rows, validation, test = (split[:, places] for split in (dataset.train, dataset.validation, dataset.test))
    return Dataset(name=dataset.name, tokenizer=tokenizer, train=train_rows, validation=validation, test=test)
