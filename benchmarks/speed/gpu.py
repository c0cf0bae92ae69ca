"""How fast are engine and training on a GPU? Both sides in one run; with --quick on the CPU, in small.

    python -m benchmarks gpu [--quick] [--json] [--rounds N] [--results FOLDER]

The bundled models but `sudoku` (64 loops), and networks of about 30 and 120 million random parameters that attend to
what was revealed earlier: the engine and LLaDA's loop in turns, same weights, rule and float32, clock seconds with all
work on the device done, the median of the rounds. `of_limit` is the engine's tokens a second over those of its own
forwards called one after the other, with nothing between them. Tokens a second against the length: the smaller random
network, canvases all hidden, one alone and many. Training: steps of the trainer on tables made up here, whole rows a
forward, in bf16 where there is a GPU, with compiled blocks (where there is a C compiler) and without; `of_peak` is the
share of what products of large matrices reach in the same run, the operations being those of the step's products by
torch's own counter. Shapes of random networks are checked when they are first needed, outside what is timed.
`--results` writes `gpu-NAME.json`, named after the device.
"""

import argparse
import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.utils.flop_counter import FlopCounterMode

from unveil.benchmarks.common.runs import Fields, timing_arguments, write_whole
from unveil.benchmarks.speed.in_process import (
    TEMPERATURES,
    Subject,
    clock_of,
    compare,
    engine_decode,
    load_subject,
    medians,
    mixed_canvases,
)
from unveil.benchmarks.speed.training import dataset_of, recipe_of
from unveil.engine.catalog import Source
from unveil.engine.runner import Runner, recorded
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import Along
from unveil.model.along.shapes import shapes_of
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.late import LateQueries
from unveil.service.settings import load_settings
from unveil.training.trainer import Run

MODELS = ("adult", "moses", "text")
NETS: dict[str, dict[str, int]] = {
    "30M": {"width": 512, "layers": 9, "heads": 8, "mlp_width": 2048, "vocabulary": 4096},
    "120M": {"width": 768, "layers": 16, "heads": 12, "mlp_width": 3072, "vocabulary": 8192},
}
QUICK_NETS = {"small": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "vocabulary": 11}}
TABLE = {"columns": 128, "values": 20, "batch": 64}
QUICK_TABLE = {"columns": 4, "values": 3, "batch": 8}
LENGTHS, QUICK_LENGTHS = (64, 256, 1024), (8, 16)
LENGTH, REQUESTS, NET_REQUESTS, MANY = 128, 64, 32, 64
SEED, PEAK_ROUNDS, TRAIN_STEPS, WARM_STEPS = 0, 5, 8, 4


class Scale:
    """What is measured: on a GPU all of it, else in small."""

    def __init__(self, *, is_quick: bool, rounds: int) -> None:
        self.device = "cuda" if torch.cuda.is_available() and not is_quick else "cpu"
        self.rounds = 1 if is_quick else rounds
        self.nets = QUICK_NETS if is_quick else NETS
        self.lengths: tuple[int, ...] = QUICK_LENGTHS if is_quick else LENGTHS
        self.table, self.length = (QUICK_TABLE, 8) if is_quick else (TABLE, LENGTH)
        self.models = MODELS[:1] if is_quick else MODELS
        self.requests, self.net_requests, self.many = (2, 2, 2) if is_quick else (REQUESTS, NET_REQUESTS, MANY)
        self.peak_size = 128 if is_quick else 8192
        self.precision = "32-true" if is_quick else "bf16-mixed"
        has_compiler = shutil.which("cc") is not None or shutil.which("gcc") is not None
        self.compiles = (False, True) if has_compiler and not is_quick else (False,)


def main() -> None:
    parser = timing_arguments(__doc__, rounds=2)
    parser.add_argument("--results", type=Path, help="a folder; the report goes there, named after the device")
    given = parser.parse_args()
    if not (given.quick or torch.cuda.is_available()):
        raise SystemExit("error: this machine has no CUDA device; --quick takes every path on the CPU")
    found = report(given)
    if given.results is not None:
        write_whole(given.results / f"gpu-{slug(found['device'])}.json", found)
    print(json.dumps(found, indent=2) if given.json else as_text(found))


