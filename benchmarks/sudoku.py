"""How many sudokus are solved, in which order, and what several positions a step cost.

    python -m benchmarks.sudoku [--quick] [--seeds N] [--json] [--work DIR] [--jobs N]
                                [--artifact DIR] [--puzzles N] [--hard FILE [--most-hard N]]

A puzzle counts as solved if the finished grid breaks no rule and has every clue; qqwing, where it is installed, says in
addition whether it is the solution. Orders: the artifact's learned one (always the likeliest position), margin,
confidence and random, all on the same denoiser at equal forwards, one position a step, always the likeliest digit. The
bundled denoiser was trained under uniform orders and frozen, so margin on it is margin on a uniform-trained net.
Puzzles: qqwing's own, by its rating; this project's test split, dug until no clue can be spared; and a `--hard` file,
one puzzle a line, of which those of 17 clues are counted apart (left out where no file is given; `--most-hard` draws so
many of a long list, always the same). Then the curve: the same of qqwing's simple, easy and intermediate puzzles, by
positions revealed in a step. `--puzzles` times `--seeds` of each set. One trained model: the intervals are over
puzzles, not over trainings. `seen` counts puzzles whose solution has the mark of a training solution's orbit, and so
may be a symmetric copy of it.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.problems.grids import RATINGS, count_clues, qqwing_solutions, rated_puzzles, read_puzzles
from benchmarks.problems.runs import Fields, arguments, run_all
from model.artifact import load_artifact
from model.canvas import Canvas, SamplingParams
from model.errors import ArtifactError, DataError
from model.sampler import decode
from model.seeds import derive_seed
from model.tokenizers.grid import is_solution
from training.data.sudoku import make_pool
from training.data.sudoku_puzzles import orbit_marks
from training.data.sudoku_solver import solve
from unveil.training_commands import cache_folder

ORDERS = ("learned", "margin", "confidence", "uniform")
ORDINARY = RATINGS[:3]
AT_ONCE = (2, 4, 8, 16, 81)  # positions a step of the curve; the last is all of them
Solved = dict[tuple[str, str, int], list[bool]]  # of a set's puzzles, along an order, so many positions a step
FEWEST = 17  # clues of the hardest puzzles there are


def main() -> None:
    parser = arguments(__doc__, work="runs/sudoku-bench", seeds=1)
    parser.add_argument("--artifact", type=Path, default=Path("checkpoints/sudoku"))
    parser.add_argument("--puzzles", type=int, default=32, help="of each set, for each seed")
    parser.add_argument("--hard", type=Path, help="a file of puzzles, one a line")
    parser.add_argument("--most-hard", type=int, help="so many puzzles of the file, drawn with seed 0")
    given = parser.parse_args()
    if given.most_hard is not None and (given.hard is None or given.most_hard < 1):
        parser.error("--most-hard: takes 1 or more, and goes with --hard")
    try:
        count = 2 if given.quick else given.puzzles
        hard = [] if given.hard is None else drawn(read_puzzles(given.hard), given.most_hard)
        sets = puzzle_sets(count, given.seeds, hard, is_quick=given.quick)
        tasks = list_tasks(sets, given.artifact, count=count, is_quick=given.quick)
        results = run_all(measure, tasks, folder=given.work, jobs=given.jobs)
        report = summary(tasks, results, sets, given.artifact)
        if not given.quick:
            report["seen"] = seen_in_training(sets, given.artifact)
    except (ArtifactError, DataError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def drawn(puzzles: list[str], most: int | None) -> list[str]:
    """So many of them, or all where they are no more."""
    if most is None or most >= len(puzzles):
        return puzzles
    return [puzzles[i] for i in np.random.default_rng(0).permutation(len(puzzles))[:most]]


def puzzle_sets(count: int, seeds: int, hard: list[str], *, is_quick: bool) -> dict[str, list[str]]:
    """The puzzles of each set, `count` for each seed; all of the hard ones."""
    wanted = count * seeds
    sets = {f"qqwing {rating}": rated_puzzles(rating)[:wanted] for rating in RATINGS}
    if short := next((name for name, puzzles in sets.items() if len(puzzles) < wanted), None):
        raise DataError(f"{short}: {len(sets[short])} puzzles are kept, {wanted} asked for")
    if not is_quick:  # they take a minute to make
        solutions, clues = make_pool("test", wanted, 0, cache_folder())
        digits = np.where(clues, solutions, 0)
        sets["no clue to spare"] = ["".join(map(str, row)) for row in digits]
    sets["hard, 17 clues"] = [puzzle for puzzle in hard if count_clues(puzzle) == FEWEST]
    sets["hard, more clues"] = [puzzle for puzzle in hard if count_clues(puzzle) != FEWEST]
    return {name: puzzles for name, puzzles in sets.items() if puzzles}


def list_tasks(sets: dict[str, list[str]], artifact: Path, *, count: int, is_quick: bool) -> list[Fields]:
    """One task decodes `count` puzzles of a set along one order, so that a run of more seeds finds those of fewer."""
    lines = [(name, order, 1) for name in sets for order in ORDERS]
    for at_once in AT_ONCE[-1:] if is_quick else AT_ONCE:
        lines += [(f"qqwing {rating}", order, at_once) for rating in ORDINARY for order in ("learned", "margin")]
    return [
        _task(name, sets[name][start : start + count], order, at_once, artifact)
        for name, order, at_once in lines
        for start in range(0, len(sets[name]), count)
    ]


def _task(name: str, puzzles: list[str], order: str, at_once: int, artifact: Path) -> Fields:
    return {
        "problem": name.replace(" ", "_").replace(",", ""),
        "arm": f"{order}@{at_once}",
        "set": name,
        "order": order,
        "at_once": at_once,
        "puzzles": puzzles,
        "artifact": str(artifact),
        "weights": weights_of(artifact, with_order=order == "learned"),
    }


def weights_of(artifact: Path, *, with_order: bool) -> str:
    """A hash of the artifact's weights, with or without its order head."""
    digest = hashlib.sha256()
    for name, weight in load_artifact(artifact).denoiser.state_dict().items():
        if with_order or not name.startswith("order_head."):
            digest.update(name.encode() + weight.numpy().tobytes())
    return digest.hexdigest()


