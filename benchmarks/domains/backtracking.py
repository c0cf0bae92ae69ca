"""Sudokus with backtracking: how many are solved when contradictions are taken back, by order, in how many forwards.

    python -m benchmarks backtracking [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--artifact DIR]
                                      [--puzzles N] [--budget F] [--hard FILE]

The search of `model/decoding/search.py`, the same for every order: the artifact's learned one, margin, and random. It
takes reveals back where a rule is broken or a cell has no digit left, and goes on from the likeliest alternative that
was passed over. `--budget`: the most forwards that may be wasted so. Beside each stands the same order without a
search, on the same puzzles, always the likeliest digit, one position a step.

Puzzles: `--puzzles` times `--seeds` of a file, one a line, drawn at random with seed 0, never its head; without a file
of this project's test split, dug until no clue can be spared. Shares have Wilson's intervals, 95 %; forwards are of a
puzzle, those without a search being one for each hidden cell.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unveil.benchmarks.common.proportions import paired_difference, share
from unveil.benchmarks.common.runs import Fields, arguments, run_all
from unveil.benchmarks.domains.problems.grids import count_clues, read_puzzles
from unveil.commands.training import cache_folder
from unveil.model.along.serving import decode
from unveil.model.artifact.folder import load_artifact
from unveil.model.decoding.canvas import Canvas, OrderPolicy, SamplingParams
from unveil.model.decoding.seeds import derive_seed
from unveil.model.errors import ArtifactError, UnveilError
from unveil.model.tokenizers.grid import GridTokenizer, is_solution
from unveil.training.data.sudoku.sudoku import make_pool

ORDERS: tuple[OrderPolicy, ...] = ("learned", "margin", "uniform")
BUDGET = 1000


def main() -> None:
    parser = arguments(__doc__, work="runs/backtracking", seeds=1)
    parser.add_argument("--artifact", type=Path, default=Path("checkpoints/sudoku"))
    parser.add_argument("--puzzles", type=int, default=64, help="for each seed")
    parser.add_argument("--budget", type=int, default=BUDGET, help="the most forwards that may be wasted on a puzzle")
    parser.add_argument("--hard", type=Path, help="a file of puzzles, one a line")
    given = parser.parse_args()
    count, budget = (2, 3) if given.quick else (given.puzzles, given.budget)
    try:
        puzzles = puzzles_of(given.hard, count * given.seeds)
        tasks = [
            {
                "problem": "backtracking",
                "arm": f"{order}@{backtrack}",
                "seed": seed,
                "order": order,
                "backtrack": backtrack,
                "puzzles": puzzles[seed * count : (seed + 1) * count],
                "artifact": str(given.artifact),
                "weights": load_artifact(given.artifact).manifest.weights_sha256,
            }
            for seed in range(given.seeds)
            for order in ORDERS
            for backtrack in (None, budget)
        ]
        results = run_all(measure, tasks, folder=given.work, jobs=given.jobs)
    except (ArtifactError, UnveilError) as error:
        sys.exit(f"error: {error}")
    report = summary(tasks, results, budget=budget)
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def puzzles_of(hard: Path | None, count: int) -> list[str]:
    """So many, at random."""
    if hard is not None:
        return read_puzzles(hard, most=count)
    solutions, clues = make_pool("test", count, 0, cache_folder())
    return ["".join(map(str, row)) for row in np.where(clues, solutions, 0)]


def measure(task: Fields) -> Fields:
    """Decodes a task's puzzles: whether each is solved, its forwards, and how many reveals were taken back."""
    import torch

    torch.set_num_threads(1)
    artifact = load_artifact(Path(task["artifact"]))
    assert isinstance(artifact.tokenizer, GridTokenizer)
    params = SamplingParams(
        order=task["order"],
        order_temperature=0.0 if task["order"] == "learned" else 1.0,
        temperature=0.0,
        backtrack=task["backtrack"],
    )
    canvases = []
    for number, puzzle in enumerate(task["puzzles"]):
        template = artifact.tokenizer.encode(puzzle)
        seed = derive_seed(task["seed"], number, 0)
        canvases.append(Canvas.start(template.tokens, template.hidden, seed=seed, params=params))
    contradiction = artifact.tokenizer.contradiction
    done = [one.canvas for one in decode(artifact.denoiser, canvases, end_id=None, contradiction=contradiction)]
    grids = ["".join(artifact.tokenizer.token(i, x) for i, x in enumerate(canvas.tokens)) for canvas in done]
    return {
        "solved": [is_solution(grid, puzzle) for grid, puzzle in zip(grids, task["puzzles"], strict=True)],
        "forwards": [canvas.num_forwards for canvas in done],
        "taken_back": [0 if canvas.search is None else canvas.search.num_unrevealed for canvas in done],
    }


def summary(tasks: Sequence[Fields], results: Sequence[Fields], *, budget: int) -> Fields:
    """Of every order with and without the search; the learned order's less the others', paired by puzzle."""
    found: dict[tuple[str, bool], Fields] = {}
    for task, result in zip(tasks, results, strict=True):
        own = found.setdefault((task["order"], task["backtrack"] is not None), {name: [] for name in result})
        for name, values in result.items():
            own[name] += values
    puzzles = [puzzle for task in tasks if task["arm"] == tasks[0]["arm"] for puzzle in task["puzzles"]]
    learned = found["learned", True]["solved"]
    return {
        "budget": budget,
        "puzzles": len(puzzles),
        "clues": float(np.mean([count_clues(puzzle) for puzzle in puzzles])),
        "orders": {
            order: {"alone": _side(found[order, False]), "with search": _side(found[order, True])} for order in ORDERS
        },
        "learned_less": {order: paired_difference(learned, found[order, True]["solved"]) for order in ORDERS[1:]},
    }


def _side(found: Fields) -> Fields:
    forwards = found["forwards"]
    return {
        "solved": share(found["solved"]),
        "forwards": {"mean": float(np.mean(forwards)), "median": float(np.median(forwards)), "most": max(forwards)},
        "searched": sum(num > 0 for num in found["taken_back"]),
    }


def as_text(report: Fields) -> str:
    """The same for a person."""
    lines = [f"{report['puzzles']} puzzles of {report['clues']:.1f} clues, at most {report['budget']} forwards wasted"]
    for order, sides in report["orders"].items():
        for name, side in sides.items():
            solved, forwards = side["solved"], side["forwards"]
            shown = f"{100 * solved['share']:.1f} % [{100 * solved['low']:.1f}, {100 * solved['high']:.1f}]"
            counted = f"{forwards['mean']:.1f} mean, {forwards['median']:.0f} median, {forwards['most']} most"
            lines.append(f"{order:8} {name:12} solved {shown:22} forwards {counted}; searched {side['searched']}")
    for order, less in report["learned_less"].items():
        points = f"{100 * less['difference']:+.2f} [{100 * less['low']:+.2f}, {100 * less['high']:+.2f}]"
        lines.append(f"with search, learned less {order}: {points} points")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
