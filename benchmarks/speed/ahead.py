"""The same bytes in fewer forwards: how many are saved by several positions a step, and how much time?

    python -m benchmarks ahead [--quick] [--json] [--rounds N] [--models NAME,NAME]

Every bundled model that goes along its order, by its own order at temperature 1 and 0.7, one canvas and eight at a
time: 1, 2, 4 and 8 positions in every step, and as many as pay (`model.along.pace`), which is how it is served. 16
whole rows from nothing, and 16 of mixed lengths and numbers of holes, what is known from rows of the model's own.
Canvases, reveals and log-probabilities are checked to be the same in all of these, batches included, bit for bit.

Forwards a token: of the steps that one position a step would take, the share that needed a forward. CPU microseconds
of one thread a token, without the engine's loop, all sides in turns in one run, the median of the rounds after one that
does not count. A token is a position that a step decides: ends behind an end are not counted. What is printed and goes
into docs/results.md:

    | model, rows, at a time, temperature | 1 | 2 | 4 | 8 | as many as pay |

of each window microseconds a token, forwards a token, and the time saved. Seeds are the numbers of the requests.
"""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from unveil.benchmarks.common.runs import timing_arguments
from unveil.benchmarks.speed.along_subjects import WORKS, at_pace, load_along, requests
from unveil.benchmarks.speed.engine import wanted
from unveil.benchmarks.speed.in_process import Subject
from unveil.engine.catalog import find_sources
from unveil.model.decoding import loop
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.loop import Decoded
from unveil.service.settings import load_settings

WINDOWS: tuple[int | None, ...] = (1, 2, 4, 8, None)
TEMPERATURES = (1.0, 0.7)
AT_A_TIME, QUICK_AT_A_TIME = (1, 8), (1, 2)
NUM, QUICK_NUM = 16, 2


@dataclass
class Side:
    """One window on one kind of request, and what was measured of it."""

    subject: Subject
    at_a_time: int
    microseconds: list[float] = field(default_factory=list)
    forwards_a_token: float = 0.0

    def take(self, canvases: Sequence[Canvas]) -> list[Decoded]:
        """Decodes these canvases."""
        runner = self.subject.runner
        before, begin = runner.counts().num_saved, time.thread_time()
        decoded = list(loop.decode(runner.step, canvases, max_batch=self.at_a_time))
        seconds = time.thread_time() - begin
        num_tokens = sum(own.canvas.num_forwards for own in decoded)
        self.microseconds.append(1e6 * seconds / num_tokens)
        self.forwards_a_token = 1 - (runner.counts().num_saved - before) / num_tokens
        return decoded


def main() -> None:
    parser = timing_arguments(__doc__, rounds=5)
    parser.add_argument("--models", help="only these bundled ones, separated by commas")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rounds, num, sizes = (1, QUICK_NUM, QUICK_AT_A_TIME) if given.quick else (given.rounds, NUM, AT_A_TIME)
    settings = load_settings({})
    sources = wanted(find_sources(settings.artifacts, checkpoints=settings.checkpoints), given.models)
    rows = []
    for subject in load_along(sources, max_batch=max(sizes)):
        for work in WORKS:
            for temperature in TEMPERATURES:
                canvases = requests(subject, work, num=num, params=SamplingParams(temperature=temperature))
                found = measured(subject, canvases, sizes=sizes, rounds=rounds)
                own = {"model": subject.name, "work": work, "temperature": temperature, "requests": num}
                rows += [{**own, **row} for row in found]
    full = {"rows": rows, "is_same": True, "rounds": rounds, "threads": 1, "torch": torch.__version__}
    print(json.dumps(full, indent=2) if given.json else as_text(rows))


def measured(
    subject: Subject, canvases: Sequence[Canvas], *, sizes: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """A row for each number of canvases at a time and each window. Exits with one line if any decodes otherwise."""
    make = partial(at_pace, subject)
    sides = {(size, window): Side(make(window), size) for size in sizes for window in WINDOWS}
    expected = next(iter(sides.values())).take(canvases)
    for number in range(rounds + 1):
        for (size, window), side in sides.items():
            if side.take(canvases) != expected:
                raise SystemExit(f"error: {subject.name}: {size} at a time, window {window}: other bytes")
            if number == 0:
                side.microseconds.clear()
    return [_row(sides, size, window) for size, window in sides]


def _row(sides: dict[tuple[int, int | None], Side], size: int, window: int | None) -> dict[str, Any]:
    side, taken = sides[size, window], {key: statistics.median(own.microseconds) for key, own in sides.items()}
    return {
        "at_a_time": size,
        "window": window,
        "microseconds_a_token": taken[size, window],
        "forwards_a_token": side.forwards_a_token,
        "forwards_saved": 1 - side.forwards_a_token,
        "time_saved": 1 - taken[size, window] / taken[size, 1],
    }


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """The table that the module's first lines show."""
    titles = ["as many as pay" if window is None else str(window) for window in WINDOWS]
    lines = [f"| model, rows, at a time, temperature | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for start in range(0, len(rows), len(WINDOWS)):
        part = rows[start : start + len(WINDOWS)]
        cells = [
            f"{row['microseconds_a_token']:,.0f} ({row['forwards_a_token']:.2f}, {row['time_saved']:+.0%})"
            for row in part
        ]
        first = part[0]
        name = f"`{first['model']}`, {first['work']}, {first['at_a_time']}, {first['temperature']}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
