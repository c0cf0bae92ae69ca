"""Sudoku prompts: what is taken, what is refused and how it is said, what comes out."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers import load_tokenizer
from unveil.model.tokenizers.base import Tokenizer
from unveil.model.tokenizers.grid import GridTokenizer, is_solution, units
from unveil.training.data.sudoku.solver import solve

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
GRID: Tokenizer = GridTokenizer()


def test_clues_are_known_and_the_rest_is_hidden() -> None:
    template = GRID.encode(PUZZLE)
    assert template.hidden == tuple(cell == "." for cell in PUZZLE)
    assert template.known == {i: cell for i, cell in enumerate(PUZZLE) if cell != "."}
    assert template.tokens[:6] == (4, 2, 0, 0, 6, 0)


def test_zeros_dots_lines_and_spaces_all_mean_the_same_grid() -> None:
    lines = "\n".join(PUZZLE[i : i + 9] for i in range(0, 81, 9))
    for prompt in (PUZZLE.replace(".", "0"), lines, f"  {lines}\r\n", " ".join(PUZZLE)):
        assert GRID.encode(prompt) == GRID.encode(PUZZLE)


def test_every_puzzle_that_has_a_solution_is_taken() -> None:
    clues = np.random.default_rng(0).random((200, 81))
    for shown in clues < np.linspace(0.0, 1.0, 200)[:, None]:
        puzzle = "".join(digit if is_shown else "." for digit, is_shown in zip(SOLUTION, shown, strict=True))
        assert GRID.encode(puzzle).hidden.count(False) == shown.sum()


def test_revealed_values_put_into_the_template_give_the_output() -> None:
    template = GRID.encode(PUZZLE)
    values = [template.known.get(i) or GRID.value(i, int(SOLUTION[i]) - 1, 0.5) for i in range(81)]
    output, text = GRID.output(values)
    assert output == SOLUTION
    assert text.split("\n") == [SOLUTION[i : i + 9] for i in range(0, 81, 9)]


def _with(cell: int, digit: str, grid: str = "." * 81) -> str:
    return grid[:cell] + digit + grid[cell + 1 :]


REFUSED = [
    (_with(8, "5", PUZZLE), "5 stands twice in one row: at row 1 column 1 (cell 0) and at row 1 column 9 (cell 8)"),
    (
        _with(72, "5", PUZZLE),
        "5 stands twice in one column: at row 1 column 1 (cell 0) and at row 9 column 1 (cell 72)",
    ),
    (_with(20, "6", PUZZLE), "6 stands twice in one row: at row 3 column 3 (cell 20) and at row 3 column 8 (cell 25)"),
    (_with(0, "7", _with(10, "7")), "7 stands twice in one box: at row 1 column 1 (cell 0) and at row 2 column 2"),
    (
        "12345678.........9" + "." * 63,
        "no digit is left for row 1 column 9 (cell 8): its row, column and box have all nine",
    ),
    (
        _with(3, "1", _with(58, "1", _with(27, "1", _with(42, "1", _with(50, "2"))))),
        "1 has no place left in row 6",
    ),
    (PUZZLE[:-1], "a grid must have 81 cells, row by row, got 80"),
    ("", "a grid must have 81 cells, row by row, got 0"),
    (PUZZLE + ".", "got 82"),
    (_with(2, "x", PUZZLE), 'a cell must be 1 to 9, or . or 0 where it is hidden, got "x" (cell 2)'),
    (_with(2, "٣", PUZZLE), 'got "٣" (cell 2)'),
    ("." * 10_001, "got 10001 characters"),
    ({"a": 1}, "a string of 81 cells, got an object"),
    (None, "a string of 81 cells, got null"),
]


@pytest.mark.parametrize(("prompt", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_is_no_grid_or_contradicts_itself_is_refused_in_one_line(prompt: object, said: str) -> None:
    with pytest.raises(PromptError) as error:
        GRID.encode(prompt)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.param is None


@pytest.mark.parametrize(("cell", "digit"), [(2, "2"), (3, "2"), (6, "4")])
def test_a_contradiction_that_shows_only_once_cells_are_filled_in_is_not_looked_for(cell: int, digit: str) -> None:
    """Looking for it took milliseconds a puzzle, in the event loop of the server."""
    puzzle = _with(cell, digit, PUZZLE)
    assert not solve(np.array([[int(c) for c in puzzle.replace(".", "0")]], dtype=np.int8), limit=1).counts.any()
    assert GRID.encode(puzzle).known[cell] == digit


def test_what_a_wrong_clue_has_refused_has_no_solution() -> None:
    draws = np.random.default_rng(1)
    refused = []
    for _ in range(300):
        shown = draws.random(81) < 0.4
        puzzle = "".join(digit if is_shown else "." for digit, is_shown in zip(SOLUTION, shown, strict=True))
        puzzle = _with(int(draws.integers(81)), str(draws.integers(1, 10)), puzzle)
        try:
            GRID.encode(puzzle)
        except PromptError:
            refused.append([int(cell) for cell in puzzle.replace(".", "0")])
    assert len(refused) > 100
    assert not solve(np.array(refused, dtype=np.int8), limit=1).counts.any()


def _naive_contradiction(cells: str) -> bool:
    """By sets: a digit twice in a unit, a hidden cell without a digit, a digit without a cell."""
    seen = [{cells[i] for unit in units() if cell in unit for i in unit} for cell in range(81)]
    left = [set("123456789") - seen[i] if cells[i] == "." else {cells[i]} for i in range(81)]
    known = [[cells[i] for i in unit if cells[i] != "."] for unit in units()]
    is_twice = any(len(own) > len(set(own)) for own in known)
    return is_twice or not all(left) or any(len(set().union(*(left[i] for i in unit))) < 9 for unit in units())


def test_a_canvas_contradicts_itself_exactly_where_the_rules_by_sets_say_so() -> None:
    draws, found = np.random.default_rng(2), [0, 0]
    tokenizer = GridTokenizer()
    for _ in range(400):
        shown = draws.random(81) < draws.random()
        cells = ["." if not is_shown else digit for digit, is_shown in zip(SOLUTION, shown, strict=True)]
        if draws.random() < 0.5:
            cells[int(draws.integers(81))] = str(draws.integers(1, 10))
        tokens, hidden = [int(cell) - 1 if cell != "." else 0 for cell in cells], [cell == "." for cell in cells]
        said = tokenizer.contradiction(tokens, hidden)
        assert (said is not None) == _naive_contradiction("".join(cells))
        found[said is not None] += 1
    assert min(found) > 50


def test_a_length_is_refused() -> None:
    with pytest.raises(PromptError, match="length is not valid with a grid") as error:
        GRID.encode(PUZZLE, length=81)
    assert error.value.param == "length"


@given(st.integers(0, 80), st.integers(0, 80), st.sampled_from("123456789"))
def test_two_equal_digits_are_refused_exactly_where_a_unit_has_both(a: int, b: int, digit: str) -> None:
    prompt = _with(a, digit, _with(b, digit))
    if a != b and any(a in unit and b in unit for unit in units()):
        with pytest.raises(PromptError, match=f"{digit} stands twice"):
            GRID.encode(prompt)
    else:
        assert GRID.encode(prompt).hidden.count(False) == len({a, b})


def test_a_solution_is_complete_lawful_and_keeps_the_clues() -> None:
    assert is_solution(SOLUTION, PUZZLE)
    assert not is_solution(SOLUTION, _with(2, "9", PUZZLE))
    assert not is_solution(PUZZLE, PUZZLE)
    swapped = SOLUTION.translate(str.maketrans("12", "21"))
    assert is_solution(swapped, "." * 81)
    assert not is_solution(_with(0, "3", SOLUTION), "." * 81)


def test_the_file_is_read_back_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    GRID.save(path)
    assert json.loads(path.read_text()) == {"format": "unveil-grid", "version": 1, "side": 9, "box": 3}
    loaded = load_tokenizer(tmp_path, "grid", length=81, default_length=81)
    assert loaded.encode(loaded.example_prompt()).hidden.count(True) == 51
    with pytest.raises(ArtifactError, match="81 cells, the artifact's config says 16"):
        load_tokenizer(tmp_path, "grid", length=16, default_length=16)
    for text in ("{", '{"format": "unveil-grid", "version": 1, "side": 16}', '{"format": "unveil-table"}'):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=r"tokenizer\.json is not a grid tokenizer"):
            load_tokenizer(tmp_path, "grid", length=81, default_length=81)
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_tokenizer(tmp_path, "grid", length=81, default_length=81)
