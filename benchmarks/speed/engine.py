"""Is the engine faster than the published loop, and how near the bare forward? Measured by
`benchmarks/speed/in_process.py`.

    python -m benchmarks engine [--quick] [--json] [--rounds N] [--requests N] [--models NAME,NAME]
      [--no-large] [--large-only] [--holes N]

On every bundled model, and on a random network of BERT-base's shape (30,522 ids, length 128, 12 layers of width 768; 8
requests of 16 holes): 64 requests of mixed lengths through the engine's own loop, and through LLaDA's loop one by one,
at fixed batches of 1 to 64, and one request alone; same weights, rule and precision, one position a step, both sides in
turns in one run, one thread, the median of the rounds, in CPU seconds of that thread. By `random` the order is known
ahead; by `confidence` each step asks every hidden position, so that a model along its order saves contents alone.

`of_limit` is the engine's tokens a second over those of its own forwards run again, slots without work included,
without scheduler and sampler. `of_peak` is the engine's share of what this thread's float32 matrix products reach at
their best, measured in the same run: the operations of those forwards' products (torch's own counter) over the engine's
seconds. The seeds of requests and weights are fixed in the script.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch

from unveil.benchmarks.common.runs import timing_arguments
from unveil.benchmarks.speed.bare import matmul_peak, shares
from unveil.benchmarks.speed.in_process import (
    TEMPERATURES,
    Subject,
    as_text,
    compare,
    load_subject,
    mixed_canvases,
    report,
)
from unveil.benchmarks.speed.reference_loop import Rule
from unveil.engine.catalog import Source, find_sources
from unveil.engine.runner import Runner
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import FixedShapes, batch_sizes
from unveil.model.network.transformer import Transformer
from unveil.service.settings import load_settings

LARGE = {"length": 128, "vocabulary_sizes": (30_522,), "width": 768, "layers": 12, "heads": 12, "mlp_width": 3072}
QUICK_LARGE = {**LARGE, "vocabulary_sizes": (500,), "width": 64, "layers": 2, "heads": 4, "mlp_width": 128}
LARGE_REQUESTS, LARGE_HOLES, MAX_BATCH = 8, 16, 64
SEED = 0
PEAK_SIZE, QUICK_PEAK_SIZE = 2048, 256


def main() -> None:
    parser = timing_arguments(__doc__, rounds=5)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--models", help="only these bundled ones, separated by commas")
    parser.add_argument("--no-large", action="store_true", help="without the network of BERT-base's shape")
    parser.add_argument("--large-only", action="store_true", help="nothing but that one")
    parser.add_argument("--holes", type=int, default=LARGE_HOLES, help="of each request to that one")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rounds, num = (1, 4) if given.quick else (given.rounds, given.requests)
    settings = load_settings({})
    subjects = [
        load_subject(source, max_batch=MAX_BATCH if num > 4 else 4)
        for source in wanted(find_sources(settings.artifacts, checkpoints=settings.checkpoints), given.models)
        if not given.large_only
    ]
    peak = matmul_peak(QUICK_PEAK_SIZE if given.quick else PEAK_SIZE)
    rows = [
        measured(subject, rule=rule, rounds=rounds, num=num, peak=peak) for subject in subjects for rule in TEMPERATURES
    ]
    large = None
    if not given.no_large:
        subject = random_subject(QUICK_LARGE if given.quick else LARGE)
        large = [
            measured(subject, rule=rule, rounds=min(rounds, 3), num=LARGE_REQUESTS, holes=given.holes, peak=peak)
            for rule in TEMPERATURES
        ]
    machine = {"peak_gflops": peak / 1e9, "threads": 1, "torch": torch.__version__}
    full = {**report(rows), "large": large, **machine, "rounds": rounds}
    print(json.dumps(full, indent=2) if given.json else as_text([*rows, *(large or [])]))


def wanted(sources: Sequence[Source], names: str | None) -> list[Source]:
    """Those of these names; all if none are given. Exits with one line if there is no model of a name."""
    if names is None:
        return list(sources)
    unknown = set(names.split(",")) - {source.name for source in sources}
    if unknown:
        raise SystemExit(f"error: --models: no model {', '.join(sorted(unknown))}")
    return [source for source in sources if source.name in names.split(",")]


def measured(
    subject: Subject, *, rule: Rule, rounds: int, num: int, peak: float, holes: int | None = None
) -> dict[str, Any]:
    """The comparison, and the shares of the limit and of the peak."""
    row = compare(subject, rule=rule, rounds=rounds, num=num, holes=holes)
    canvases = mixed_canvases(subject, num=num, rule=rule, holes=holes)
    return {**row, **shares(subject, canvases, rounds=rounds, peak=peak)}


def random_subject(shape: dict[str, Any]) -> Subject:
    """A random network as it is served. Its shapes are not checked against each other: that takes longer than the
    measurement, and changes nothing in what is measured."""
    torch.manual_seed(SEED)
    architecture = Architecture(**shape)
    network = Transformer(architecture, OrderSpec(kind="uniform")).eval().requires_grad_(False)
    sizes, length = architecture.vocabulary_sizes, architecture.length
    batches = batch_sizes(LARGE_REQUESTS)
    denoiser = FixedShapes(prepare(network), sizes={length: batches}, finish_sizes=batch_sizes(length)[2:])
    runner = Runner(denoiser, weights_version="random", device=torch.device("cpu"))
    return Subject("random, BERT-base's shape", runner, network, sizes, length, True, LARGE_REQUESTS)


if __name__ == "__main__":
    main()
