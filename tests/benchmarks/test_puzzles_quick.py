"""The puzzle benchmark's quick variant, and what it counts. What takes qqwing is left out where it is not installed."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.benchmarks.quick import ROOT, run
from unveil.benchmarks.domains.problems.grids import RATINGS, Verdict, qqwing_solutions, qqwing_verdicts
from unveil.benchmarks.domains.puzzles import MORE, PLAIN, QUICK, as_text, counts, drawn
from unveil.model.tokenizers.grid import is_solution

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
needs_qqwing = pytest.mark.skipif(shutil.which("qqwing") is None, reason="takes qqwing, which is not installed here")


@needs_qqwing
def test_every_puzzle_has_one_solution_and_it_is_ours() -> None:
    report = run("puzzles", "--seeds", "2")
    assert set(report["sets"]) == {PLAIN, MORE}
    for found in report["sets"].values():
        assert found["puzzles"] == found["one_solution"] == found["solution_is_ours"] == 2 * QUICK
        assert set(found["ratings"]) == set(RATINGS)
        assert sum(found["ratings"].values()) == sum(found["clues"]["puzzles"].values()) == 2 * QUICK
    assert report["judge"].startswith("qqwing ")
    table = as_text(report).splitlines()
    assert len({line.count("|") for line in table[:4]}) == 1


@needs_qqwing
def test_qqwing_tells_one_solution_from_two_and_from_none() -> None:
    two, none = PUZZLE.replace("195", "1.."), "55" + PUZZLE[2:]
    two = two.replace("419", "4.9")
    found = qqwing_verdicts([PUZZLE, two, none])
    assert found is not None
    assert found[0] == Verdict(SOLUTION, 1, "simple")
    assert (found[1].num_solutions, found[1].rating) == (2, "expert")
    assert is_solution(found[1].solution, two)
    assert found[2] == Verdict("", 0, "")
    assert qqwing_solutions([PUZZLE, two]) == [found[0].solution, found[1].solution]


def test_what_is_not_so_is_not_counted() -> None:
    verdicts = [Verdict(SOLUTION, 1, "easy"), Verdict(SOLUTION[::-1], 2, "expert"), Verdict("", 0, "")]
    assert counts([(PUZZLE, SOLUTION)] * 3, verdicts) == {
        "puzzles": 3,
        "one_solution": 1,
        "solution_is_ours": 1,
        "ratings": {"simple": 0, "easy": 1, "intermediate": 0, "expert": 1, "none": 1},
    }


def test_more_clues_are_more_of_the_same_kind_and_another_seed_is_another_draw() -> None:
    sets = drawn(QUICK, 0, is_quick=True)
    assert all(is_solution(ours, puzzle) for puzzles in sets.values() for puzzle, ours in puzzles)
    holes = {name: sum(puzzle.count("0") for puzzle, _ in puzzles) for name, puzzles in sets.items()}
    assert holes[PLAIN] - 16 * QUICK <= holes[MORE] < holes[PLAIN]
    assert drawn(QUICK, 0, is_quick=True) == sets
    assert not {ours for _, ours in sets[PLAIN]} & {ours for _, ours in drawn(QUICK, 1, is_quick=True)[PLAIN]}


def test_without_qqwing_it_says_so_in_one_line() -> None:
    command = [sys.executable, "-m", "unveil.benchmarks", "puzzles", "--quick"]
    bare = {**os.environ, "PATH": ""}
    result = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: qqwing is not installed (Debian: apt-get install qqwing)\n"
