"""Are the puzzles that sudoku models are trained on puzzles, and how hard are they? qqwing, which is not ours, says.

    python -m benchmarks puzzles [--quick] [--seeds N] [--json] [--puzzles N]

The first N puzzles (500) of the training pool of training/recipes/sudoku-start.toml, whose bundled model has seed 0. A
pool is in no order: each of its puzzles is drawn independently, by one procedure. Each is shown under a random
symmetry, as in a batch: without a clue to spare, which is how that recipe trains on all of them, and the same with up
to `extra_clues` more at random, as it validates and tests on them (and as `versions` above 1 trains on some). qqwing
counts the solutions of each, solves it and rates it; that its solution is ours is compared digit by digit. Seeds are of
the pool; counts are over all of them. Where qqwing is not installed it says so and ends with code 1.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unveil.benchmarks.common.runs import Fields
from unveil.benchmarks.domains.problems.grids import RATINGS, Verdict, count_clues, qqwing_verdicts, qqwing_version
from unveil.commands.training import cache_folder
from unveil.model.errors import UnveilError
from unveil.training.config import load_recipe
from unveil.training.data.config import SudokuData
from unveil.training.data.sudoku.puzzles import dig, make_solutions
from unveil.training.data.sudoku.solver import Flags, Grids
from unveil.training.data.sudoku.sudoku import in_versions, make_pool, shuffle_puzzles

RECIPE = Path(__file__).resolve().parents[2] / "training" / "recipes" / "sudoku-start.toml"
PLAIN, MORE = "no clue to spare", "with more clues"
QUICK = 12  # a block of the pool takes longer to make
Puzzles = list[tuple[str, str]]  # each with our solution


def main() -> None:
    given = _arguments().parse_args()
    version = qqwing_version()
    if version is None:
        sys.exit("error: qqwing is not installed (Debian: apt-get install qqwing)")
    count = QUICK if given.quick else given.puzzles
    sets: dict[str, Puzzles] = {PLAIN: [], MORE: []}
    try:
        for seed in range(given.seeds):
            for name, puzzles in drawn(count, seed, is_quick=given.quick).items():
                sets[name] += puzzles
        report = {
            "sets": {name: judged(puzzles) for name, puzzles in sets.items()},
            "recipe": RECIPE.name,
            "seeds": given.seeds,
            "judge": version,
        }
    except UnveilError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"seconds; {QUICK} puzzles of a pool of their own")
    parser.add_argument("--seeds", type=int, default=1, help="of the pool")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--puzzles", type=int, default=500, help="of each seed")
    return parser


def drawn(count: int, seed: int, *, is_quick: bool) -> dict[str, Puzzles]:
    """So many puzzles of a seed's training pool, as they are and with more clues, each under a symmetry of its own."""
    config = load_recipe(RECIPE).data
    assert isinstance(config, SudokuData)
    generator = np.random.default_rng([seed, count])
    solutions, clues = _small_pool(count, generator) if is_quick else make_pool("train", count, seed, cache_folder())
    rows = np.repeat(solutions.astype(np.int64) - 1, 2, axis=0)
    known = in_versions(clues, 2, config.extra_clues, generator)
    shown = _as_puzzles(*shuffle_puzzles(rows, known, generator))
    return {PLAIN: shown[::2], MORE: shown[1::2]}


def _small_pool(count: int, generator: np.random.Generator) -> tuple[Grids, Flags]:
    solutions = make_solutions(count, generator)
    return solutions, dig(solutions, generator)


def _as_puzzles(rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]], known: Flags) -> Puzzles:
    return [
        ("".join(map(str, np.where(clues, digits, 0))), "".join(map(str, digits)))
        for digits, clues in zip(rows + 1, known, strict=True)
    ]


def judged(puzzles: Puzzles) -> Fields:
    """What qqwing says of puzzles with our solutions: how many have one solution, and that one ours; ratings, clues."""
    verdicts = qqwing_verdicts([puzzle for puzzle, _ in puzzles])
    assert verdicts is not None, "looked for before"
    return {**counts(puzzles, verdicts), "clues": _clues([count_clues(puzzle) for puzzle, _ in puzzles])}


def counts(puzzles: Puzzles, verdicts: Sequence[Verdict]) -> Fields:
    """Of how many puzzles what is so; a rating that qqwing does not have counts as "none"."""
    ratings = Counter(v.rating if v.rating in RATINGS else "none" for v in verdicts)
    return {
        "puzzles": len(puzzles),
        "one_solution": sum(v.num_solutions == 1 for v in verdicts),
        "solution_is_ours": sum(v.solution == ours for v, (_, ours) in zip(verdicts, puzzles, strict=True)),
        "ratings": {name: ratings[name] for name in (*RATINGS, "none") if name in RATINGS or ratings[name]},
    }


def _clues(numbers: Sequence[int]) -> Fields:
    histogram = Counter(numbers)
    return {"mean": float(np.mean(numbers)), "puzzles": {str(n): histogram[n] for n in sorted(histogram)}}


def as_text(report: Fields) -> str:
    """Markdown: a table, and the histograms of clues."""
    lines = [f"| | puzzles | one solution | ours | {' | '.join(RATINGS)} | clues |", "|---|" + "---|" * 8]
    for name, found in report["sets"].items():
        clues = [int(number) for number in found["clues"]["puzzles"]]
        cells = [found["puzzles"], found["one_solution"], found["solution_is_ours"]]
        cells += [found["ratings"][rating] for rating in RATINGS]
        spread = f"{min(clues)} to {max(clues)}, {found['clues']['mean']:.1f} on average"
        lines.append(f"| {name} | {' | '.join(map(str, cells))} | {spread} |")
    for name, found in report["sets"].items():
        histogram = ", ".join(f"{clues}: {number}" for clues, number in found["clues"]["puzzles"].items())
        lines += ["", f"Clues, {name}: {histogram}."]
    return "\n".join([*lines, "", f"Judge: {report['judge']}."])


if __name__ == "__main__":
    main()
