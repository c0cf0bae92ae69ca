"""How does a step's cost grow with length, vocabulary and concurrency? Random networks of width 64, one thread.

    python -m benchmarks growth [--quick] [--json] [--rounds N]

One denoising step of the sampler on the network as it is served, every position hidden, in CPU seconds a canvas and
step (the median of the rounds), under the uniform order, which asks for one position's tokens, and under confidence,
which asks for all. What theory says: per canvas, linear in the length but for attention's square; under the uniform
order hardly any growth with the vocabulary, under confidence linear; none with concurrency once a batch is full.
Memory is what the process's peak grew by in a process of its own.
"""

import json
import multiprocessing
import resource
import statistics
import time
from typing import Any

import torch

from unveil.benchmarks.common.runs import timing_arguments
from unveil.model.decoding.canvas import Canvas, OrderPolicy, SamplingParams
from unveil.model.decoding.sampler import step
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import FixedShapes, batch_sizes
from unveil.model.network.transformer import Transformer
from unveil.training.run.parent import end_with_parent

USUAL = {"length": 64, "vocabulary": 100, "canvases": 4}
SWEEPS: dict[str, tuple[int, ...]] = {
    "length": (16, 64, 256, 1024),
    "vocabulary": (100, 1_000, 10_000, 50_000),
    "canvases": (1, 8, 64, 512),
}
QUICK: dict[str, tuple[int, ...]] = {"length": (8, 16), "vocabulary": (10, 20), "canvases": (1, 4)}
ORDERS: tuple[OrderPolicy, ...] = ("uniform", "confidence")
_LARGEST_BATCH = 64


def main() -> None:
    given = timing_arguments(__doc__, rounds=5).parse_args()
    torch.set_num_threads(1)
    sweeps, rounds = (QUICK, 1) if given.quick else (SWEEPS, given.rounds)
    points = [
        {"sweep": name, **USUAL, name: value, "order": order, "rounds": rounds}
        for name, values in sweeps.items()
        for value in values
        for order in ORDERS
    ]
    with multiprocessing.get_context("fork").Pool(1, end_with_parent, maxtasksperchild=1) as pool:
        rows = pool.map(measured, points, chunksize=1)
    if given.json:
        print(json.dumps({"rows": rows, "threads": 1, "torch": torch.__version__}, indent=2))
        return
    for row in rows:
        print(
            f"{row['sweep']} {row[row['sweep']]:,}, {row['order']}: {1e6 * row['seconds_a_canvas']:,.0f} us a canvas"
            f" and step, {row['peak_megabytes']:,.0f} MB"
        )


def measured(point: dict[str, Any]) -> dict[str, Any]:
    """The point, with CPU seconds a canvas and step, and megabytes of memory at the peak."""
    torch.set_num_threads(1)
    before = _peak_megabytes()
    length, num, order = point["length"], point["canvases"], point["order"]
    stages = _stages(length, point["vocabulary"], num)
    params = SamplingParams(order=order)
    canvases = [Canvas.start((i % 7,) * length, _hidden(length, i), seed=i, params=params) for i in range(num)]
    seconds = []
    for _ in range(point["rounds"] + 1):
        begin = time.process_time()
        for start in range(0, num, _LARGEST_BATCH):
            step(stages, canvases[start : start + _LARGEST_BATCH])
        seconds.append((time.process_time() - begin) / num)
    median = statistics.median(seconds[1:])
    return {**point, "seconds_a_canvas": median, "peak_megabytes": _peak_megabytes() - before}


def _hidden(length: int, number: int) -> tuple[bool, ...]:
    """All but one, so that no two canvases of a batch need look alike and share a forward."""
    return tuple(i != number % length for i in range(length))


def _stages(length: int, vocabulary: int, num: int) -> FixedShapes:
    torch.manual_seed(0)
    architecture = Architecture(length=length, vocabulary_sizes=(vocabulary,), width=64, layers=2, heads=4)
    network = Transformer(architecture, OrderSpec(kind="uniform")).eval()
    batch = min(num, _LARGEST_BATCH)
    return FixedShapes(prepare(network), sizes={length: batch_sizes(batch)}, finish_sizes=batch_sizes(512)[2:])


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