def measure(task: Fields) -> Fields:
    """Decodes a task's puzzles: the finished grids, and the forwards that each took."""
    import torch

    torch.set_num_threads(1)
    artifact = load_artifact(Path(task["artifact"]))
    chance = 0.0 if task["order"] == "learned" else 1.0
    params = SamplingParams(
        order=task["order"], order_temperature=chance, temperature=0.0, tokens_per_step=task["at_once"]
    )
    templates = [artifact.tokenizer.encode(puzzle) for puzzle in task["puzzles"]]
    canvases = [
        Canvas.start(t.tokens, t.hidden, seed=derive_seed(0, number, 0), params=params)
        for number, t in enumerate(templates)
    ]
    finished = {d.sample: d.canvas for d in decode(artifact.denoiser, canvases) if d.canvas.is_complete}
    ordered = [finished[number] for number in range(len(canvases))]
    grids = ["".join(artifact.tokenizer.token(i, x) for i, x in enumerate(canvas.tokens)) for canvas in ordered]
    return {"grids": grids, "forwards": [canvas.num_forwards for canvas in ordered]}


def summary(tasks: Sequence[Fields], results: Sequence[Fields], sets: dict[str, list[str]], artifact: Path) -> Fields:
    """Shares solved with standard errors, learned less margin paired by puzzle, and what qqwing says of it all."""
    solved: Solved = {}
    for task, result in zip(tasks, results, strict=True):
        right = [is_solution(grid, puzzle) for grid, puzzle in zip(result["grids"], task["puzzles"], strict=True)]
        solved.setdefault((task["set"], task["order"], task["at_once"]), []).extend(right)
    ordinary, every = [f"qqwing {rating}" for rating in ORDINARY], list(sets)
    return {
        "artifact": artifact.name,
        "denoiser": weights_of(artifact, with_order=False)[:16],
        "puzzles": {name: _described(puzzles) for name, puzzles in sets.items()},
        "solved": {name: {order: share(solved[name, order, 1]) for order in ORDERS} for name in sets},
        "ordinary": {order: share(_joined(solved, ordinary, order, 1)) for order in ORDERS},
        "learned_less": {
            rival: difference(_joined(solved, every, "learned", 1), _joined(solved, every, rival, 1))
            for rival in ORDERS[1:]
        },
        "curve": {
            order: {
                str(k): share(_joined(solved, ordinary, order, k))
                for k in (1, *AT_ONCE)
                if (ordinary[0], order, k) in solved
            }
            for order in ("learned", "margin")
        },
        "judge": judge(tasks, results),
    }


