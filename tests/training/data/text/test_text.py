"""Text files to canvases."""

from pathlib import Path

import pytest

from unveil.model.errors import UnveilError
from unveil.training.data.config import TextData
from unveil.training.data.text.text import load_text

STORY = "The cat sat on the mat, and the dog sat on the log. " * 40


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "story.txt"
    path.write_text(STORY)
    return path


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_canvases_in_order_are_the_text_of_their_part(story: Path, kind: str) -> None:
    config = TextData.model_validate({"files": [story], "tokenizer": kind, "length": 16, "test_share": 0.25})
    dataset = load_text(config)
    token = dataset.tokenizer.token
    texts = ["".join(token(0, int(i)) for i in s.ravel()) for s in (dataset.train, dataset.validation, dataset.test)]
    assert STORY.startswith(texts[0])
    assert texts[2] in STORY[-len(STORY) // 4 :]
    assert dataset.train.shape[1] == dataset.tokenizer.length == 16
    assert len(texts[0]) > 0.65 * len(STORY)


def test_every_file_gives_to_every_part(story: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(STORY.lower().replace("cat", "cow"))
    both = load_text(TextData(files=(story, other), length=8))
    alone = [load_text(TextData(files=(path,), length=8)) for path in (story, other)]
    assert len(both.test) == sum(len(dataset.test) for dataset in alone)
    assert set(both.summary["sha256"]) == {"story.txt", "other.txt"}


def test_characters_that_training_never_saw_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("ab" * 85 + "[abab^abab]-abababab" + "ab" * 5)
    dataset = load_text(TextData(files=(path,), length=4, validation_share=0.1, test_share=0.05))
    assert dataset.tokenizer.vocabulary_sizes == (2,)
    unknown = [dataset.summary[part]["unknown_characters"] for part in ("train", "validation", "test")]
    assert unknown == [0, 4, 0]
    assert dataset.validation.tolist() == [[0, 1, 0, 1]] * 4


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text("abcdefgh\n" * 100 + "ab\u00e9cdefgh\n" * 8)
    config = TextData(files=(path,), tokenizer="characters", length=4, validation_share=0.05, test_share=0.1)
    notices = load_text(config).summary["notices"]
    assert len(notices) == 1
    assert notices[0].endswith(
        "characters of the test part are not in the training part: left out, and the text cut there "
        f'(the first: "\u00e9", {path} line 101)'
    )


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "x.txt" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.write_text(f"{path.parent.name} story of little " * 30)
    summary = load_text(TextData(files=tuple(paths), tokenizer="characters", length=4)).summary
    assert list(summary["sha256"]) == [str(path) for path in paths]
    assert summary["source"] == ", ".join(map(str, paths))


def test_a_name_that_no_card_can_have_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "donn\udce9es.txt"
    path.write_text("a story of little " * 30)
    with pytest.raises(UnveilError, match=r"donn\?es.txt: the file's name is not UTF-8; rename it"):
        load_text(TextData(files=(path,), tokenizer="characters", length=4))


def test_refusals_word_by_word(tmp_path: Path, story: Path) -> None:
    path = tmp_path / "t.txt"

    def refusal(config: TextData) -> str:
        with pytest.raises(UnveilError) as caught:
            load_text(config)
        return str(caught.value).replace(f"{tmp_path}/", "")

    assert refusal(TextData(files=(path,))) == "t.txt cannot be read: No such file or directory"
    path.write_bytes(b"")
    assert refusal(TextData(files=(path,))) == "t.txt is empty"
    path.write_bytes(b"ok\nok\n\xff")
    assert refusal(TextData(files=(path,))) == "t.txt line 3 is not UTF-8 text"
    path.write_text("short")
    assert refusal(TextData(files=(path,))) == "t.txt: the train part gives no canvas of 128 tokens"
    path.write_text("long enough to train, but no more. " * 5)
    assert refusal(TextData(files=(path,))) == "t.txt: the validation part gives no canvas of 128 tokens"
    assert refusal(TextData(files=(story,), tokenizer="bpe", vocab_size=4)) == (
        "story.txt: 16 different characters, data.vocab_size is 4"
    )