def report(given: argparse.Namespace) -> Fields:
    """Every figure, and what they are of."""
    began, scale = time.monotonic(), Scale(is_quick=given.quick, rounds=given.rounds)
    torch.set_num_threads(1)
    peaks = {str(dtype).removeprefix("torch."): matmul_peak(scale, dtype) for dtype in (torch.float32, torch.bfloat16)}
    return {
        "device": torch.cuda.get_device_name() if scale.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "rounds": scale.rounds,
        "peak_tflops": {name: peak / 1e12 for name, peak in peaks.items()},
        "engine": engine_rows(scale),
        "lengths": length_rows(scale),
        "training": training_rows(scale, peaks["float32" if scale.precision == "32-true" else "bfloat16"]),
        "seconds": time.monotonic() - began,
    }


def slug(name: str) -> str:
    """A device's name in a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def matmul_peak(scale: Scale, dtype: torch.dtype) -> float:
    """Operations a second of products of large matrices, the best of several."""
    n, now = scale.peak_size, clock_of(scale.device)
    a, b = (torch.rand(n, n, device=scale.device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / min(_seconds(lambda: a @ b, now) for _ in range(PEAK_ROUNDS))


def _seconds(work: Callable[[], object], now: Callable[[], float]) -> float:
    begin = now()
    work()
    return now() - begin


def engine_rows(scale: Scale) -> list[Fields]:
    """The engine over the loop and its share of the limit, on bundled models by both rules, on random nets by one."""
    settings = load_settings({})
    rows = []
    for name in scale.models:
        source = Source(name, settings.checkpoints / name)
        subject = load_subject(source, max_batch=scale.requests, device=scale.device)
        rows += [engine_row(subject, scale, rule=rule, num=scale.requests) for rule in TEMPERATURES]
    for name, shape in scale.nets.items():
        subject = random_subject(name, shape, scale, length=scale.length, max_batch=scale.net_requests)
        rows.append(engine_row(subject, scale, rule="random", num=scale.net_requests))
    return rows


def engine_row(subject: Subject, scale: Scale, *, num: int, **fields: Any) -> Fields:
    """Of one subject and rule."""
    canvases = mixed_canvases(subject, num=num, **fields)
    engine_decode(subject, canvases)  # shapes are recorded the second time that they occur
    row = compare(subject, rounds=scale.rounds, num=num, **fields)
    calls = forwards(subject, canvases)

    @torch.inference_mode()
    def bare() -> None:
        for call in calls:
            call()

    sides: dict[str, Callable[[], object]] = {"bare": bare, "engine": lambda: engine_decode(subject, canvases)}
    seconds = medians(sides, rounds=scale.rounds, device=scale.device)
    num_parameters = sum(parameter.numel() for parameter in subject.denoise.parameters())
    return {**row, "parameters": num_parameters, "of_limit": seconds["bare"] / seconds["engine"]}


def forwards(subject: Subject, canvases: list[Canvas]) -> list[Callable[[], object]]:
    """What the engine asks of the network to decode these canvases, to be called again."""
    runner, calls = subject.runner, list[Callable[[], object]]()
    assert isinstance(runner, Runner)
    denoiser: Any = runner.denoiser
    places = [(denoiser, "run"), (getattr(denoiser, "network", None), "logits")]
    if not isinstance(denoiser, AlongDenoiser):
        places = [(denoiser, "begin"), (denoiser, "finish")]
    before = [getattr(owner, name) for owner, name in places]

    def noted(call: Callable[..., object]) -> Callable[..., object]:
        def noting(*args: Any, **kwargs: Any) -> object:
            calls.append(partial(call, *args, **kwargs))
            return call(*args, **kwargs)

        return noting

    for (owner, name), call in zip(places, before, strict=True):
        setattr(owner, name, noted(call))
    engine_decode(subject, canvases)
    for (owner, name), call in zip(places, before, strict=True):
        setattr(owner, name, call)
    return calls


def length_rows(scale: Scale) -> list[Fields]:
    """Tokens a second of the smaller random net at each length, all hidden: one canvas alone, and many."""
    name, shape = next(iter(scale.nets.items()))
    rows = []
    for length in scale.lengths:
        subject = random_subject(name, shape, scale, length=length, max_batch=scale.many)
        for num in (1, scale.many):
            params = SamplingParams(order="uniform")
            own = [Canvas.start((0,) * length, (True,) * length, seed=i, params=params) for i in range(num)]
            decode = partial(engine_decode, subject, own)
            decode()
            seconds = medians({"engine": decode}, rounds=scale.rounds, device=scale.device)["engine"]
            rows.append({"net": name, "length": length, "canvases": num, "tokens_per_second": num * length / seconds})
    return rows


def random_subject(name: str, shape: dict[str, int], scale: Scale, *, length: int, max_batch: int) -> Subject:
    """A random network along its order, as it is served."""
    torch.manual_seed(SEED)
    fields = {key: value for key, value in shape.items() if key != "vocabulary"}
    sizes, device = (shape["vocabulary"],), torch.device(scale.device)
    architecture = Architecture(length=length, vocabulary_sizes=sizes, query_layers=1, relative_bias=True, **fields)
    network = LateQueries(architecture, OrderSpec(kind="uniform")).to(device).eval().requires_grad_(False)
    along = Along(network)
    run = recorded(along).run if device.type == "cuda" else None
    denoiser = AlongDenoiser(along, shapes_of(along, max_batch), max_rows=max_batch, run=run)
    runner = Runner(denoiser, weights_version="random", device=device)
    return Subject(f"random, {name}", runner, network, sizes, length, True, max_batch, scale.device)


def training_rows(scale: Scale, peak: float) -> list[Fields]:
    """Tokens a second of the trainer's own steps, and their share of the peak."""
    return [
        training_row(name, {**scale.table, **shape}, scale, peak, has_compiler=has_compiler)
        for name, shape in scale.nets.items()
        for has_compiler in scale.compiles
    ]


