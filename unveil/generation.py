"""`unveil generate`: the service's own planning, engine shapes and replies, without a server.

A seed therefore gives here what it gives over HTTP with the same thread count. Rows for a CSV file stream into it, in
constant memory, however many there are.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.live import Live

from model.canvas import Canvas
from model.seeds import derive_seed
from model.tokenizers.grid import SIDE
from model.tokenizers.table import TableTokenizer
from service.bodies import parse_json, validate
from service.catalog import Model, Source, load_catalog
from service.engine_models import Runner, load_models
from service.errors import ServiceError
from service.messages import Revealed, SampleDone
from service.planning import Plan, plan_generation
from service.replies import Composer
from service.schemas import GenerateRequest
from service.settings import Settings
from unveil.decoding import Decoder, Finished
from unveil.output import UsageError, print_json
from unveil.progress import Bar, stderr
from unveil.raw_csv import csv_line
from unveil.result_files import check_target, written
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
    """A checked request, and where its model is."""

    model: Model
    source: Source
    plan: Plan


def prepare(
    folder: Path, prompt: str | None, *, num_samples: int, length: int | None, seed: int | None, options: Options
) -> Job:
    """Checks the request against the artifact. Raises UsageError, ArtifactError."""
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
    return Job(model, source, plan)


def run(job: Job, *, as_json: bool) -> None:
    """Decodes every sample and prints it."""
    composer = Composer(job.plan, job.model, has_logprobs=True)
    if as_json:
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
    runner = _runner(job)
    version = runner.weights_version
    for start in range(0, len(canvases), _MAX_BATCH):
        current = dict(enumerate(canvases[start : start + _MAX_BATCH], start))
        for index in [i for i, canvas in current.items() if canvas.is_complete]:
            yield composer.sample(SampleDone("cli", version, index, 0))
        while pending := [i for i, canvas in current.items() if not canvas.is_complete]:
            bucket = runner.bucket(current[pending[0]].length)
            pending = [i for i in pending if runner.bucket(current[i].length) == bucket]
            for index, result in zip(pending, runner.step([current[i] for i in pending]), strict=True):
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
    view = RevealView(list(composer.start()), composer.names(), side=side)
    with Live(view, refresh_per_second=30) as live:

        def draw() -> None:
            live.refresh()
            time.sleep(_FRAME_SECONDS)

        view.on_step = draw
        for _ in _decode(job, composer, view):
            pass
    for sample in job.plan.samples:
        print(f"seed {sample.canvas.seed}", file=sys.stderr)


def write_csv(job: Job, path: Path, *, num_samples: int, force: bool) -> None:
    """So many rows like the plan's one sample into a file, each as soon as its window is finished.

    Raises UsageError for a model of no table, or a file that stands and may not be replaced; OSError.
    """
    tokenizer = job.model.tokenizer
    if not isinstance(tokenizer, TableTokenizer):
        raise UsageError(f"--csv: goes with tables, and this is a {job.model.manifest.domain} model")
    if (num := len(job.plan.samples)) != 1:
        raise UsageError(f"prompt: --csv takes one row, not a list of {num}; -n says how many are made of it")
    check_target(path, force=force)
    with written(path) as file, Bar("generating", num_samples, unit="rows") as advance:
        file.write(csv_line([column.name for column in tokenizer.columns]) + "\n")
        for finished in Decoder(job.source.folder).decode(_canvases(job.plan, num_samples)):
            file.write(csv_line(_values(finished, job.plan, tokenizer)) + "\n")
            advance(1)
    seed = job.plan.samples[0].canvas.seed
    stderr.print(f"wrote {path}: {num_samples:,} rows, seed {seed}", soft_wrap=True)


def _canvases(plan: Plan, num_samples: int) -> Iterator[Canvas]:
    """The plan's one canvas with the seed of each sample."""
    (sample,) = plan.samples
    for index in range(num_samples):
        yield replace(sample.canvas, seed=derive_seed(sample.canvas.seed, 0, index))


def _values(finished: Finished, plan: Plan, tokenizer: TableTokenizer) -> list[Any]:
    known = plan.samples[0].template.known
    return [
        known[i] if i in known else tokenizer.value(i, finished.reveals[i].token_id, finished.reveals[i].uniform)
        for i in range(tokenizer.length)
    ]


def _runner(job: Job) -> Runner:
    return next(iter(load_models([job.source], max_batch=_MAX_BATCH, device="auto", threads=1)))[1]


def order_argument(text: str) -> str | list[int]:
    """`--order` as a request has it: `3,0,1` is a list of positions, whatever else is checked as a policy's name."""
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(part.isdecimal() and len(part) < 10 for part in parts) else text


def prompt_argument(text: str | None, model: Model, *, what: str = "prompt") -> Any:
    """PROMPT as a request has it. Raises UsageError where a table's is not JSON."""
    if model.manifest.domain != "table":
        return text or ""
    if text is None:
        return {}
    try:
        return parse_json(text.encode("utf-8", "surrogateescape"))
    except ServiceError as error:
        reason = error.message.removeprefix("the body is not JSON: ").replace("the body", "it")
        raise UsageError(f'{what}: takes JSON, as in \'{{"age": 39, "income": null}}\': {reason}') from None
