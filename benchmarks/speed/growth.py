"""How does a token's cost grow with length, vocabulary and concurrency? Random networks of width 64, one thread.

    python -m benchmarks growth [--quick] [--json] [--rounds N]

Networks of late queries, two layers of contents and one of queries, served along the order, beside networks of two
layers that are served by whole canvases; both with relative bias. All but one position is hidden, at temperature 1,
under the uniform order, which asks for one position's tokens, and under confidence, which asks for all. CPU
microseconds a token, the median of the rounds, each side of each round in a process of its own, in turns.

Along the order and the uniform one a whole generation is timed, one position a step: several would flatter random
networks, whose tokens hardly depend on what is known. The rest is timed at evenly spaced steps of a generation, along
the order with the contents of the steps before computed outside the time.

What theory says: along the order hardly any growth with length, since a token reads what is known and computes one
position; by whole canvases linear in it, and attention's square; under confidence each step asks all that is hidden, on
either side. With the vocabulary hardly any under uniform orders, linear under confidence; none with concurrency once a
batch is full. Memory: what a canvas's row of the cache takes, and what the process's peak grew by. What is printed and
goes into docs/results.md, one table a sweep:

    | order, side | each value of the sweep |
"""

import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch

from unveil.benchmarks.common.runs import timing_arguments
from unveil.model.along import ahead
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import Along
from unveil.model.along.shapes import shapes_of
from unveil.model.decoding import loop
from unveil.model.decoding.canvas import Canvas, OrderPolicy, SamplingParams
from unveil.model.decoding.sampler import step
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.build import build_network, prepare
from unveil.model.network.fixed_shapes import FixedShapes, batch_sizes
from unveil.model.network.late import LateQueries
from unveil.training.run.parent import end_with_parent

USUAL = {"length": 64, "vocabulary": 100, "canvases": 4}
SWEEPS: dict[str, tuple[int, ...]] = {
    "length": (16, 64, 256, 1024),
    "vocabulary": (100, 1_000, 10_000, 50_000),
    "canvases": (1, 8, 64, 512),
}
QUICK: dict[str, tuple[int, ...]] = {"length": (8, 16), "vocabulary": (10, 20), "canvases": (1, 4)}
ORDERS: tuple[OrderPolicy, ...] = ("uniform", "confidence")
Side = Literal["along", "whole"]
SIDES: tuple[Side, ...] = ("along", "whole")
_WARM_STEPS = 4
_BATCH, _SAMPLED_STEPS = 64, 8


def main() -> None:
    given = timing_arguments(__doc__, rounds=5).parse_args()
    sweeps, rounds = (QUICK, 1) if given.quick else (SWEEPS, given.rounds)
    points = [
        {"sweep": name, **USUAL, name: value, "order": order, "side": side}
        for name, values in sweeps.items()
        for value in values
        for order in ORDERS
        for side in SIDES
    ]
    with multiprocessing.get_context("fork").Pool(1, end_with_parent, maxtasksperchild=1) as pool:
        found = pool.map(measured, points * rounds, chunksize=1)
    rows = [{**point, **_median(found[number :: len(points)])} for number, point in enumerate(points)]
    full = {"rows": rows, "rounds": rounds, "threads": 1, "torch": torch.__version__}
    print(json.dumps(full, indent=2) if given.json else as_text(rows, sweeps))


def measured(point: dict[str, Any]) -> dict[str, float]:
    """CPU microseconds a token, megabytes at the peak, and kilobytes of a canvas's row, 0 without a cache."""
    torch.set_num_threads(1)
    before = _peak_megabytes()
    length, num = point["length"], point["canvases"]
    params = SamplingParams(order=point["order"])
    canvases = [Canvas.start((i % 7,) * length, _hidden(length, i), seed=i, params=params) for i in range(num)]
    if point["side"] == "along":
        seconds, row_bytes = _along(canvases, point["vocabulary"])
    else:
        seconds, row_bytes = _whole(canvases, point["vocabulary"]), 0
    return {
        "microseconds_a_token": 1e6 * seconds,
        "peak_megabytes": _peak_megabytes() - before,
        "row_kilobytes": row_bytes / 1024,
    }


