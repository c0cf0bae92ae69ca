"""What became of a file's columns, in words, for a person who gave it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.wording import shown
from unveil.training.data.dataset import Dataset


def describe_data(dataset: Dataset) -> str:
    """Rows of each split, a line a column, and every notice."""
    shapes = ", ".join(f"{len(getattr(dataset, split)):,} {split}" for split in ("train", "validation", "test"))
    lines = [f"{dataset.name}: {shapes} rows of {dataset.train.shape[1]} positions"]
    if dataset.tokenizer.domain == "table":
        lines += ["  " + line for line in _columns(dataset)]
    lines += [f"  note: {notice}" for notice in dataset.summary.get("notices", [])]
    return "\n".join(lines)


def _columns(dataset: Dataset) -> Iterator[str]:
    tokenizer: Any = dataset.tokenizer
    for position, column in enumerate(tokenizer.columns):
        missing = tokenizer.missing_ids.get(position)
        share = 0.0 if missing is None else float(np.mean(dataset.train[:, position] == missing))
        yield _describe(column) + ("" if missing is None else f", {share:.1%} missing")


def _describe(column: Any) -> str:
    if column.kind == "categorical":
        levels = ", ".join(map(shown, column.levels[:4])) + (", ..." if len(column.levels) > 4 else "")
        return f"{column.name}: {len(column.levels)} level{'s' * (len(column.levels) != 1)} ({levels})"
    found = column.describe()
    bins = f"in {found['bins']} bin{'s' * (found['bins'] != 1)}"
    if column.kind == "date":
        noun = FORMATS[column.format].noun
        return f"{column.name}: {noun}s as {column.format} from {found['low']} to {found['high']} {bins}"
    decimals = "decimals as they come" if column.decimals is None else f"{column.decimals} decimals"
    numbers = "whole numbers" if found["integer"] else f"numbers with {decimals}"
    written = f", written as {found['written']}" if "written" in found else ""
    return f"{column.name}: {numbers} from {found['low']} to {found['high']} {bins}{written}"
