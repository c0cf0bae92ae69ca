"""The value that the trainer gets, and the recipe's part that asks for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.data.config import AdultData, DataConfig, TableData, TextData
from unveil.training.data.dataset import Dataset
from unveil.training.data.load import load_dataset

CONFIG: TypeAdapter[Any] = TypeAdapter(DataConfig)


def dataset() -> Dataset:
    tokenizer = TableTokenizer.fit({"x": np.arange(6.0), "y": np.arange(6.0)})
    rows = np.arange(12).reshape(6, 2) % 6
    return Dataset(name="tiny", tokenizer=tokenizer, train=rows[:3], validation=rows[3:4], test=rows[4:])


def test_the_fingerprint_changes_with_every_id_shape_split_and_meaning() -> None:
    one = dataset()
    assert one.fingerprint == dataset().fingerprint
    other_ids = one.train.copy()
    other_ids[0, 0] += 1
    renamed = TableTokenizer.fit({"x": np.arange(6.0), "z": np.arange(6.0)})
    changed = [
        replace(one, train=other_ids),
        replace(one, train=one.train.reshape(2, 3)),
        replace(one, validation=one.test[:1], test=np.concatenate([one.validation, one.test[1:]])),
        replace(one, lengths={"train": np.array([1, 2, 2])}),
        replace(one, tokenizer=renamed),
    ]
    assert len({d.fingerprint for d in changed} | {one.fingerprint}) == 6


def test_the_fingerprint_does_not_hang_on_name_or_memory_layout() -> None:
    one = dataset()
    same = replace(one, name="other", train=np.asfortranarray(one.train), summary={"source": "elsewhere"})
    assert same.fingerprint == one.fingerprint


def test_names_are_those_of_the_columns() -> None:
    assert dataset().names == ("x", "y")


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ({"kind": "adult"}, AdultData),
        ({"kind": "table", "path": "t.csv", "columns": {"a": {"kind": "numeric"}}}, TableData),
        ({"kind": "text", "files": ["a.txt"], "tokenizer": "bpe", "vocab_size": 300}, TextData),
    ],
)
def test_the_kind_chooses_the_settings(written: dict[str, Any], kind: type) -> None:
    assert isinstance(CONFIG.validate_python(written), kind)


@pytest.mark.parametrize(
    "written",
    [
        {"kind": "adlut"},
        {"kind": "adult", "max_bin": 3},
        {"kind": "adult", "max_bins": 0},
        {"kind": "adult", "validation_share": 0.5},
        {"kind": "table"},
        {"kind": "table", "path": "t.csv", "columns": {"a": {"knd": "numeric"}}},
        {"kind": "network", "name": "asia"},
        {"kind": "text", "files": []},
        {"kind": "text", "files": ["a.txt"], "vocab_size": 300},
        {"kind": "text", "files": ["a.txt"], "length": 8, "default_length": 9},
    ],
)
def test_settings_that_nothing_reads_or_that_cannot_be_are_refused(written: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CONFIG.validate_python(written)


def test_every_kind_is_loaded_by_its_own_reader(tmp_path: Path) -> None:
    table, text = tmp_path / "t.csv", tmp_path / "t.txt"
    table.write_text("x,y\n" + "1,a\n2,b\n" * 30)
    text.write_text("to be or not to be " * 40)
    assert load_dataset(TableData(path=table), cache=tmp_path).tokenizer.domain == "table"
    assert load_dataset(TextData(files=(text,), length=8), cache=tmp_path).tokenizer.domain == "text"
