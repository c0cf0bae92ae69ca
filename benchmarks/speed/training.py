"""What does a training step cost beside the bare forward and backward of the same network?

    python -m benchmarks training [--quick] [--json] [--rounds N]

A whole step of the trainer (drawing the batch, prefixes, the objective, the order's own learning, clipping, AdamW, the
average) over forward, cross-entropy and backward of the same network on as many rows, on tables made up here, one
thread, both in turns, the medians of this process's own CPU time. Learned (global) and uniform orders.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from unveil.benchmarks.common.runs import timing_arguments
from unveil.model.denoiser import cross_entropy
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.config import Recipe
from unveil.training.data.dataset import Dataset
from unveil.training.trainer import Run

SHAPES: dict[str, dict[str, int]] = {
    "adult's shape": {"columns": 15, "values": 20, "width": 64, "layers": 2, "mlp_width": 192, "batch": 256},
    "wide": {"columns": 64, "values": 20, "width": 256, "layers": 6, "mlp_width": 1024, "batch": 64},
}
QUICK = {"small": {"columns": 4, "values": 3, "width": 16, "layers": 1, "mlp_width": 32, "batch": 32}}
STEPS_A_ROUND = 4


def main() -> None:
    given = timing_arguments(__doc__, rounds=9).parse_args()
    torch.set_num_threads(1)
    shapes, rounds = (QUICK, 1) if given.quick else (SHAPES, given.rounds)
    rows = [measured(name, shapes[name], kind, rounds=rounds) for name in shapes for kind in ("uniform", "global")]
    if given.json:
        print(json.dumps({"rows": rows, "threads": 1, "rounds": rounds, "torch": torch.__version__}, indent=2))
        return
    for row in rows:
        print(
            f"{row['shape']}, {row['order']}: {row['step_seconds']:.4f} s a step, bare {row['bare_seconds']:.4f} s"
            f" (x{row['step_over_bare']:.2f})"
        )


def measured(name: str, shape: dict[str, int], kind: str, *, rounds: int) -> dict[str, Any]:
    """Seconds of CPU a step, and of the bare forward and backward."""
    with tempfile.TemporaryDirectory() as work:
        run = Run(Fabric(accelerator="cpu", devices=1), recipe_of(shape, kind), dataset_of(shape), Path(work))
        network, rows = run.unwrapped.denoiser, run.rows
        batch = rows.x[: shape["batch"]].long()
        hidden = torch.rand(batch.shape, generator=torch.Generator().manual_seed(0)) < 0.5
        lengths = torch.full((len(batch),), batch.shape[1])

        def bare() -> None:
            loss = cross_entropy(network(batch.masked_fill(hidden, 0), hidden, lengths).token_logits, batch)
            loss[hidden].mean().backward()  # type: ignore[no-untyped-call]
            network.zero_grad()

        taken = iter(range(STEPS_A_ROUND * (rounds + 1)))
        seconds = _medians({"step": lambda: run.stepper.take(next(taken)), "bare": bare}, rounds=rounds)
    return {
        "shape": name,
        "order": kind,
        "step_seconds": seconds["step"],
        "bare_seconds": seconds["bare"],
        "step_over_bare": seconds["step"] / seconds["bare"],
    }


def _medians(sides: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """CPU seconds of one call of each side, after a round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, run in sides.items():
            begin = time.process_time()
            for _ in range(STEPS_A_ROUND):
                run()
            taken[name].append((time.process_time() - begin) / STEPS_A_ROUND)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def recipe_of(shape: dict[str, int], kind: str, *, query_layers: int = 0, **run: Any) -> Recipe:
    """Of a table of these columns; `run` as in a recipe's `[run]`, by default float32 on a CPU."""
    fields: dict[str, Any] = {
        "name": "timed",
        "data": {"kind": "table", "path": "made-up.csv"},
        "model": {
            **{key: shape[key] for key in ("width", "layers", "mlp_width")},
            "heads": 4,
            "dropout": 0.1,
            "query_layers": query_layers,
        },
        "order": {"method": kind, "warmup": 0.0} if kind == "global" else {"method": kind},
        "optimizer": {"steps": 10_000, "batch_size": shape["batch"], "warmup_steps": 3},
        "run": {"precision": "32-true", "accelerator": "cpu", "threads": 1, **run},
    }
    return Recipe.of(fields)


def dataset_of(shape: dict[str, int]) -> Dataset:
    """Rows of such a table, made up."""
    draws = np.random.default_rng(0)
    num_rows = 4 * shape["batch"]
    texts = np.array([f"v{i}" for i in range(shape["values"])], dtype=object)
    columns: Any = {f"c{i}": texts[draws.integers(0, len(texts), num_rows)] for i in range(shape["columns"])}
    tokenizer = TableTokenizer.fit(columns, max_bins=8)
    ids = tokenizer.encode_rows(columns).tokens
    train, validation, test = np.split(ids, [num_rows // 2, num_rows * 3 // 4])
    return Dataset(
        name="timed", tokenizer=tokenizer, train=train, validation=validation, test=test, summary={"source": "made"}
    )


if __name__ == "__main__":
    main()
