"""A text a line, in the pieces of a model that is there: rows, padding, and the line that is to blame."""

from pathlib import Path

import numpy as np
import pytest

from tests.model.artifacts import table_tokenizer, text_tokenizer
from tests.model.foreign import TOKENS, word_tokenizer
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.pieces import PieceTokenizer
from unveil.training.config import build_recipe
from unveil.training.data.config import LinesData
from unveil.training.data.load import load_dataset
from unveil.training.data.text.lines import load_lines

MASK = TOKENS.index("[MASK]")


def _words() -> PieceTokenizer:
    return PieceTokenizer(word_tokenizer(marks=True), mask_id=MASK, length=8, default_length=2)


def _file(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_lines_become_rows_filled_up_with_what_is_on_offer(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.txt", "the cat", "", "cat sat on the mat.\r", *["the mat"] * 18)
    dataset = load_lines(LinesData(files=(path,)), _words())
    assert dataset.train.shape == (18, 8)
    assert sum(len(x) for x in (dataset.train, dataset.validation, dataset.test)) == 20
    for split in ("train", "validation", "test"):
        for row, length in zip(getattr(dataset, split), dataset.lengths[split], strict=True):
            assert (row[length:] == row[0]).all()
            assert length in (2, 6)
    again = load_lines(LinesData(files=(path,)), _words())
    assert again.fingerprint == dataset.fingerprint
    assert load_lines(LinesData(files=(path,), seed=1), _words()).fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("the dog sat", r'a\.txt line 2: the model does not know "dog"'),
        ("the [MASK] sat", r"a\.txt line 2: \[MASK\] is the model's own mask"),
        ("a b c d e f g h a", r"a\.txt line 2: 9 tokens, a canvas takes 1 to 8"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = _file(tmp_path / "a.txt", "the cat", line, "the mat", "the")
    with pytest.raises(UnveilError, match=message):
        load_lines(LinesData(files=(path,)), _words())


def test_canvases_may_be_shorter_than_the_models_and_no_longer(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.txt", *["the cat"] * 5)
    dataset = load_lines(LinesData(files=(path,), length=3), _words())
    assert dataset.train.shape[1] == dataset.tokenizer.length == 3
    with pytest.raises(UnveilError, match=r"data\.length: 9, but the model of start\.artifact takes at most 8"):
        load_lines(LinesData(files=(path,), length=9), _words())
    with pytest.raises(UnveilError, match="2 lines; one for each of train, validation, test is needed"):
        load_lines(LinesData(files=(_file(tmp_path / "b.txt", "a", "b"),)), _words())


def test_our_own_text_models_take_lines_too_and_tables_do_not(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.txt", *["abc", "de"] * 3)
    dataset = load_dataset(LinesData(files=(path,)), cache=tmp_path, tokenizer=text_tokenizer())
    assert np.concatenate(list(dataset.lengths.values())).sum() == 15
    for tokenizer in (None, table_tokenizer()):
        with pytest.raises(UnveilError, match=r"needs the tokenizer of a text model; name one in start\.artifact"):
            load_dataset(LinesData(files=(path,)), cache=tmp_path, tokenizer=tokenizer)


def test_a_recipe_of_lines_needs_an_artifact() -> None:
    with pytest.raises(UnveilError, match=r"start\.artifact: data\.kind lines needs one, for its tokenizer"):
        build_recipe({"name": "x", "data": {"kind": "lines", "files": ["a.txt"]}}, source="x")
