"""Is the engine faster than the published loop, and how near the bare forward? Measured by
`benchmarks/speed/in_process.py`.

    python -m benchmarks engine [--quick] [--json] [--rounds N] [--requests N] [--models NAME,NAME]
      [--no-large] [--large-only] [--holes N]

On every bundled model, and on a random network of BERT-base's shape (30,522 ids, length 128, 12 layers of width 768; 8
requests of 16 holes): 64 requests of mixed lengths through the engine's own loop, and through LLaDA's loop one by one,
at fixed batches of 1 to 64, and one request alone; same weights, rule and precision, one position a step, both sides in
turns in one run, one thread, the median of the rounds, in CPU seconds of that thread. `of_limit` is the engine's tokens
a second over those of bare forwards in the same batches, asked for tokens at as many positions, without scheduler and
sampler. `of_peak` is the engine's share of what this thread's float32 matrix products reach at their best, measured in
the same run: the operations of those forwards' products (torch's own counter), padding to the longest canvas included,
over the engine's seconds. The seeds of requests and weights are fixed in the script.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from unveil.benchmarks.common.runs import timing_arguments
from unveil.benchmarks.speed.in_process import (
    TEMPERATURES,
    Subject,
    as_text,
    compare,
    engine_decode,
    load_subject,
    medians,
    mixed_canvases,
    report,
)
from unveil.engine.catalog import Source, find_sources
from unveil.engine.runner import Runner
from unveil.model.decoding.batch import collate
from unveil.model.decoding.canvas import Canvas
from unveil.model.denoiser import Stages
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import FixedShapes, batch_sizes
from unveil.model.network.transformer import Transformer
from unveil.service.settings import load_settings

LARGE = {"length": 128, "vocabulary_sizes": (30_522,), "width": 768, "layers": 12, "heads": 12, "mlp_width": 3072}
QUICK_LARGE = {**LARGE, "vocabulary_sizes": (500,), "width": 64, "layers": 2, "heads": 4, "mlp_width": 128}
LARGE_REQUESTS, LARGE_HOLES, MAX_BATCH = 8, 16, 64
SEED = 0
PEAK_SIZE, QUICK_PEAK_SIZE, PEAK_ROUNDS = 2048, 256, 5
Asked = tuple[tuple[Tensor, ...], Tensor, Tensor]  # inputs of a step, rows and positions of which it asks tokens


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


def measured(subject: Subject, *, rounds: int, num: int, peak: float, **fields: Any) -> dict[str, Any]:
    """The comparison, and the shares of the limit and of the peak."""
    row = compare(subject, rounds=rounds, num=num, **fields)
    return {**row, **shares(subject, rounds=rounds, num=num, peak=peak, **fields)}


def shares(subject: Subject, *, rounds: int, num: int, peak: float, **fields: Any) -> dict[str, float]:
    """`of_limit`: seconds of the bare forwards that the engine makes, over the engine's for all of it; `of_peak`:
    their operations over those of `peak`, operations a second, in the engine's seconds."""
    canvases = mixed_canvases(subject, num=num, **fields)
    runner = subject.runner
    assert isinstance(runner, Runner)
    stages = runner.denoiser
    asks = canvases[0].params.measure is not None
    steps = [_asked(batch, asks=asks) for batch in _steps(runner, canvases, subject.max_batch)]

    @torch.inference_mode()
    def bare() -> None:
        for inputs, rows, positions in steps:
            stages.finish(stages.begin(*inputs).states[rows, positions], positions)

    seconds = medians({"bare": bare, "engine": lambda: engine_decode(subject, canvases)}, rounds=rounds)
    operations = _operations(prepare(subject.denoise), steps)
    return {"of_limit": seconds["bare"] / seconds["engine"], "of_peak": operations / seconds["engine"] / peak}


@torch.inference_mode()
def _operations(stages: Stages, steps: Sequence[Asked]) -> int:
    """Floating-point operations of the products in these forwards, each shape counted once."""
    counted: dict[tuple[int, ...], int] = {}
    total = 0
    for inputs, rows, positions in steps:
        shape = (*inputs[0].shape, len(positions))
        if shape not in counted:
            with FlopCounterMode(display=False, custom_mapping=_UNKNOWN) as counter:
                stages.finish(stages.begin(*inputs).states[rows, positions], positions)
            counted[shape] = counter.get_total_flops()
        total += counted[shape]
    return total


def _linear_operations(x: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return 2 * out_shape.numel() * x[-1]


def _attention_operations(q: torch.Size, k: torch.Size, v: torch.Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(q, k, v)  # type: ignore[no-untyped-call, no-any-return]


_UNKNOWN = {  # to the counter
    torch.ops.mkldnn._linear_pointwise: _linear_operations,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations,
}


def matmul_peak(size: int) -> float:
    """Operations a second of this thread's float32 products of `size` x `size` matrices, the best of several."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    seconds = []
    for _ in range(PEAK_ROUNDS):
        begin = time.thread_time()
        a @ b
        seconds.append(time.thread_time() - begin)
    return 2 * size**3 / min(seconds)


def _asked(batch: Sequence[Canvas], *, asks: bool) -> Asked:
    """The inputs of a step, and the rows and positions whose token logits it asks for: all hidden ones or one each."""
    inputs = collate(batch)
    rows, positions = (
        inputs[1].nonzero(as_tuple=True) if asks else (torch.arange(len(batch)), inputs[1].int().argmax(1))
    )
    return inputs, rows, positions


def _steps(runner: Runner, canvases: Sequence[Canvas], max_batch: int) -> list[list[Canvas]]:
    """The batches of all steps when every canvas is there from the start and full batches run to their end."""
    by_bucket: dict[int, list[Canvas]] = {}
    for canvas in canvases:
        by_bucket.setdefault(runner.bucket(canvas.length), []).append(canvas)
    steps = []
    for bucket in by_bucket.values():
        for start in range(0, len(bucket), max_batch):
            part = bucket[start : start + max_batch]
            most = max(canvas.num_at_start for canvas in part)
            steps += [[_after(canvas, step) for canvas in part if canvas.num_at_start > step] for step in range(most)]
    return steps


def _after(canvas: Canvas, num_steps: int) -> Canvas:
    """As many positions known as after so many steps of one, which ones does not matter."""
    known = [i for i, is_hidden in enumerate(canvas.hidden) if is_hidden][:num_steps]
    return replace(canvas, hidden=tuple(h and i not in known for i, h in enumerate(canvas.hidden)))


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