def _described(puzzles: Sequence[str]) -> Fields:
    return {"number": len(puzzles), "clues": float(np.mean([count_clues(puzzle) for puzzle in puzzles]))}


def seen_in_training(sets: dict[str, list[str]], artifact: Path) -> int:
    """How many puzzles share an orbit's mark with a training puzzle; about 10 ms each to make those anew."""
    data = load_artifact(artifact).manifest.training["recipe"]["data"]
    trained = orbit_marks(make_pool("train", data["puzzles"], data["seed"], cache_folder())[0])
    texts = [puzzle.replace(".", "0") for puzzles in sets.values() for puzzle in puzzles]
    found = solve(np.array([list(map(int, text)) for text in texts], dtype=np.int8), limit=1)
    return int(np.isin(orbit_marks(found.grids), trained).sum())


def _joined(solved: Solved, names: Sequence[str], order: str, at_once: int) -> list[bool]:
    return [is_right for name in names for is_right in solved[name, order, at_once]]


def share(solved: Sequence[bool]) -> Fields:
    """The share of puzzles solved and its standard error."""
    p, n = float(np.mean(solved)), len(solved)
    return {"share": p, "standard_error": (p * (1 - p) / n) ** 0.5, "solved": int(sum(solved)), "puzzles": n}


def difference(ours: Sequence[bool], theirs: Sequence[bool]) -> Fields:
    """Paired by puzzle: the difference of shares, its standard error, and how many puzzles either alone solved."""
    d = np.array(ours, dtype=float) - np.array(theirs, dtype=float)
    return {
        "difference": float(d.mean()),
        "standard_error": float(d.std(ddof=1) / len(d) ** 0.5),
        "only_learned": int((d > 0).sum()),
        "only_rival": int((d < 0).sum()),
    }


def judge(tasks: Sequence[Fields], results: Sequence[Fields]) -> Fields:
    """Whether qqwing calls the same grids solved: those that are its own solutions."""
    puzzles = [puzzle for task in tasks for puzzle in task["puzzles"]]
    grids = [grid for result in results for grid in result["grids"]]
    answers = qqwing_solutions(puzzles)
    if answers is None:
        return {"qqwing": "not installed"}
    verdicts = zip(puzzles, grids, answers, strict=True)
    agrees = sum(is_solution(grid, puzzle) == (grid == answer) for puzzle, grid, answer in verdicts)
    return {"qqwing": "installed", "agrees": agrees, "disagrees": len(puzzles) - agrees}


def as_text(report: Fields) -> str:
    """The same for a person."""
    lines = [f"{'':24}" + "".join(f"{order:>18}" for order in ORDERS)]
    for name, orders in {**report["solved"], "ordinary, all": report["ordinary"]}.items():
        lines.append(f"{name:24}" + "".join(_percent(orders[order]) for order in ORDERS))
    for rival, d in report["learned_less"].items():
        lines.append(
            f"learned less {rival}, all puzzles: {100 * d['difference']:+.2f} ± {100 * d['standard_error']:.2f} points"
            f" (only learned {d['only_learned']}, only {rival} {d['only_rival']})"
        )
    for order, points in report["curve"].items():
        curve = ", ".join(f"{k}: {_percent(point).strip()}" for k, point in points.items())
        lines.append(f"{order}, positions a step: {curve}")
    return "\n".join([*lines, f"judge: {report['judge']}"])


def _percent(value: Fields) -> str:
    return f"{100 * value['share']:11.1f} ± {100 * value['standard_error']:4.1f}"


if __name__ == "__main__":
    main()
