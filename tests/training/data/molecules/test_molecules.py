"""Molecules from MOSES's files, in small, and from a user's file."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.training.molecules import MOLECULES, molecules_dataset, textbook
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.smiles import SmilesTokenizer
from unveil.training.data.config import MosesData, SmilesData
from unveil.training.data.dataset import Dataset
from unveil.training.data.molecules import molecules
from unveil.training.data.molecules.molecules import encode, load_moses, load_smiles
from unveil.training.data.wheels import Wheel

TEST = ["CCO", "CCCCCCCCCCCCCCCCCCCCCCCCCCCC", "C[Se]C"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A wheel whose train file has the textbook molecules; tells which files were read."""
    files = {"train": textbook(), "test": TEST, "test_scaffolds": ["c1ccccc1"]}
    read_files: list[str] = []

    def read(wheel: Wheel, member: str, *, cache: Path) -> bytes:
        assert wheel.requirement == "molsets==0.3.1"
        name = Path(member).name.removesuffix(".csv.gz")
        read_files.append(name)
        return gzip.compress("\n".join(["SMILES,SPLIT", *(f"{text},{name}" for text in files[name]), ""]).encode())

    monkeypatch.setattr(molecules, "read_member", read)
    return read_files


def texts(dataset: Dataset, split: str) -> list[str]:
    assert isinstance(dataset.tokenizer, SmilesTokenizer)
    return dataset.tokenizer.texts(getattr(dataset, split))


def test_the_packages_test_file_is_the_test_split_and_validation_comes_from_its_train_file(
    reads: list[str], tmp_path: Path
) -> None:
    dataset = load_moses(MosesData(validation_rows=20), cache=tmp_path)
    assert sorted(texts(dataset, "train") + texts(dataset, "validation")) == sorted(textbook())
    assert len(dataset.validation) == 20
    assert texts(dataset, "test") == ["CCO"]
    scaffolds = load_moses(MosesData(validation_rows=20, test="test_scaffolds"), cache=tmp_path)
    assert texts(scaffolds, "test") == ["c1ccccc1"]


def test_the_encoded_rows_are_kept_and_a_torn_file_is_made_anew(reads: list[str], tmp_path: Path) -> None:
    first = load_moses(MosesData(validation_rows=20), cache=tmp_path)
    again = load_moses(MosesData(validation_rows=20), cache=tmp_path)
    assert len(reads) == 3
    assert again.fingerprint == first.fingerprint
    (kept,) = tmp_path.glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    assert load_moses(MosesData(validation_rows=20), cache=tmp_path).fingerprint == first.fingerprint
    assert len(reads) == 6


def test_rows_take_a_byte_a_token_and_end_in_end_tokens(reads: list[str], tmp_path: Path) -> None:
    dataset = load_moses(MosesData(validation_rows=20, length=60), cache=tmp_path)
    assert dataset.train.dtype == np.uint8
    assert dataset.train.shape[1] == dataset.tokenizer.length == 60
    assert not dataset.lengths  # the end is a token like any other
    is_end = dataset.train == 0
    assert is_end[:, -1].all()
    assert (np.diff(is_end.astype(int), axis=1) >= 0).all()


def test_rows_too_long_or_with_a_token_that_training_never_saw_are_left_out_and_said(
    reads: list[str], tmp_path: Path
) -> None:
    dataset = load_moses(MosesData(validation_rows=20), cache=tmp_path)
    assert dataset.summary["test"] == {"rows": 1, "too_long": 1, "unknown_tokens": 1}
    longest = dataset.tokenizer.length
    assert dataset.summary["notices"] == [
        f"1 of 3 test rows are longer than {longest} tokens: left out (the first: test.csv.gz line 3)",
        "1 of 3 test rows hold a token that no training row has: left out (the first: test.csv.gz line 4)",
    ]


