"""How fast the engine is here: the same canvases decoded by the engine's own loop and by the published one, in turns.

    python -m benchmarks in_process [--json] [--requests N] [--rounds N] [--max-batch N] [--threads N] [ARTIFACT]...

This is what `unveil bench` runs. No HTTP: `Worker`, scheduler, fixed shapes and sampler exactly as the service runs
them, in the calling thread, whose CPU time is what is measured.
"""

import argparse
import queue
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from unveil.benchmarks.speed.reference_loop import Rule, reference_decode
from unveil.commands.output import print_json
from unveil.engine.catalog import Source, find_sources
from unveil.engine.messages import Command, Event, Failed, Finished, Generate, Loaded, SampleDone, Stop
from unveil.engine.runner import Runner, load_models
from unveil.engine.worker import Worker
from unveil.model.artifact.folder import load_artifact
from unveil.model.decoding.batch import collate
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.errors import UnveilError
from unveil.model.network.base import Network
from unveil.service.settings import load_settings

TEMPERATURES: dict[Rule, float] = {"confidence": 0.0, "random": 1.0}  # as the published loop is used
_ORDERS = {"confidence": "confidence", "random": "uniform"}
_FIXED_BATCHES = (1, 4, 16, 64)
_INTERRUPTED = 130  # what a shell gives a command that SIGINT ended
RATIOS = ("over_reference_one_by_one", "over_reference_best_batch", "over_reference_alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="*", metavar="ARTIFACT", help="FOLDER or NAME=FOLDER; none: the bundled")
    parser.add_argument("--requests", type=int, default=64, help="of mixed lengths and numbers of holes")
    parser.add_argument("--rounds", type=int, default=5, help="both sides take turns; medians are reported")
    parser.add_argument("--max-batch", type=int, default=64, help="canvases in one denoising step")
    parser.add_argument("--threads", type=int, default=1, help="of the processor, for both sides")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        settings = load_settings({"artifacts": tuple(given.artifacts) or None})
        sources = find_sources(settings.artifacts, checkpoints=settings.checkpoints)
        rows = [row for source in sources for row in _compared(source, given)]
    except UnveilError as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from None
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    if given.json:
        print_json(report(rows))
    else:
        print(as_text(rows))


def _compared(source: Source, given: argparse.Namespace) -> list[dict[str, Any]]:
    subject = load_subject(source, max_batch=given.max_batch, threads=given.threads)
    return [compare(subject, rule=rule, rounds=given.rounds, num=given.requests) for rule in TEMPERATURES]


@dataclass(frozen=True)
class Subject:
    """What is measured. `denoise` is the bare network behind `runner`, which the published loop calls."""

    name: str
    runner: Runner
    denoise: Network
    vocabulary_sizes: tuple[int, ...]
    length: int
    is_padded: bool
    max_batch: int
    device: str = "cpu"


def load_subject(source: Source, *, max_batch: int, threads: int = 1, device: str = "cpu") -> Subject:
    """An artifact as the service runs it: warm, checked, in fixed shapes. Raises ArtifactError."""
    loading = load_models([source], max_batch=max_batch, device=device, threads=threads)
    (runner,) = (found[1] for found in loading if found is not None)
    artifact = load_artifact(source.folder)
    architecture = artifact.manifest.architecture
    sizes, length = architecture.vocabulary_sizes, architecture.length
    network = artifact.denoiser.to(device)
    return Subject(source.name, runner, network, sizes, length, architecture.is_padded, max_batch, device)


def mixed_canvases(subject: Subject, *, num: int, rule: Rule, holes: int | None = None) -> list[Canvas]:
    """`num` canvases of mixed lengths and numbers of holes, the same every time.

    Tables and grids keep their length; other canvases have a quarter to all of the model's. `holes` of each are hidden,
    by default an eighth of it, two eighths, and so on to the whole.
    """
    draws = torch.Generator().manual_seed(num)
    params = SamplingParams(order=_ORDERS[rule], temperature=TEMPERATURES[rule])  # type: ignore[arg-type]
    has_own = len(subject.vocabulary_sizes) > 1
    canvases = []
    for number in range(num):
        length = subject.length if holes or not subject.is_padded else max(subject.length * (1 + number % 4) // 4, 1)
        num_hidden = holes or max(length * (1 + number % 8) // 8, 1)
        where = set(torch.randperm(length, generator=draws)[:num_hidden].tolist())
        sizes = subject.vocabulary_sizes if has_own else subject.vocabulary_sizes * length
        tokens = tuple(int(torch.randint(size, (), generator=draws)) for size in sizes[:length])
        hidden = tuple(i in where for i in range(length))
        canvases.append(Canvas.start(tokens, hidden, seed=number, params=params))
    return canvases


def engine_decode(subject: Subject, canvases: Sequence[Canvas]) -> int:
    """Every canvas a request of its own, all there from the start. Gives how many steps they took, each canvas's own
    counted. Raises RuntimeError if one is not answered."""
    inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
    left, num_steps = len(canvases), 0

    def emit(events: Sequence[Event]) -> None:
        nonlocal left, num_steps
        for event in events:
            if isinstance(event, Failed):
                raise RuntimeError(event.message)
            left -= isinstance(event, Finished)
            num_steps += event.num_forwards if isinstance(event, SampleDone) else 0
        if not left:
            inbox.put(Stop())

    loaded = Loaded(subject.name, subject.runner.weights_version, "cpu", True)
    worker = Worker(
        [(loaded, subject.runner)], inbox=inbox, emit=emit, max_batch=subject.max_batch, heartbeat_seconds=1.0
    )
    for number, canvas in enumerate(canvases):
        inbox.put(Generate(str(number), subject.name, subject.runner.weights_version, (canvas,)))
    worker.run()
    return num_steps


def reference_batches(subject: Subject, canvases: Sequence[Canvas], *, rule: Rule, batch: int) -> None:
    """The published loop over fixed batches in order of arrival, each padded to its longest."""
    device = torch.device(subject.device)
    generator = torch.Generator(device).manual_seed(0)
    for start in range(0, len(canvases), batch):
        inputs = collate(canvases[start : start + batch], device)
        reference_decode(subject.denoise, *inputs, rule=rule, temperature=TEMPERATURES[rule], generator=generator)


def compare(subject: Subject, *, rule: Rule, rounds: int, num: int = 64, holes: int | None = None) -> dict[str, Any]:
    """Both sides in turns, the median of the rounds. `over_...` is how many times the engine's tokens a second.
    `engine_steps`: fewer than tokens where the engine has ends decide what lies behind them; the published loop does
    not."""
    canvases = mixed_canvases(subject, num=num, rule=rule, holes=holes)
    one = canvases[-1:]
    batches = [size for size in _FIXED_BATCHES if size <= num]
    num_steps = list[int]()
    sides: dict[str, Callable[[], object]] = {
        "engine": lambda: num_steps.append(engine_decode(subject, canvases)),
        **{f"batch {b}": partial(reference_batches, subject, canvases, rule=rule, batch=b) for b in batches},
        "engine, alone": lambda: engine_decode(subject, one),
        "reference, alone": lambda: reference_batches(subject, one, rule=rule, batch=1),
    }
    seconds = medians(sides, rounds=rounds, device=subject.device)
    best = min(batches, key=lambda b: seconds[f"batch {b}"])
    tokens = sum(canvas.num_at_start for canvas in canvases)
    return {
        "model": subject.name,
        "rule": rule,
        "requests": num,
        "tokens": tokens,
        "engine_steps": num_steps[-1],
        "engine_tokens_per_second": tokens / seconds["engine"],
        "reference_tokens_per_second": {str(b): tokens / seconds[f"batch {b}"] for b in batches},
        "reference_best_batch": best,
        "over_reference_one_by_one": seconds["batch 1"] / seconds["engine"],
        "over_reference_best_batch": seconds[f"batch {best}"] / seconds["engine"],
        "over_reference_alone": seconds["reference, alone"] / seconds["engine, alone"],
    }


def report(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All rows, and the smallest of each ratio over the rows of the published default, confidence at temperature 0."""
    default = [row for row in rows if row["rule"] == "confidence"]
    return {"rows": list(rows), **{key: min((row[key] for row in default), default=None) for key in RATIOS}}


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """The same for a reader."""
    lines = []
    for row in rows:
        rates = row["reference_tokens_per_second"]
        best = row["reference_best_batch"]
        lines.append(
            f"{row['model']}, by {row['rule']}: {row['engine_tokens_per_second']:,.0f} tokens a second;"
            f" the published loop {rates['1']:,.0f} one by one (x{row['over_reference_one_by_one']:.2f}),"
            f" {rates[str(best)]:,.0f} at its best batch, {best} (x{row['over_reference_best_batch']:.2f});"
            f" one request alone x{row['over_reference_alone']:.2f}"
        )
    return "\n".join(lines)


def medians(sides: dict[str, Callable[[], object]], *, rounds: int, device: str = "cpu") -> dict[str, float]:
    """Seconds of the calling thread's own CPU time, which is all that a side of one thread takes; the sides take turns.
    Clock time would count other processes of a busy machine too. On a GPU it is clock time, all work there done."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    now = time.thread_time if device == "cpu" else clock_of(device)
    for name, seconds in _rounds(sides, rounds, now):
        taken[name].append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def clock_of(device: str) -> Callable[[], float]:
    """Clock time in seconds once all that was begun on a GPU is done."""

    def now() -> float:
        if device != "cpu":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def _rounds(
    sides: dict[str, Callable[[], object]], rounds: int, now: Callable[[], float]
) -> Iterator[tuple[str, float]]:
    for _ in range(rounds):
        for name, run in sides.items():
            begin = now()
            run()
            yield name, now() - begin


if __name__ == "__main__":
    main()