def _along(canvases: Sequence[Canvas], vocabulary: int) -> tuple[float, int]:
    """Seconds a token, and bytes of a row. Without a clock there is one position a step. The shapes are not checked
    against each other: that changes nothing in what is measured."""
    made = _network(canvases[0].length, vocabulary, query_layers=1)
    assert isinstance(made, LateQueries)
    network = Along(made)
    num = len(canvases)
    denoiser = AlongDenoiser(network, shapes_of(network, num), max_rows=num)
    run, warm = partial(ahead.step, denoiser), list(canvases)
    for _ in range(_WARM_STEPS):
        warm = [result.canvas for result in run(warm)]
    denoiser.release(warm)
    if canvases[0].params.measure is not None:
        return _sampled(run, canvases, before=denoiser.hold), network.size.num_bytes
    begin = time.thread_time()
    num_tokens = sum(len(own.reveals) for own in loop.decode(run, canvases))
    return (time.thread_time() - begin) / num_tokens, network.size.num_bytes


def _whole(canvases: Sequence[Canvas], vocabulary: int) -> float:
    """Seconds a token."""
    length = canvases[0].length
    network, batch = _network(length, vocabulary, query_layers=0), min(len(canvases), _BATCH)
    stages = FixedShapes(prepare(network), sizes={length: batch_sizes(batch)}, finish_sizes=batch_sizes(512)[2:])
    step(stages, canvases[:batch])

    def run(some: Sequence[Canvas]) -> None:
        for start in range(0, len(some), _BATCH):
            step(stages, some[start : start + _BATCH])

    return _sampled(run, canvases)


@torch.inference_mode()
def _sampled(
    run: Callable[[Sequence[Canvas]], object],
    canvases: Sequence[Canvas],
    *,
    before: Callable[[Sequence[Canvas]], object] | None = None,
) -> float:
    """Seconds a token at evenly spaced steps of a generation. What `before` does is not counted."""
    num_steps = canvases[0].num_at_start
    num_sampled, seconds = min(num_steps, _SAMPLED_STEPS), 0.0
    for number in range(num_sampled):
        some = [_after(canvas, num_steps * (2 * number + 1) // (2 * num_sampled)) for canvas in canvases]
        if before is not None:
            before(some)
        begin = time.thread_time()
        run(some)
        seconds += time.thread_time() - begin
    return seconds / (num_sampled * len(canvases))


def _after(canvas: Canvas, num_steps: int) -> Canvas:
    """As many positions known as after so many steps of one; which ones does not matter."""
    known = {i: k for k, i in enumerate([i for i, is_hidden in enumerate(canvas.hidden) if is_hidden][:num_steps], 1)}
    hidden = tuple(is_hidden and i not in known for i, is_hidden in enumerate(canvas.hidden))
    ranks = tuple(known.get(i, rank) for i, rank in enumerate(canvas.ranks))
    return replace(canvas, hidden=hidden, ranks=ranks, step=num_steps, num_forwards=num_steps)


def _hidden(length: int, number: int) -> tuple[bool, ...]:
    """All but one, so that no two canvases of a batch need look alike and share a forward."""
    return tuple(i != number % length for i in range(length))


def _network(length: int, vocabulary: int, *, query_layers: int) -> Network:
    torch.manual_seed(0)
    shape = {"length": length, "vocabulary_sizes": (vocabulary,), "width": 64, "layers": 2, "heads": 4}
    architecture = Architecture.model_validate({**shape, "relative_bias": True, "query_layers": query_layers})
    return build_network(architecture, OrderSpec(kind="uniform")).eval().requires_grad_(False)


def _median(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(own[key] for own in rounds) for key in rounds[0]}


def as_text(rows: Sequence[dict[str, Any]], sweeps: dict[str, tuple[int, ...]]) -> str:
    """The tables that the module's first lines show: microseconds a token (megabytes at the peak)."""
    lines = list[str]()
    for name, values in sweeps.items():
        lines.append(f"| {name} | {' | '.join(f'{value:,}' for value in values)} |")
        lines.append("|---" * (len(values) + 1) + "|")
        for order in ORDERS:
            for side in SIDES:
                own = [row for row in rows if (row["sweep"], row["order"], row["side"]) == (name, order, side)]
                cells = [f"{row['microseconds_a_token']:,.0f} ({row['peak_megabytes']:,.0f} MB)" for row in own]
                lines.append(f"| {order}, {side} | {' | '.join(cells)} |")
        kilobytes = [row["row_kilobytes"] for row in rows if row["sweep"] == name and row["side"] == "along"]
        lines.append(f"| a canvas's row, KB | {' | '.join(f'{own:,.0f}' for own in kilobytes[:: len(ORDERS)])} |")
    return "\n".join(lines)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
