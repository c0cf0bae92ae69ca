"""Documents through the `datasets` library, out of a folder: no network."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.small import documents
from unveil.model.errors import UnveilError
from unveil.training.data.config import HubData
from unveil.training.data.dataset import Dataset
from unveil.training.data.text import hub
from unveil.training.data.text.hub import NEEDED, Stretch, load_hub, stretches

pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("default")  # of the library's own


def load(folder: Path, cache: Path, **fields: Any) -> Dataset:
    shared = {"length": 8, "validation_documents": 3, "test_documents": 4, **fields}
    return load_hub(HubData.model_validate({"path": str(folder), **shared}), cache=cache)


def text(dataset: Dataset, rows: "np.ndarray[Any, Any]") -> str:
    return "".join(dataset.tokenizer.token(0, int(i)) for i in rows.ravel())


def test_held_out_documents_come_off_the_beginning_and_are_in_no_other_split(tmp_path: Path) -> None:
    dataset = load(documents(tmp_path / "docs"), tmp_path / "cache", tokenizer="bpe", vocab_size=60)
    assert [dataset.summary[part]["documents"] for part in ("validation", "test", "train")] == [3, 4, 33]
    assert text(dataset, dataset.validation).startswith("Document 0 of train: the cat sat on the mat. \nDocument 1 ")
    assert text(dataset, dataset.test).startswith("Document 3 ")
    assert text(dataset, dataset.train).startswith("Document 7 ")
    assert isinstance(dataset.train, np.memmap), "what is larger than memory stays on the disk"
    assert dataset.train.flags.writeable, "torch takes no other"


def test_splits_of_its_own_and_a_limit(tmp_path: Path) -> None:
    folder = documents(documents(tmp_path / "docs"), 5, split="test")
    dataset = load(folder, tmp_path / "cache", test="test", documents=10)
    assert [dataset.summary[part]["documents"] for part in ("validation", "test", "train")] == [3, 5, 10]
    assert text(dataset, dataset.test).startswith("Document 0 of t")
    config = HubData(path="p", validation="validation", test_documents=7, documents=10)
    assert stretches(config) == {
        "train": Stretch("train", 7, 17),
        "validation": Stretch("validation"),
        "test": Stretch("train", 0, 7),
    }


def test_it_is_encoded_once_and_anew_when_a_file_changes(tmp_path: Path) -> None:
    folder, cache = documents(tmp_path / "docs"), tmp_path / "cache"
    first = load(folder, cache)
    kept = {path.name for path in cache.iterdir()}
    longer = load(folder, cache, length=16)
    assert {path.name for path in cache.iterdir()} == kept, "the ids do not depend on the length"
    assert text(longer, longer.train).startswith(text(first, first.train[:10]))
    changed = load(documents(folder, 41), cache)
    assert changed.summary["train"]["documents"] == 34
    assert not list(cache.glob(".datasets-*")), "nothing half-made is left"


def test_of_several_that_ask_at_once_one_encodes_and_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, encoded, encode = documents(tmp_path / "docs"), [], hub._encode

    def counted(config: HubData, into: Path) -> None:
        encoded.append(into)
        encode(config, into)

    monkeypatch.setattr(hub, "_encode", counted)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(load, folder, tmp_path / "cache") for _ in range(4)]
        fingerprints = {future.result().fingerprint for future in asked}
    assert len(encoded) == len(fingerprints) == 1


def test_characters_beyond_the_vocabulary_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = documents(tmp_path / "docs")
    path = folder / "train.jsonl"
    path.write_text(
        path.read_text().replace("Document 2 of", "Döcument 2 of").replace("Document 39 of", "Dœcument 39 of")
    )
    dataset = load(folder, tmp_path / "cache", tokenizer_documents=10)
    found = {part: dataset.summary[part]["unknown_characters"] for part in ("train", "validation", "test")}
    assert found == {"train": 1, "validation": 1, "test": 0}


def test_refusals_name_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = documents(tmp_path / "docs")

    def refusal(**fields: Any) -> str:
        with pytest.raises(UnveilError) as caught:
            load(folder, tmp_path / "cache", **fields)
        assert not list((tmp_path / "cache").glob("datasets-*/")), "nothing is kept of what failed"
        return str(caught.value).replace(f"{tmp_path}/", "")

    assert refusal(column="words") == "docs, split train, document 7: no text in words (data.column); text is in text"
    assert refusal(column="n") == "docs, split train, document 7: no text in n (data.column); text is in text"
    assert refusal(train="trian").startswith("docs cannot be read through datasets: Bad split: trian")
    assert refusal(test="tset").startswith("docs cannot be read through datasets: Bad split: tset")
    assert refusal(test_documents=40) == ("docs: no documents in the split train (data.train) beyond the held-out ones")
    assert refusal(tokenizer="bpe", vocab_size=4).endswith("different characters, data.vocab_size is 4")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refusal() == NEEDED
    monkeypatch.undo()
    with pytest.raises(UnveilError, match=r"the validation documents give no canvas of 512 tokens \(data.length\)$"):
        load(folder, tmp_path / "cache", length=512)
