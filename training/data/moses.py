"""Molecules of MOSES (Polykovskiy et al. 2020) as the molsets package carries them. Knows where they are."""

import gzip
from pathlib import Path

import numpy as np

from model.errors import DataError
from training.data.config import MosesData
from training.data.dataset import Dataset
from training.data.lines import Line, LineTokenizer, line_dataset, resized
from training.data.wheels import Wheel, read_member

WHEEL = Wheel("molsets", "0.3.1", "7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34")
FOLDER = "moses/dataset/data"


def load_moses(config: MosesData, tokenizer: LineTokenizer, *, cache: Path) -> Dataset:
    """The package's own test file is the test split. Raises DataError."""
    train, test = (read_molecules(name, cache=cache) for name in ("train", "test"))
    draws = np.random.default_rng(config.seed)
    chosen = _drawn(train, config.rows + config.validation_rows, draws)
    return line_dataset(
        "moses",
        {
            "train": chosen[: config.rows],
            "validation": chosen[config.rows :],
            "test": _drawn(test, config.test_rows, draws),
        },
        tokenizer=resized(tokenizer, config.length),
        summary={
            "source": f"MOSES (Polykovskiy et al., 2020), files of the {WHEEL.requirement} wheel",
            "licence": "MIT",
            "sha256": {"wheel": WHEEL.sha256},
        },
    )


def read_molecules(name: str, *, cache: Path) -> list[Line]:
    """All SMILES of one file, a header first. Raises DataError."""
    member = f"{FOLDER}/{name}.csv.gz"
    try:
        text = gzip.decompress(read_member(WHEEL, member, cache=cache)).decode("ascii")
    except (OSError, EOFError, UnicodeDecodeError):
        raise DataError(f"{WHEEL.requirement}: {member} is damaged") from None
    header, *rows = text.splitlines()
    if header.split(",")[0] != "SMILES":
        raise DataError(f"{WHEEL.requirement}: {member} has no column SMILES first")
    return [Line(row.partition(",")[0], f"{member} line {i}") for i, row in enumerate(rows, start=2)]


def _drawn(lines: list[Line], count: int, draws: np.random.Generator) -> list[Line]:
    if count > len(lines):
        raise DataError(f"data.rows: {count} molecules with those for validation; MOSES has {len(lines)}")
    return [lines[i] for i in draws.permutation(len(lines))[:count]]
