"""How many sudokus are solved, in which order, and what several positions a step cost.

    python -m benchmarks sudoku [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--artifact DIR] [--puzzles N]
                                [--hard FILE [--most-hard N] [--most-rivals N] [--only-hard]]

A puzzle counts as solved if the finished grid breaks no rule and has every clue; qqwing, where it is installed, says in
addition whether it is the solution. Orders: the artifact's learned one (always the likeliest position), margin,
confidence and random, all on the same denoiser at equal forwards, one position a step, always the likeliest digit; and
all positions at once, in one forward. The bundled denoiser was trained under uniform orders and frozen, so margin on it
is margin on a uniform-trained net.

Puzzles: qqwing's own, by its rating; this project's test split, dug until no clue can be spared; `--puzzles` times
`--seeds` of each. Both kinds were made at random and are sorted by nothing, so the first are a random sample. And a
`--hard` file, one puzzle a line, of which those of 17 clues are counted apart (left out where no file is given). Such
lists are sorted: `--most-hard` draws at random with seed 0, never the head, and `--most-rivals` decodes only so many of
the drawn ones, the first drawn, in the orders that are not learned. Then the curve: qqwing's simple, easy and
intermediate puzzles by positions revealed in a step.

Intervals are 95 %: Wilson's for a share, Newcombe's for a difference paired by puzzle. They are over puzzles; there is
one trained model. Beside the 17-clue puzzles stands the published share of the recurrent relational network (RRN).
`seen` counts puzzles whose solution has the mark of a training solution's orbit, and so may be a symmetric copy of it.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unveil.benchmarks.common.proportions import paired_difference, share
from unveil.benchmarks.common.runs import Fields, arguments, run_all
from unveil.benchmarks.domains.problems.grids import RATINGS, count_clues, qqwing_solutions, rated_puzzles, read_puzzles
from unveil.commands.training import cache_folder
from unveil.model.along.serving import decode
from unveil.model.artifact.folder import load_artifact
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.seeds import derive_seed
from unveil.model.errors import ArtifactError, UnveilError
from unveil.model.tokenizers.grid import is_solution
from unveil.training.config import data_of
from unveil.training.data.config import SudokuData
from unveil.training.data.sudoku.puzzles import orbit_marks
from unveil.training.data.sudoku.solver import solve
from unveil.training.data.sudoku.sudoku import make_pool

ORDERS = ("learned", "margin", "confidence", "uniform")
ORDINARY = RATINGS[:3]
AT_ONCE = (2, 4, 8, 16, 81)  # positions a step of the curve; the last is all of them
WHOLE = "all at once"  # the order no longer matters
Solved = dict[tuple[str, str, int], list[bool]]  # of a set's puzzles, along an order, so many positions a step
FEWEST = 17  # clues: fewer cannot make a solution unique
FEWEST_SET, MORE_SET = "hard, 17 clues", "hard, more clues"
_ORDINARY_SETS = [f"qqwing {rating}" for rating in ORDINARY]
RRN: Fields = {  # all but the share as the authors' own code has it
    "share": 0.966,
    "source": "Palm, Paquet, Winther: Recurrent Relational Networks, arXiv 1711.08028",
    "puzzles": "1,000 with 17 clues, drawn from 10,000 of Royle's list that were kept out of training",
    "training": "180,000 puzzles made of the rest of Royle's list by adding 0 to 17 clues: also such of 17 clues",
    "steps": "trained through 32, tested through 64; then every cell's likeliest digit, all at once",
    "symmetry": "edges join the cells of a row, column or box; digits are renamed at random in the data",
}
_LINES: dict[str, tuple[str, int]] = {order: (order, 1) for order in ORDERS} | {WHOLE: ("learned", AT_ONCE[-1])}


def main() -> None:
    parser = arguments(__doc__, work="runs/sudoku-bench", seeds=1)
    parser.add_argument("--artifact", type=Path, default=Path("checkpoints/sudoku"))
    parser.add_argument("--puzzles", type=int, default=32, help="of each set, for each seed")
    parser.add_argument("--hard", type=Path, help="a file of puzzles, one a line")
    parser.add_argument("--most-hard", type=int, help="so many puzzles of the file, drawn with seed 0")
    parser.add_argument("--most-rivals", type=int, help="so many of those in the orders that are not learned")
    parser.add_argument("--only-hard", action="store_true", help="leave out the puzzles that are not of the file")
    given = parser.parse_args()
    for name in ("most_hard", "most_rivals"):
        value = getattr(given, name)
        needed = "hard" if name == "most_hard" else "most_hard"
        if value is not None and (getattr(given, needed) is None or value < 1):
            shown, also = name.replace("_", "-"), needed.replace("_", "-")
            parser.error(f"--{shown}: must be at least 1, and is only valid with --{also}")
    if given.only_hard and given.hard is None:
        parser.error("--only-hard: is only valid with --hard")
    try:
        count = 2 if given.quick else given.puzzles
        hard = [] if given.hard is None else read_puzzles(given.hard, most=given.most_hard)
        sets = {} if given.only_hard else made_sets(count, given.seeds, is_quick=given.quick)
        sets |= hard_sets(hard)
        tasks = list_tasks(sets, given.artifact, count=count, most_rivals=given.most_rivals, is_quick=given.quick)
        results = run_all(measure, tasks, folder=given.work, jobs=given.jobs)
        report = summary(tasks, results, sets, given.artifact)
        if not given.quick:
            report["seen"] = seen_in_training(sets, given.artifact)
    except (ArtifactError, UnveilError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def made_sets(count: int, seeds: int, *, is_quick: bool) -> dict[str, list[str]]:
    """The puzzles of each set that needs no file, `count` for each seed."""
    wanted = count * seeds
    sets = {f"qqwing {rating}": rated_puzzles(rating)[:wanted] for rating in RATINGS}
    if short := next((name for name, puzzles in sets.items() if len(puzzles) < wanted), None):
        raise UnveilError(f"{short}: {len(sets[short])} puzzles are kept, {wanted} asked for")
    if not is_quick:  # they take a minute to make
        solutions, clues = make_pool("test", wanted, 0, cache_folder())
        digits = np.where(clues, solutions, 0)
        sets["no clue to spare"] = ["".join(map(str, row)) for row in digits]
    return sets


def hard_sets(hard: list[str]) -> dict[str, list[str]]:
    """Those with the fewest clues apart; an empty set is left out."""
    sets = {
        FEWEST_SET: [puzzle for puzzle in hard if count_clues(puzzle) == FEWEST],
        MORE_SET: [puzzle for puzzle in hard if count_clues(puzzle) != FEWEST],
    }
    return {name: puzzles for name, puzzles in sets.items() if puzzles}


def list_tasks(
    sets: dict[str, list[str]], artifact: Path, *, count: int, most_rivals: int | None, is_quick: bool
) -> list[Fields]:
    """One task decodes `count` puzzles of a set along one order, so that a run of more seeds finds those of fewer."""
    weights = {has_order: weights_of(artifact, with_order=has_order) for has_order in (False, True)}
    tasks = []
    for name, puzzles in sets.items():
        lines = [(order, 1) for order in ORDERS] + [("learned", AT_ONCE[-1])]
        if name in _ORDINARY_SETS:
            curve = AT_ONCE[-1:] if is_quick else AT_ONCE
            lines += [(order, k) for k in curve for order in ("learned", "margin") if (order, k) not in lines]
        for start in range(0, len(puzzles), count):
            for order, at_once in lines:
                is_slow_rival = order != "learned" and name in (FEWEST_SET, MORE_SET)
                wanted = puzzles[: most_rivals if is_slow_rival else None][start : start + count]
                if wanted:
                    tasks.append(
                        _task(name, wanted, order, at_once)
                        | {"artifact": str(artifact), "weights": weights[order == "learned"]}
                    )
    return tasks


def _task(name: str, puzzles: list[str], order: str, at_once: int) -> Fields:
    return {
        "problem": name.replace(" ", "_").replace(",", ""),
        "arm": f"{order}@{at_once}",
        "set": name,
        "order": order,
        "at_once": at_once,
        "puzzles": puzzles,
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
    finished = [canvas for canvas, _ in decode(artifact.denoiser, canvases, end_id=None)]
    grids = ["".join(artifact.tokenizer.token(i, x) for i, x in enumerate(canvas.tokens)) for canvas in finished]
    return {"grids": grids, "forwards": [canvas.num_forwards for canvas in finished]}


def summary(tasks: Sequence[Fields], results: Sequence[Fields], sets: dict[str, list[str]], artifact: Path) -> Fields:
    """Shares solved, the learned order less every other one paired by puzzle, and what qqwing says of it all."""
    solved: Solved = {}
    for task, result in zip(tasks, results, strict=True):
        right = [is_solution(grid, puzzle) for grid, puzzle in zip(result["grids"], task["puzzles"], strict=True)]
        solved.setdefault((task["set"], task["order"], task["at_once"]), []).extend(right)
    report: Fields = {
        "artifact": artifact.name,
        "denoiser": weights_of(artifact, with_order=False)[:16],
        "puzzles": {name: _described(puzzles) for name, puzzles in sets.items()},
        "solved": {name: _shares(solved, [name]) for name in sets},
        "learned_less": {name: differences(solved, [name]) for name in sets} | {"all": differences(solved, [*sets])},
        "judge": judge(tasks, results),
    }
    if FEWEST_SET in sets:
        report["published"] = RRN
    if _ORDINARY_SETS[0] in sets:
        report["ordinary"] = _shares(solved, _ORDINARY_SETS)
        report["curve"] = {order: _curve(solved, order) for order in ("learned", "margin")}
    return report


def _shares(solved: Solved, names: Sequence[str]) -> Fields:
    """Of these sets together, along each order one position a step, and of all positions at once."""
    return {shown: share(_joined(solved, names, *line)) for shown, line in _LINES.items()}


def differences(solved: Solved, names: Sequence[str]) -> Fields:
    """The learned order less each other line, on the puzzles that both decoded."""
    rivals = [shown for shown in _LINES if shown != "learned"]
    pairs: dict[str, list[tuple[bool, bool]]] = {shown: [] for shown in rivals}
    for name in names:
        for shown in rivals:  # a rival's puzzles are the first of the learned order's
            pairs[shown] += zip(solved[name, "learned", 1], solved[(name, *_LINES[shown])], strict=False)
    return {shown: paired_difference(*zip(*found, strict=True)) for shown, found in pairs.items()}


def _curve(solved: Solved, order: str) -> Fields:
    counts = [k for k in (1, *AT_ONCE) if (_ORDINARY_SETS[0], order, k) in solved]
    return {str(k): share(_joined(solved, _ORDINARY_SETS, order, k)) for k in counts}


def _described(puzzles: Sequence[str]) -> Fields:
    return {"number": len(puzzles), "clues": float(np.mean([count_clues(puzzle) for puzzle in puzzles]))}


def seen_in_training(sets: dict[str, list[str]], artifact: Path) -> int:
    """How many puzzles share an orbit's mark with a training puzzle; about 10 ms each to make those anew."""
    data = data_of(load_artifact(artifact).manifest.training["recipe"])
    assert isinstance(data, SudokuData)
    trained = orbit_marks(make_pool("train", data.puzzles, data.seed, cache_folder())[0])
    texts = [puzzle.replace(".", "0") for puzzles in sets.values() for puzzle in puzzles]
    found = solve(np.array([list(map(int, text)) for text in texts], dtype=np.int8), limit=1)
    return int(np.isin(orbit_marks(found.grids), trained).sum())


