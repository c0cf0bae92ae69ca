"""Sudoku puzzles to be judged on, and the judge: the rules themselves, and qqwing where it is installed.

`qqwing.csv` holds puzzles that the program qqwing (not ours) generated and rated, 128 of each rating, drawn once and
kept, sorted by nothing, so that figures can be printed anew.
"""

import csv
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unveil.model.errors import PromptError, UnveilError
from unveil.model.tokenizers.grid import GridTokenizer
from unveil.training.run.parent import bound

RATINGS = ("simple", "easy", "intermediate", "expert")
_FILE = Path(__file__).with_name("qqwing.csv")
_SECONDS = 600


def rated_puzzles(rating: str) -> list[str]:
    """qqwing's own puzzles of one rating. They are sorted by nothing, so the first are a random sample."""
    with _FILE.open(newline="", encoding="utf-8") as file:
        return [row["puzzle"] for row in csv.DictReader(file) if row["rating"] == rating]


def read_puzzles(path: Path, *, most: int | None = None) -> list[str]:
    """One puzzle a line; empty lines and those that begin with # are passed over. Raises UnveilError.

    With `most` at most so many, drawn at random, always the same, and fewer are the first of more: lists are sorted,
    so their heads are like each other. Lines that are not drawn are not checked: that takes milliseconds each.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnveilError(f"{path}: cannot be read ({error})") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not numbered:
        raise UnveilError(f"{path}: holds no puzzle")
    if most is not None:
        numbered = [numbered[i] for i in np.random.default_rng(0).permutation(len(numbered))[:most]]
    tokenizer = GridTokenizer()
    for number, line in numbered:
        try:
            tokenizer.encode(line)
        except PromptError as error:
            raise UnveilError(f"{path}: line {number}: {error}") from None
    return ["".join(line.split()) for _, line in numbered]


def count_clues(puzzle: str) -> int:
    return sum(cell not in ".0" for cell in puzzle)


class Verdict(NamedTuple):
    """What qqwing says of a puzzle: a solution, how many there are, its rating; "", 0 and "" where there is none."""

    solution: str
    num_solutions: int
    rating: str


def qqwing_solutions(puzzles: Sequence[str]) -> list[str] | None:
    """What qqwing says the solutions are; None where it is not installed. Raises UnveilError if it does not answer."""
    lines = _solve(puzzles, "--one-line")
    if lines is None:
        return None
    solutions = [word for line in lines for word in line.split()]
    if len(solutions) != len(puzzles):
        raise UnveilError(f"qqwing gave {len(solutions)} solutions of {len(puzzles)} puzzles")
    return solutions


def qqwing_verdicts(puzzles: Sequence[str]) -> list[Verdict] | None:
    """How many solutions each puzzle has, and how hard it is; None and UnveilError as for `qqwing_solutions`."""
    lines = _solve(puzzles, "--csv", "--count-solutions", "--stats")
    if lines is None:
        return None
    verdicts = [_verdict(row) for row in csv.DictReader(lines)]
    if len(verdicts) != len(puzzles):
        raise UnveilError(f"qqwing judged {len(verdicts)} of {len(puzzles)} puzzles")
    return verdicts


def qqwing_version() -> str | None:
    """As it says itself, or None where it is not installed."""
    program = shutil.which("qqwing")
    if program is None:
        return None
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _verdict(row: dict[str, str | None]) -> Verdict:
    """A line of its CSV; of an impossible puzzle it says so in the first cell, and no more."""
    count = row["Solution Count"]
    if not count:
        return Verdict("", 0, "")
    return Verdict(row["Solution"] or "", int(count), (row["Difficulty"] or "").lower())


def _solve(puzzles: Sequence[str], *options: str) -> list[str] | None:
    """The lines of `qqwing --solve`; None where it is not installed."""
    program = shutil.which("qqwing")
    if program is None:
        return None
    text = "".join(f"{puzzle.replace('0', '.')}\n" for puzzle in puzzles)
    command = bound([program, "--solve", *options])
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise UnveilError(f"qqwing ended with code {done.returncode}")
    return done.stdout.splitlines()
