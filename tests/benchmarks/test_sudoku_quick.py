"""The sudoku benchmark's quick variant, its puzzles and its judge."""

from pathlib import Path

import pytest

from tests.benchmarks.quick import call, run
from tests.model.network.test_sudoku import plane_network
from unveil.benchmarks.common.proportions import paired_difference, share, wilson
from unveil.benchmarks.domains.problems.grids import RATINGS, count_clues, qqwing_solutions, rated_puzzles, read_puzzles
from unveil.benchmarks.domains.sudoku import AT_ONCE, FEWEST_SET, MORE_SET, Solved, differences, list_tasks
from unveil.model.artifact.folder import save_artifact
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.grid import GridTokenizer, is_solution

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"


def test_it_sets_every_order_beside_the_others_on_the_same_puzzles(tmp_path: Path) -> None:
    artifact, hard = tmp_path / "grids", tmp_path / "hard.txt"
    save_artifact(
        artifact, denoiser=plane_network(num_loops=1), tokenizer=GridTokenizer(), training={}, metrics={}, card=""
    )
    hard.write_text(f"# one easy puzzle\n\n{PUZZLE}\n")
    arguments = ("--artifact", str(artifact), "--work", str(tmp_path / "work"), "--hard", str(hard))
    report = run("sudoku", *arguments)
    assert set(report["solved"]) == {*(f"qqwing {rating}" for rating in RATINGS), "hard, more clues"}
    lines = {"learned", "margin", "confidence", "uniform", "all at once"}
    assert all(set(orders) == lines for orders in report["solved"].values())
    assert "published" not in report  # no puzzle has 17 clues
    assert report["puzzles"]["hard, more clues"] == {"number": 1, "clues": 30.0}
    assert set(report["curve"]["margin"]) == {"1", "81"}
    if report["judge"]["qqwing"] == "installed":
        assert report["judge"]["disagrees"] == 0
    assert run("sudoku", *arguments) == report  # found again


def test_a_file_that_holds_no_puzzle_is_one_line_and_no_result(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.txt"
    wrong.write_text(PUZZLE[1:])
    with pytest.raises(UnveilError, match="line 1: a grid must have 81 cells"):
        read_puzzles(wrong)
    result = call("sudoku", "--quick", "--hard", str(wrong))
    assert result.returncode == 1
    assert result.stderr.strip().count("\n") == 0
    assert result.stderr.startswith("error: ")


def test_some_of_a_long_list_are_drawn_at_random_and_fewer_are_the_first_of_more(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    puzzles = ["." * number + "1" + "." * (80 - number) for number in range(50)]
    path.write_text("\n".join(["# sorted", *puzzles]))
    some = read_puzzles(path, most=20)
    assert len(set(some)) == 20
    assert set(some) < set(puzzles)
    assert some == read_puzzles(path, most=20)
    assert some[:5] == read_puzzles(path, most=5)
    places = [puzzles.index(puzzle) for puzzle in some]
    assert max(places) >= 40  # no head
    assert places != sorted(places)
    assert sorted(read_puzzles(path, most=100)) == sorted(read_puzzles(path)) == sorted(puzzles)
    assert read_puzzles(path) == puzzles


def test_what_says_how_many_is_only_valid_with_what_it_counts() -> None:
    for arguments, message in (
        (("--most-hard", "5"), "--most-hard: must be at least 1, and is only valid with --hard"),
        (("--most-hard", "0", "--hard", "list.txt"), "--most-hard: must be at least 1, and is only valid with --hard"),
        (
            ("--most-rivals", "5", "--hard", "list.txt"),
            "--most-rivals: must be at least 1, and is only valid with --most",
        ),
        (("--only-hard",), "--only-hard: is only valid with --hard"),
    ):
        refused = call("sudoku", "--quick", *arguments)
        assert refused.returncode == 2
        assert message in refused.stderr


def test_orders_that_are_not_learned_decode_the_first_of_the_drawn_puzzles(tmp_path: Path) -> None:
    save_artifact(
        tmp_path, denoiser=plane_network(num_loops=1), tokenizer=GridTokenizer(), training={}, metrics={}, card=""
    )
    puzzles = [f"puzzle {n}" for n in range(10)]
    tasks = list_tasks({FEWEST_SET: puzzles}, tmp_path, count=4, most_rivals=5, is_quick=False)
    decoded: dict[tuple[str, int], list[str]] = {}
    for task in tasks:
        decoded.setdefault((task["order"], task["at_once"]), []).extend(task["puzzles"])
    assert decoded == {
        ("learned", 1): puzzles,
        ("learned", AT_ONCE[-1]): puzzles,
        **{(order, 1): puzzles[:5] for order in ("margin", "confidence", "uniform")},
    }


def test_the_kept_puzzles_are_puzzles_of_their_rating() -> None:
    for rating in RATINGS:
        puzzles = rated_puzzles(rating)
        assert len(set(puzzles)) == 128
        assert all(20 <= count_clues(puzzle) <= 40 for puzzle in puzzles)
        solutions = qqwing_solutions(puzzles)
        if solutions is not None:
            assert all(is_solution(grid, puzzle) for grid, puzzle in zip(solutions, puzzles, strict=True))


def test_an_interval_of_a_share_is_wilsons() -> None:
    """81 of 263 and 0 of 20: Newcombe, Statistics in Medicine 17 (1998), 857-872, table I."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(20, 20) == pytest.approx((1 - 0.1611, 1.0), abs=5e-5)
    found = share([True, False, True, True])
    assert (found["share"], found["solved"], found["puzzles"]) == (0.75, 3, 4)


def test_an_interval_of_a_paired_difference_is_newcombes() -> None:
    """36 pairs both, 12 the first alone, 2 the second alone, none neither: +0.2, by method 10 0.0569 to 0.3404."""
    first, second = [True] * 48 + [False] * 2, [True] * 36 + [False] * 12 + [True] * 2
    found = paired_difference(first, second)
    assert found["difference"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert (found["only_first"], found["only_second"]) == (12, 2)
    both = paired_difference([True] * 32 + [False] * 18, [True] * 20 + [False] * 12 + [True] * 2 + [False] * 16)
    assert (both["low"], both["high"]) == pytest.approx((0.0562, 0.3292), abs=5e-5)  # uncorrected, 0.0618 to 0.3242
    turned = paired_difference(second, first)
    assert (turned["low"], turned["high"]) == pytest.approx((-found["high"], -found["low"]))
    same = paired_difference([True] * 10, [True] * 10)
    assert same["low"] == pytest.approx(-same["high"])
    assert same["high"] > 0.2  # ten pairs that agree say little


def test_differences_are_of_the_puzzles_that_both_decoded() -> None:
    solved: Solved = {(name, "learned", 1): [True, False, True, True] for name in (FEWEST_SET, MORE_SET)}
    for name in (FEWEST_SET, MORE_SET):
        solved |= {(name, order, 1): [False, False] for order in ("margin", "confidence", "uniform")}
        solved[name, "learned", AT_ONCE[-1]] = [True, True, True, True]
    found = differences(solved, [FEWEST_SET, MORE_SET])
    assert (found["margin"]["puzzles"], found["margin"]["difference"], found["margin"]["only_first"]) == (4, 0.5, 2)
    assert (found["all at once"]["puzzles"], found["all at once"]["difference"]) == (8, -0.25)