def _joined(solved: Solved, names: Sequence[str], order: str, at_once: int) -> list[bool]:
    return [is_right for name in names for is_right in solved[name, order, at_once]]


def judge(tasks: Sequence[Fields], results: Sequence[Fields]) -> Fields:
    """Whether qqwing calls the same grids solved: those that are its own solutions."""
    pairs = [
        (puzzle, grid)
        for task, result in zip(tasks, results, strict=True)
        for puzzle, grid in zip(task["puzzles"], result["grids"], strict=True)
    ]
    puzzles = list(dict.fromkeys(puzzle for puzzle, _ in pairs))
    found = qqwing_solutions(puzzles)
    if found is None:
        return {"qqwing": "not installed"}
    answers = dict(zip(puzzles, found, strict=True))
    agrees = sum(is_solution(grid, puzzle) == (grid == answers[puzzle]) for puzzle, grid in pairs)
    return {"qqwing": "installed", "agrees": agrees, "disagrees": len(pairs) - agrees}


def as_text(report: Fields) -> str:
    """The same for a person."""
    lines = [f"{'solved, %':24}" + "".join(f"{shown:>24}" for shown in _LINES)]
    rows = dict(report["solved"]) | ({"ordinary, all": report["ordinary"]} if "ordinary" in report else {})
    lines += [f"{name:24}" + "".join(f"{_percent(row[shown]):>24}" for shown in _LINES) for name, row in rows.items()]
    if "published" in report:
        lines.append(f"RRN, published, of {FEWEST} clues: {100 * RRN['share']:.1f} ({RRN['source']})")
    for name, rivals in report["learned_less"].items():
        lines += [f"{name}: learned less {rival}, {_points(d)}" for rival, d in rivals.items()]
    for order, points in report.get("curve", {}).items():
        curve = ", ".join(f"{k}: {_percent(point)}" for k, point in points.items())
        lines.append(f"{order}, positions a step: {curve}")
    return "\n".join([*lines, f"judge: {report['judge']}"])


def _percent(value: Fields) -> str:
    """With its interval, and of how many puzzles."""
    return f"{100 * value['share']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}] of {value['puzzles']}"


def _points(d: Fields) -> str:
    shown = f"{100 * d['difference']:+.2f} [{100 * d['low']:+.2f}, {100 * d['high']:+.2f}] points of {d['puzzles']}"
    return f"{shown} (only learned {d['only_first']}, only the other {d['only_second']})"


if __name__ == "__main__":
    main()
