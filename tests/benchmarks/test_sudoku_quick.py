"""The sudoku benchmark's quick variant, its puzzles and its judge."""

from pathlib import Path

import pytest

from benchmarks.problems.grids import RATINGS, count_clues, qqwing_solutions, rated_puzzles, read_puzzles
from benchmarks.sudoku import difference, drawn, share
from model.artifact import save_artifact
from model.errors import DataError
from model.tokenizers.grid import GridTokenizer, is_solution
from tests.benchmarks.quick import call, run
from tests.model.test_planes import plane_network

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"


def test_it_sets_every_order_beside_the_others_on_the_same_puzzles(tmp_path: Path) -> None:
    artifact, hard = tmp_path / "grids", tmp_path / "hard.txt"
    save_artifact(
        artifact, denoiser=plane_network(loops=1), tokenizer=GridTokenizer(), training={}, figures={}, card=""
    )
    hard.write_text(f"# one easy puzzle\n\n{PUZZLE}\n")
    arguments = ("--artifact", str(artifact), "--work", str(tmp_path / "work"), "--hard", str(hard))
    report = run("sudoku", *arguments)
    assert set(report["solved"]) == {*(f"qqwing {rating}" for rating in RATINGS), "hard, more clues"}
    assert all(set(orders) == {"learned", "margin", "confidence", "uniform"} for orders in report["solved"].values())
    assert report["puzzles"]["hard, more clues"] == {"number": 1, "clues": 30.0}
    assert set(report["curve"]["margin"]) == {"1", "81"}
    if report["judge"]["qqwing"] == "installed":
        assert report["judge"]["disagrees"] == 0
    assert run("sudoku", *arguments) == report  # found again


def test_a_file_that_holds_no_puzzle_is_one_line_and_no_result(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.txt"
    wrong.write_text(PUZZLE[1:])
    with pytest.raises(DataError, match="line 1: a grid has 81 cells"):
        read_puzzles(wrong)
    result = call("sudoku", "--quick", "--hard", str(wrong))
    assert result.returncode == 1
    assert result.stderr.strip().count("\n") == 0
    assert result.stderr.startswith("error: ")


def test_some_of_a_long_list_are_drawn_and_always_the_same() -> None:
    puzzles = [f"{number:081d}" for number in range(50)]
    some = drawn(puzzles, 20)
    assert len(set(some)) == 20
    assert set(some) < set(puzzles)
    assert some == drawn(puzzles, 20) != puzzles[:20]
    assert drawn(puzzles, None) == drawn(puzzles, 50) == puzzles


def test_most_hard_goes_with_a_file_and_takes_some() -> None:
    for arguments in (("--most-hard", "5"), ("--most-hard", "0", "--hard", "list.txt")):
        refused = call("sudoku", "--quick", *arguments)
        assert refused.returncode == 2
        assert "--most-hard: takes 1 or more, and goes with --hard" in refused.stderr


def test_the_kept_puzzles_are_puzzles_of_their_rating() -> None:
    for rating in RATINGS:
        puzzles = rated_puzzles(rating)
        assert len(set(puzzles)) == 128
        assert all(20 <= count_clues(puzzle) <= 40 for puzzle in puzzles)
        solutions = qqwing_solutions(puzzles)
        if solutions is not None:
            assert all(is_solution(grid, puzzle) for grid, puzzle in zip(solutions, puzzles, strict=True))


def test_shares_and_paired_differences() -> None:
    assert share([True, False, True, True])["share"] == 0.75
    found = difference([True, True, False, True], [True, False, False, False])
    assert (found["difference"], found["only_learned"], found["only_rival"]) == (0.5, 2, 0)
    assert found["standard_error"] == pytest.approx((1 / 3) ** 0.5 / 2)