def test_of_rows_left_out_of_a_users_file_the_first_ones_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.smi"
    path.write_text("\n" + "CCO\nCCN\n" * 20 + "CCCCCCCC\n" + "OCC\n" * 20 + "CCCCCCC\n")
    dataset = load_smiles(SmilesData(path=path, length=6, seed=1))
    counts = {part: dataset.summary[part]["too_long"] for part in ("train", "validation", "test")}
    assert sum(counts.values()) == 2
    notices = dataset.summary["notices"]
    assert len(notices) == sum(number > 0 for number in counts.values())
    first = notices[0].partition("left out (the first: ")[2]
    assert first in (f"{path} line 42)", f"{path} line 63)")
    assert first == f"{path} line 42)" or len(notices) == 2


def test_fingerprints_are_of_ids_and_not_of_how_wide_they_are_kept() -> None:
    dataset = molecules_dataset()
    wide = Dataset(
        name=dataset.name,
        tokenizer=dataset.tokenizer,
        train=dataset.train.astype(np.int64),
        validation=dataset.validation.astype(np.int64),
        test=dataset.test.astype(np.int64),
    )
    assert wide.fingerprint == dataset.fingerprint


def test_encoding_in_blocks_is_encoding_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode(textbook())
    monkeypatch.setattr(molecules, "_BLOCK_ROWS", 7)
    parts = encode(textbook())
    assert parts.tokens == whole.tokens
    assert (parts.rows == whole.rows).all()
    shown = np.array(["", *whole.tokens], dtype=object)
    assert ["".join(row) for row in shown[whole.rows]] == textbook()


def test_a_file_of_lines_and_a_column_of_a_table_give_the_same_rows(tmp_path: Path) -> None:
    table = tmp_path / "molecules.csv"
    table.write_text("\n".join(["id,smiles", *(f"{i},{text}" for i, text in enumerate(textbook())), ""]))
    a, b = load_smiles(SmilesData(path=MOLECULES)), load_smiles(SmilesData(path=table, column="smiles"))
    assert a.fingerprint == b.fingerprint
    assert sum(len(split) for split in (a.train, a.validation, a.test)) == len(textbook())


def test_a_table_of_molecules_may_have_as_many_other_columns_as_it_likes(tmp_path: Path) -> None:
    table = tmp_path / "molecules.csv"
    header = ",".join(["smiles", *(f"descriptor {i}" for i in range(600))])
    table.write_text("\n".join([header, *(text + ",0" * 600 for text in textbook())]))
    assert load_smiles(SmilesData(path=table, column="smiles")).fingerprint == molecules_dataset().fingerprint


def test_refusals_word_by_word(tmp_path: Path) -> None:
    path = tmp_path / "m.smi"

    def refusal(text: str, **fields: object) -> str:
        path.write_text(text)
        with pytest.raises(UnveilError) as caught:
            load_smiles(SmilesData.model_validate({"path": path, **fields}))
        return str(caught.value).replace(f"{tmp_path}/", "")

    many = "CCO\n" * 12
    assert refusal("") == "m.smi is empty"
    assert refusal("CCO\n\nC\n") == "m.smi: 2 molecules, at least 10 are needed"
    hint = "; a table takes data.column"
    assert refusal(f"{many}\nCC!O\n") == f'm.smi line 14: "!" is no part of a SMILES (character 3){hint}'
    assert refusal(f"{many}C[nH\n") == 'm.smi line 13: "[" is not closed (character 2)'
    assert refusal(f"{many}\nc1ccccc\n") == "m.smi line 14: ring 1 is not closed (character 2)"
    assert refusal(f"{many}CC(C\n{many}") == 'm.smi line 13: "(" is not closed (character 3)'
    rows = "".join(f"{i},CCO\n" for i in range(11))
    assert refusal(f"id,smiles\n{rows}11,\n", column="smiles") == "m.smi line 13: no SMILES"
    assert refusal(f"id,smiles\n{rows}11,C?\n", column="smiles") == (
        'm.smi line 13: "?" is no part of a SMILES (character 2)'
    )
    assert refusal(f"id,smiles\n{rows}11,CC)C\n", column="smiles") == 'm.smi line 13: ")" closes nothing (character 3)'
    assert refusal(f"id,smiles\n{rows}", column="mol").startswith('m.smi has no column "mol" (data.column)')
    assert refusal(many, length=2) == "m: none of the train rows fits a model of 2 tokens"
