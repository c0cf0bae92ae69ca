"""Small data: documents, and a table with real dependence between its columns and a recipe that
trains on it in a second or two."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.config import Recipe, build_recipe
from unveil.training.data.dataset import Dataset


def small_columns(num_rows: int = 600, *, seed: int = 0) -> dict[str, Any]:
    """`b` follows from `a`, `c` from both, `d` is a number near 10 * a."""
    generator = np.random.default_rng(seed)
    a = generator.integers(0, 4, num_rows)
    b = np.where(generator.random(num_rows) < 0.9, a % 2, generator.integers(0, 2, num_rows))
    c = (a + b) % 3
    return {
        "a": np.array([f"a{v}" for v in a], dtype=object),
        "b": np.array([f"b{v}" for v in b], dtype=object),
        "c": np.array([f"c{v}" for v in c], dtype=object),
        "d": (10 * a + generator.integers(0, 5, num_rows)).astype(np.float64),
    }


def small_dataset(num_rows: int = 600) -> Dataset:
    columns = small_columns(num_rows)
    tokenizer = TableTokenizer.fit(columns, max_bins=8)
    ids = tokenizer.encode_rows(columns).tokens
    cuts = [num_rows * 2 // 3, num_rows * 5 // 6]
    train, validation, test = np.split(ids, cuts)
    return Dataset(
        name="small", tokenizer=tokenizer, train=train, validation=validation, test=test, summary={"source": "made"}
    )


def small_recipe(*overrides: str) -> Recipe:
    fields: dict[str, Any] = {
        "name": "small",
        "data": {"kind": "table", "path": "small.csv"},
        "model": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "dropout": 0.1},
        "optimizer": {"steps": 12, "batch_size": 32},
        "run": {"precision": "32-true", "threads": 1},
        "advanced": {
            "optimizer": {"warmup_steps": 3},
            "run": {"accelerator": "cpu", "log_every": 1, "validate_every": 6, "checkpoint_every": 4},
        },
    }
    return build_recipe(fields, overrides=overrides, source="small")


def write_csv(path: Path, num_rows: int = 600) -> Path:
    columns = small_columns(num_rows)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines).replace(".0", "") + "\n")
    return path


def documents(folder: Path, count: int = 40, *, split: str = "train") -> Path:
    """A folder as the `datasets` library reads one: a JSON object a line, document n says so."""
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"text": f"Document {n} of {split}: the cat sat on the mat. ", "n": n}) for n in range(count)]
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
