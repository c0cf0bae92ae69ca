"""`unveil generate`: the service's own planning, engine shapes and replies, without a server.

A seed therefore gives here what it gives over HTTP with the same thread count.
"""

import csv as csv_files
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.live import Live

from model.tokenizers.grid import SIDE
from service.bodies import parse_json, validate
from service.catalog import Model, Source, load_catalog
from service.engine_models import Runner, load_models
from service.errors import ServiceError
from service.messages import Revealed, SampleDone
from service.planning import Plan, plan_generation
from service.replies import Composer
from service.schemas import GenerateRequest
from service.settings import Settings
from unveil.output import UsageError, print_json
from unveil.reveal_view import RevealView

_MAX_BATCH = 64
_MAX_SAMPLES = 1_000_000
_MAX_SHOWN = 6
_FRAME_SECONDS = 0.07  # a person wants to see the order, and a table is done within a hundredth of a second


@dataclass(frozen=True)
class Options:
    """The sampling flags as given."""

    order: str
    order_temperature: float | None
    tokens_per_step: int | None
    steps: int | None
    threshold: float | None
    temperature: float
    top_k: int | None
    top_p: float | None


@dataclass(frozen=True)
class Job:
    """A checked request and the model to run it on."""

    model: Model
    runner: Runner
    plan: Plan


def prepare(
    folder: Path, prompt: str | None, *, num_samples: int, length: int | None, seed: int | None, options: Options
) -> Job:
    """Loads the artifact and checks the request against it. Raises UsageError, ArtifactError."""
    source = Source(folder.resolve().name, folder)
    model = next(iter(load_catalog([source])))
    fields = {
        **asdict(options),
        "order": order_argument(options.order),
        "prompt": prompt_argument(prompt, model),
        "num_samples": num_samples,
        "length": length,
        "seed": seed,
    }
    limits = Settings(max_num_samples=_MAX_SAMPLES, queue_capacity=_MAX_SAMPLES)
    try:
        plan = plan_generation(validate(fields, GenerateRequest), model, limits)
    except ServiceError as error:
        raise UsageError(str(error)) from None
    _, runner = next(iter(load_models([source], max_batch=_MAX_BATCH, device="auto", threads=1)))
    return Job(model, runner, plan)


def run(job: Job, *, as_json: bool, csv: Path | None) -> None:
    """Decodes every sample and prints it, or writes it to the CSV file as it is finished."""
    composer = Composer(job.plan, job.model, has_logprobs=True)
    if csv is not None:
        _write_csv(job, composer, csv)
    elif as_json:
        samples = sorted(_decode(job, composer), key=lambda s: (s["prompt_index"], s["sample_index"]))
        print_json({"model": job.model.name, "samples": samples, "usage": composer.usage()})
    elif sys.stdout.isatty() and len(job.plan.samples) <= _MAX_SHOWN:
        _show(job, composer)
    else:
        is_grid = job.model.manifest.domain == "grid"  # one line a sample, as for every other domain
        for sample in _decode(job, composer):
            print(sample["output"] if is_grid else sample["text"])


def _decode(job: Job, composer: Composer, view: RevealView | None = None) -> Iterator[dict[str, Any]]:
    """Steps the canvases in batches and gives each sample when it is finished."""
    canvases = job.plan.canvases
    version = job.runner.weights_version
    for start in range(0, len(canvases), _MAX_BATCH):
        current = dict(enumerate(canvases[start : start + _MAX_BATCH], start))
        for index in [i for i, canvas in current.items() if canvas.is_complete]:
            yield composer.sample(SampleDone("cli", version, index, 0))
        while pending := [i for i, canvas in current.items() if not canvas.is_complete]:
            bucket = job.runner.bucket(current[pending[0]].length)
            pending = [i for i in pending if job.runner.bucket(current[i].length) == bucket]
            for index, result in zip(pending, job.runner.step([current[i] for i in pending]), strict=True):
                current[index] = result.canvas
                shown = composer.revealed(Revealed("cli", version, index, result.reveals))
                if view is not None:
                    view.reveal(index, shown)
                if result.canvas.is_complete:
                    yield composer.sample(SampleDone("cli", version, index, result.canvas.num_forwards))
            if view is not None:
                view.end_step()


def _show(job: Job, composer: Composer) -> None:
    side = SIDE if job.model.manifest.domain == "grid" else None
    view = RevealView(composer.start(), composer.names(), side=side)
    with Live(view, refresh_per_second=30) as live:

        def draw() -> None:
            live.refresh()
            time.sleep(_FRAME_SECONDS)

        view.on_step = draw
        for _ in _decode(job, composer, view):
            pass
    for sample in job.plan.samples:
        print(f"seed {sample.canvas.seed}", file=sys.stderr)


def _write_csv(job: Job, composer: Composer, path: Path) -> None:
    if job.model.manifest.domain != "table":
        raise UsageError(f"--csv: goes with tables, and this is a {job.model.manifest.domain} model")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer: csv_files.DictWriter[str] | None = None
        for sample in _decode(job, composer):
            if writer is None:
                writer = csv_files.DictWriter(file, fieldnames=list(sample["output"]))
                writer.writeheader()
            writer.writerow(sample["output"])


def order_argument(text: str) -> str | list[int]:
    """`--order` as a request has it: `3,0,1` is a list of positions, whatever else is checked as a policy's name."""
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(part.isdecimal() and len(part) < 10 for part in parts) else text


def prompt_argument(text: str | None, model: Model) -> Any:
    """PROMPT as a request has it. Raises UsageError where a table's is not JSON."""
    if model.manifest.domain != "table":
        return text or ""
    if text is None:
        return {}
    try:
        return parse_json(text.encode("utf-8", "surrogateescape"))
    except ServiceError as error:
        reason = error.message.removeprefix("the body is not JSON: ").replace("the body", "it")
        raise UsageError(f'prompt: takes JSON, as in \'{{"age": 39, "income": null}}\': {reason}') from None
