"""Sudoku puzzles: the solver, the maker, the symmetries, the splits."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.data.sudoku.examples import grid, pool
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.grid import is_solution, units
from unveil.training.data.config import SudokuData
from unveil.training.data.load import load_dataset
from unveil.training.data.sudoku import sudoku
from unveil.training.data.sudoku.puzzles import dig, make_solutions, orbit_marks, refilled, shuffled
from unveil.training.data.sudoku.solver import Grids, grids_of, masks_of, propagate, solve
from unveil.training.data.sudoku.sudoku import load_sudoku, make_pool, shuffle_puzzles

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
HARD = "4.....8.5.3..........7......2.....6.....8.4......1.......6.3.7.5..2.....1.4......"


def _text(row: Grids) -> str:
    return "".join(map(str, row))


def test_the_solver_finds_the_solution_of_easy_and_of_hard_puzzles() -> None:
    found = solve(np.concatenate([grid(PUZZLE), grid(HARD)]))
    assert found.counts.tolist() == [1, 1]
    assert _text(found.grids[0]) == SOLUTION
    assert is_solution(_text(found.grids[1]), HARD)


def test_the_solver_counts_solutions_up_to_its_limit() -> None:
    two = SOLUTION.translate(str.maketrans("12", ".."))  # what is 1 and what is 2 may be swapped, and no more or less
    contradiction = "55" + "." * 79
    hopeless = "12345678." + "........9" + "." * 63  # the corner has no digit left
    found = solve(np.concatenate([grid(g) for g in ("." * 81, two, contradiction, hopeless)]), limit=3)
    assert found.counts.tolist() == [3, 2, 0, 0]


def test_a_forbidden_digit_is_not_taken() -> None:
    forbidden = np.zeros((1, 81), dtype=np.uint16)
    forbidden[0, 2] = 1 << 3  # the solution has a 4 there
    assert solve(grid(PUZZLE), forbidden=forbidden).counts.tolist() == [0]


def test_singles_alone_never_say_what_is_wrong() -> None:
    solutions, clues = pool()
    masks, sound = propagate(masks_of(np.where(clues, solutions, 0).astype(np.int8)))
    assert sound.all()
    digits = grids_of(masks)
    assert ((digits == 0) | (digits == solutions)).all()


def test_made_grids_are_complete_and_all_different() -> None:
    solutions, _ = pool()
    assert all(is_solution(_text(row), "." * 81) for row in solutions)
    assert len(np.unique(solutions, axis=0)) == len(solutions)


def test_a_made_puzzle_has_one_solution_and_no_clue_to_spare() -> None:
    solutions, clues = pool()
    puzzles = np.where(clues, solutions, 0).astype(np.int8)
    found = solve(puzzles)
    assert (found.counts == 1).all()
    assert (found.grids == solutions).all()
    row, cells = puzzles[0], np.flatnonzero(clues[0])
    without = np.tile(row, (len(cells), 1))
    without[np.arange(len(cells)), cells] = 0
    assert (solve(without).counts == 2).all()


def test_refilling_adds_just_so_many_clues() -> None:
    _, clues = pool()
    extra = np.arange(len(clues)) % 17
    more = refilled(clues, extra, np.random.default_rng(0))
    assert (more.sum(1) == clues.sum(1) + extra).all()
    assert (more >= clues).all()


def test_symmetries_keep_puzzles_puzzles_and_do_not_change_their_mark() -> None:
    solutions, clues = pool()
    generator = np.random.default_rng(1)
    moved = shuffled(solutions, generator)
    assert all(is_solution(_text(row), "." * 81) for row in moved)
    assert (moved != solutions).any(1).all()
    assert (orbit_marks(moved) == orbit_marks(solutions)).all()
    assert len(np.unique(orbit_marks(solutions))) == len(solutions)
    rows, known = shuffle_puzzles(solutions.astype(np.int64) - 1, clues, generator)
    puzzles = np.where(known, rows + 1, 0).astype(np.int8)
    found = solve(puzzles)
    assert (found.counts == 1).all()
    assert (found.grids == rows + 1).all()


def test_a_symmetry_takes_every_unit_to_a_unit() -> None:
    from unveil.training.data.sudoku.puzzles import draw_symmetries

    cells, digits = draw_symmetries(50, np.random.default_rng(2))
    all_units = {frozenset(unit) for unit in units()}
    for row in cells:
        assert {frozenset(row[list(unit)].tolist()) for unit in units()} == all_units
    assert (np.sort(digits, axis=1) == np.arange(9)).all()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sudoku, "BLOCK", 8)


CONFIG = SudokuData(puzzles=12, validation_puzzles=3, test_puzzles=4, versions=2, extra_clues=5)


@pytest.mark.usefixtures("small_blocks")
def test_the_splits_hold_puzzles_and_no_orbit_is_in_two(tmp_path: Path) -> None:
    dataset = load_dataset(CONFIG, cache=tmp_path)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [24, 3, 4]
    marks = [
        set(orbit_marks((getattr(dataset, s) + 1).astype(np.int8)).tolist()) for s in ("train", "validation", "test")
    ]
    assert not (marks[0] & marks[1] | marks[0] & marks[2] | marks[1] & marks[2])
    for split in ("train", "validation", "test"):
        rows, known = getattr(dataset, split), dataset.known[split]
        assert (solve(np.where(known, rows + 1, 0).astype(np.int8)).counts == 1).all()
    counts = dataset.known["train"].sum(1)
    assert (counts[::2] <= counts[1::2]).all(), "the first version of each has no clue to spare"


@pytest.mark.usefixtures("small_blocks")
def test_another_splits_orbit_is_left_out_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_solutions(8, np.random.default_rng(0))

    def makes_the_same(count: int, generator: np.random.Generator) -> Grids:
        return shuffled(first, generator)[:count]

    monkeypatch.setattr(sudoku, "make_solutions", makes_the_same)
    with pytest.raises(UnveilError, match="no validation puzzle is left"):
        load_sudoku(CONFIG, cache=tmp_path)


@pytest.mark.usefixtures("small_blocks")
def test_the_same_seed_gives_the_same_data_whether_the_cache_holds_it_or_not(tmp_path: Path) -> None:
    first = load_sudoku(CONFIG, cache=tmp_path / "a")
    again, anew = load_sudoku(CONFIG, cache=tmp_path / "a"), load_sudoku(CONFIG, cache=tmp_path / "b")
    other = load_sudoku(CONFIG.model_copy(update={"seed": 1}), cache=tmp_path / "a")
    assert first.fingerprint == again.fingerprint == anew.fingerprint != other.fingerprint
    solutions, clues = make_pool("train", 10, 0, tmp_path / "a")
    assert (solutions.shape, clues.shape) == ((10, 81), (10, 81))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kept", [50, 0])
def test_a_damaged_cache_is_one_clear_error(tmp_path: Path, kept: int) -> None:
    load_sudoku(CONFIG, cache=tmp_path)
    path = next(tmp_path.glob("*test-0.npy"))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UnveilError, match=r"test-0\.npy: cannot be read; remove it"):
        load_sudoku(CONFIG, cache=tmp_path)


def test_digging_leaves_between_seventeen_and_forty_clues() -> None:
    solutions, clues = pool()
    assert ((clues.sum(1) >= 17) & (clues.sum(1) <= 40)).all()
    assert (dig(solutions[:2], np.random.default_rng(9)) != clues[:2]).any()