def training_row(name: str, shape: dict[str, int], scale: Scale, peak: float, *, has_compiler: bool) -> Fields:
    """Of one net; a table's column is a token."""
    with tempfile.TemporaryDirectory() as work:
        run = _begun(shape, scale, Path(work), has_compiler=False)
        with FlopCounterMode(display=False) as counter:  # which does not see into compiled blocks
            run.stepper.take(0)
        operations = counter.get_total_flops()
        if has_compiler:
            run = _begun(shape, scale, Path(work), has_compiler=True)
        for step in range(WARM_STEPS):
            run.stepper.take(step)
        steps, now = range(WARM_STEPS, WARM_STEPS + TRAIN_STEPS), clock_of(scale.device)
        seconds = statistics.median(_seconds(partial(run.stepper.take, step), now) for step in steps)
        num_parameters = sum(parameter.numel() for parameter in run.unwrapped.denoiser.parameters())
    return {
        "net": name,
        "parameters": num_parameters,
        "compiled": has_compiler,
        "precision": scale.precision,
        "step_seconds": seconds,
        "tokens_per_second": shape["batch"] * shape["columns"] / seconds,
        "of_peak": operations / seconds / peak,
    }


def _begun(shape: dict[str, int], scale: Scale, work: Path, *, has_compiler: bool) -> Run:
    run: Fields = {"precision": scale.precision, "accelerator": scale.device, "compile": has_compiler}
    recipe = recipe_of(shape, "uniform", query_layers=1, **run)
    fabric = Fabric(accelerator=scale.device, devices=1, precision=recipe.run.precision)  # type: ignore[arg-type]
    return Run(fabric, recipe, dataset_of(shape), work)


def as_text(found: Fields) -> str:
    """The same for a reader."""
    peaks = ", ".join(f"{name} {peak:.1f}" for name, peak in found["peak_tflops"].items())
    lines = [f"{found['device']}, torch {found['torch']}, in {found['seconds']:.0f} s; products in Tflop/s: {peaks}"]
    lines += [
        f"{row['model']}, by {row['rule']}: {row['engine_tokens_per_second']:,.0f} tokens a second,"
        f" x{row['over_reference_one_by_one']:.2f} over the loop one by one,"
        f" x{row['over_reference_best_batch']:.2f} at its best batch, {row['reference_best_batch']};"
        f" alone x{row['over_reference_alone']:.2f}; {row['of_limit']:.2f} of the limit"
        for row in found["engine"]
    ]
    lines += [
        f"{row['net']}, length {row['length']:,}, {row['canvases']} canvases: {row['tokens_per_second']:,.0f} tokens a"
        " second"
        for row in found["lengths"]
    ]
    lines += [
        f"training {row['net']} ({row['parameters']:,} parameters), {row['precision']}"
        f"{', compiled' if row['compiled'] else ''}: {row['tokens_per_second']:,.0f} tokens a second,"
        f" {row['of_peak']:.2f} of the peak"
        for row in found["training"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
