"""What is the exact cache worth? The engine along the order beside whole canvases at every step, on the same weights.

    python -m benchmarks along [--quick] [--json] [--rounds N] [--requests N] [--models NAME,NAME]

Every bundled model that goes along its order, by its own order at temperature 1, through the engine's own loop: as it
is served, several positions a step where that pays; with one position a step; and by the network's own forward, every
canvas computed anew at each step. That is not the same law, since there all that is known is known from the start, but
it is the work that the cache saves. 64 requests at once and eight one after the other; each both of mixed lengths and
numbers of holes, what is known from rows of the model's own, and whole rows from nothing.

CPU microseconds of one thread a token, the sides in turns in one run, the median of the rounds after one that does not
count. A token is a position that a step decides: ends behind an end cost nothing on any side and are not counted. What
is printed and goes into docs/results.md:

    | model, requests | as served | one position a step | whole canvases | times |

Seeds are the numbers of the requests.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from unveil.benchmarks.common.runs import timing_arguments
from unveil.benchmarks.speed.along_subjects import WORKS, at_pace, load_along, requests
from unveil.benchmarks.speed.bare import with_denoiser
from unveil.benchmarks.speed.engine import wanted
from unveil.benchmarks.speed.in_process import Subject, engine_decode
from unveil.engine.catalog import find_sources
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import fixed_shapes
from unveil.service.settings import load_settings

SERVED, SINGLE, WHOLE = "as served", "one position a step", "whole canvases"
ALONE, QUICK_ALONE, QUICK_REQUESTS = 8, 1, 2


def main() -> None:
    parser = timing_arguments(__doc__, rounds=5)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--models", help="only these bundled ones, separated by commas")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rounds, num, alone = (1, QUICK_REQUESTS, QUICK_ALONE) if given.quick else (given.rounds, given.requests, ALONE)
    settings = load_settings({})
    sources = wanted(find_sources(settings.artifacts, checkpoints=settings.checkpoints), given.models)
    rows = []
    for subject in load_along(sources, max_batch=num):
        sides = {
            SERVED: at_pace(subject, None),
            SINGLE: at_pace(subject, 1),
            WHOLE: whole_canvases(subject),
        }
        for work in WORKS:
            for together, many in ((True, num), (False, alone)):
                canvases = requests(subject, work, num=many, params=SamplingParams())
                found = measured(sides, canvases, together=together, rounds=rounds)
                rows.append({"model": subject.name, "work": work, "at_once": many if together else 1, **found})
    full = {"rows": rows, "rounds": rounds, "threads": 1, "torch": torch.__version__}
    print(json.dumps(full, indent=2) if given.json else as_text(rows))


def whole_canvases(subject: Subject) -> Subject:
    """The same weights, every canvas computed anew at each step."""
    network = subject.denoise
    denoiser, _ = fixed_shapes(prepare(network), network.architecture, subject.max_batch, torch.device("cpu"))
    denoiser.end_id = subject.runner.denoiser.end_id
    return with_denoiser(subject, denoiser)


def measured(
    sides: Mapping[str, Subject], canvases: Sequence[Canvas], *, together: bool, rounds: int
) -> dict[str, Any]:
    """Microseconds a token of each side, and how many times those of whole canvases."""
    runs = {name: partial(_tokens, subject, canvases, together=together) for name, subject in sides.items()}
    taken = _microseconds(runs, rounds=rounds)
    return {
        "requests": len(canvases),
        "microseconds_a_token": taken,
        "times_whole": taken[WHOLE] / taken[SERVED],
    }


def _tokens(subject: Subject, canvases: Sequence[Canvas], *, together: bool) -> int:
    """Decodes them, and gives how many tokens that were: one a step of a canvas."""
    if together:
        return engine_decode(subject, canvases)
    return sum(engine_decode(subject, [canvas]) for canvas in canvases)


def _microseconds(sides: Mapping[str, Callable[[], int]], *, rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, run in sides.items():
            begin = time.thread_time()
            num_tokens = run()
            taken[name].append(1e6 * (time.thread_time() - begin) / num_tokens)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """The table that the module's first lines show."""
    lines = [
        f"| model, requests | {SERVED} | {SINGLE} | {WHOLE} | times |",
        "|---" * 5 + "|",
    ]
    for row in rows:
        number = f"{row['at_once']} at once" if row["at_once"] > 1 else "alone"
        taken = " | ".join(f"{row['microseconds_a_token'][name]:,.0f}" for name in (SERVED, SINGLE, WHOLE))
        lines.append(f"| `{row['model']}`, {row['work']}, {number} | {taken} | x{row['times_whole']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
