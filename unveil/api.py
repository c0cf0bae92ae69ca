"""The library: an artifact in this process, asked for what `unveil serve` is asked for, in the same words.

The fields are those of the HTTP bodies, the answers those of the replies without id, creation time and timings. A seed
gives what it gives over HTTP with the same device and number of threads: planning, shapes, noise and replies are the
service's own. Torch is imported when a model first computes.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from unveil.engine import environment
from unveil.engine.catalog import ServedModel, Source, load_catalog
from unveil.engine.messages import Generate, Rank, Ranked, RequestEvent, SampleDone, Scored, Work, step_events
from unveil.engine.request.composers import Composer, compose
from unveil.engine.request.errors import ServiceError, unmet
from unveil.engine.request.limits import Limits
from unveil.engine.request.parsing import parse_json, validate
from unveil.engine.request.planning import Sample, plan_generation
from unveil.engine.request.replies import ConditionTally, GenerateComposer
from unveil.engine.request.schemas import GenerateRequest, OrderRequest, ScoreRequest
from unveil.engine.request.table_schemas import CountRequest, PredictRequest
from unveil.model.artifact.manifest import WEIGHTS, Manifest, check_file
from unveil.model.decoding import loop
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.seeds import derive_seed, draw_seed
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.base import Tokenizer, Value
from unveil.model.tokenizers.grid import CELLS
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.tables.drawing import Draw, Shares, begun_rows, row_rules, without_repeats
from unveil.tables.methods import SampleOptions, TableMethods

if TYPE_CHECKING:
    from unveil.engine.runner import Runner
    from unveil.training.publishing.order_account import OrderAccount

_MAX_BATCH = 64
_LARGEST_WINDOW = 1024
_CELLS_AT_ONCE = 2_000_000  # logits held in memory at a time
_MOST = 1_000_000  # samples, orders and prompts: nobody else waits here
_LIMITS = Limits(_MOST, _MOST, _MOST, _MOST, inf, inf)
_DEVICES = re.compile(r"auto|cpu|cuda(:\d+)?")
_ONLY_OVER_HTTP = ("model", "stream", "timeout_seconds")
AnyRequest = TypeVar("AnyRequest", GenerateRequest, OrderRequest, ScoreRequest, PredictRequest, CountRequest)
StreamEvent = tuple[str, dict[str, Any]]


class GenerateOptions(SampleOptions, total=False):
    """What `Model.generate` takes beside the prompt, as in the body of POST /generate."""

    num_samples: int
    length: int | None
    backtrack: int | None
    logprobs: bool
    top_logprobs: int


class ScoreOptions(TypedDict, total=False):
    """What `Model.score` takes beside the prompt, as in the body of POST /score."""

    given: Any
    length: int | None
    order: str | list[int]
    order_temperature: float | None
    num_orders: int | None
    seed: int | None


class PredictOptions(TypedDict, total=False):
    """What `Model.predict` takes beside the prompt, as in the body of POST /predict."""

    num_samples: int
    seed: int | None


class CountOptions(TypedDict, total=False):
    """What `Model.count` takes beside the condition, as in the body of POST /count."""

    prompt: Any
    num_samples: int
    seed: int | None


class OrderOptions(TypedDict, total=False):
    """What `Model.order` takes beside the prompt, as in the body of POST /order."""

    length: int | None


def load(path: str | Path, *, device: str = "auto", threads: int = 1) -> "Model":
    """An artifact, checked whole; its network is built when it is first needed.

    `device` is auto (the first CUDA device, else the CPU), cpu, cuda or cuda:N; `threads` is torch's number of threads,
    which is one for the whole process. Raises UnveilError for either, ArtifactError for the folder.
    """
    if not (isinstance(device, str) and _DEVICES.fullmatch(device)):
        raise UnveilError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}", param="device")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UnveilError(f"threads must be an integer of at least 1, got {threads!r}", param="threads")
    return Model(Path(path), device=device, threads=threads)


class Model(TableMethods):
    """One artifact, as `load` gives it. Every method raises UnveilError, with `param` naming the field to blame.

    What it does with DataFrames: `unveil.tables.methods`.
    """

    def __init__(self, folder: Path, *, device: str, threads: int) -> None:
        self._source = Source(folder.resolve().name, folder)
        self._served: ServedModel = load_catalog([self._source]).get(None)
        check_file(folder, self._served.manifest, WEIGHTS)
        self._device = device
        self._threads = threads
        self._loaded: tuple[str, Runner] | None = None

    def __repr__(self) -> str:
        return f"<unveil.Model {self.name}: {self.manifest.domain}, {self.manifest.order.kind} order>"

    @property
    def name(self) -> str:
        """The folder's."""
        return self._source.name

    @property
    def folder(self) -> Path:
        """Where the artifact is."""
        return self._source.folder

    def take_tokenizer(self, tokenizer: Tokenizer) -> None:
        """In place of its own; it has the same ids."""
        assert tokenizer.vocabulary_sizes == self.tokenizer.vocabulary_sizes
        self._served = replace(self._served, tokenizer=tokenizer)

    @property
    def manifest(self) -> Manifest:
        """What the artifact says of itself: domain, architecture, training, figures."""
        return self._served.manifest

    @property
    def tokenizer(self) -> Tokenizer:
        """What makes canvases of prompts, and values of tokens."""
        return self._served.tokenizer

    def generate(self, prompt: Any, **fields: Unpack[GenerateOptions]) -> dict[str, Any]:
        """Completes a template, or each of a list: `{"model", "samples", "usage"}`, as POST /generate answers. Of a
        pair among the `rules` that the model was not trained with, the training table is read."""
        self._know_pairs(fields)
        return self._answer(self._composer(GenerateRequest, prompt, fields))

    def score(self, prompt: Any, **fields: Unpack[ScoreOptions]) -> dict[str, Any]:
        """What the known positions cost in nats: `{"model", "seed", "num_orders", "scores", "usage"}`, as POST /score
        answers."""
        return self._answer(self._composer(ScoreRequest, prompt, fields))

    def predict(self, prompt: Any, columns: Any = None, **fields: Unpack[PredictOptions]) -> Any:
        """The law of hidden columns of a table given the rest: `{"model", "seed", "predictions"}`, as POST /predict
        answers.

        Of a DataFrame of pandas, polars or pyarrow, and the name of one column: a DataFrame of the same kind with a row
        each. Of levels it has the probability of each; of numbers mean, standard deviation and quantiles, of dates
        quantiles. What the rows have in that column is not looked at; an empty cell is not known.
        """
        if not isinstance(prompt, dict | list):
            from unveil.tables.predicting import check_one, predict

            if fields:
                name = next(iter(fields))
                raise UnveilError(f"{name} is not valid with a DataFrame", param=name)
            if not isinstance(self.tokenizer, TableTokenizer):
                raise UnveilError(f"predict is for models of tables, and this is a {self.manifest.domain} model")
            return predict(self, self.tokenizer, prompt, check_one(columns))
        fields = {**fields, **({} if columns is None else {"columns": columns})}  # type: ignore[typeddict-unknown-key]
        return self._answer(self._composer(PredictRequest, prompt, fields))

    def count(self, where: dict[str, Any], **fields: Unpack[CountOptions]) -> dict[str, Any]:
        """The probability that a row meets a condition, and that many times the rows of training, as POST /count
        answers."""
        own = {name: value for name, value in fields.items() if name != "prompt"}
        return self._answer(self._composer(CountRequest, fields.get("prompt", {}), {"where": where, **own}))

    def order(self, prompt: Any = None, **fields: Unpack[OrderOptions]) -> dict[str, Any]:
        """The probability of each hidden position to be revealed next: `{"model", "positions"}`, as POST /order
        answers. With no prompt, where nothing is known."""
        if prompt is None:
            prompt = {"table": {}, "grid": "." * CELLS}.get(self.manifest.domain, "")
        return self._answer(self._composer(OrderRequest, prompt, fields))

    def stream(self, prompt: Any, **fields: Unpack[GenerateOptions]) -> Iterator[StreamEvent]:
        """The events of a streamed POST /generate, each with its data: `start`, then every `reveal`, `unreveal` and
        `sample` in the step in which it happens, and `done`. What cannot be served is refused before the first one."""
        self._know_pairs(fields)
        composer = self._composer(GenerateRequest, prompt, fields)
        assert isinstance(composer, GenerateComposer)
        return self._stream(composer)

    def outputs(
        self,
        prompt: Any,
        *,
        tally: ConditionTally | None = None,
        shares: Shares | None = None,
        **fields: Unpack[GenerateOptions],
    ) -> Iterator[Any]:
        """The `output` of each sample that `generate` gives, in their order, however many: decoded as they are taken,
        in constant memory. With `where` or `rules`, `tally` is told what each came to.

        Of a table, `rules` may be about all rows, `unique(...)`, and of a pair that the model was not trained with;
        then the training table is read. `shares` are of values of columns, as in `Model.sample`.
        """
        request = _request(GenerateRequest, prompt, fields)
        seed = draw_seed() if request.seed is None else request.seed
        rules = row_rules(self, request.rules)
        one = request.model_copy(update={"num_samples": 1, "seed": seed, "rules": rules.texts})
        draws: Iterable[Draw]
        if shares is None:
            samples = plan_generation(one, self._served, _LIMITS).samples
            draws = (Draw(own, own.prompt_index, i) for own in samples for i in range(request.num_samples))
        else:
            begun = begun_rows(self.tokenizer, prompt, shares, num=request.num_samples, seed=seed)
            plan = {key: self._planned(one, own) for key, own in dict(begun).items()}
            draws = (Draw(plan[key], 0, i) for i, (key, _) in enumerate(begun))
        rows = partial(self._rows, seed=seed, tally=tally)
        return (self.tokenizer.output(values)[0] for values in without_repeats(rows, draws, rules.unique))

    def _planned(self, request: GenerateRequest, prompt: Any) -> Sample:
        (sample,) = plan_generation(request.model_copy(update={"prompt": prompt}), self._served, _LIMITS).samples
        return sample

    def decode(self, canvases: Iterable[Canvas], *, barred: Mapping[int, int] | None = None) -> Iterator[loop.Decoded]:
        """Every canvas finished, in the order given; only a window of them is in memory.

        `barred` is an id at each of some positions that is never drawn there (`model.denoiser.Barring`).
        """
        device, runner = self._engine()
        step = runner.step
        if barred:
            import torch

            from unveil.model.decoding import sampler
            from unveil.model.denoiser import Barring

            step = partial(sampler.step, Barring(runner.denoiser, barred), device=torch.device(device))
        width = max(self.manifest.architecture.vocabulary_sizes) * self.manifest.length
        window = max(min(_CELLS_AT_ONCE // width, _LARGEST_WINDOW, runner.most), 1)
        return loop.decode(
            step,
            canvases,
            max_batch=window,
            group=lambda canvas: runner.bucket(canvas.length),
            release=runner.release,
        )

    def describe_order(self) -> "OrderAccount":
        """The learned order in words, as JSON and as a picture."""
        environment.prepare()
        from unveil.model.artifact.folder import load_artifact
        from unveil.training.publishing.order_account import describe_order

        artifact = load_artifact(self._source.folder)
        return describe_order(artifact.denoiser, artifact.tokenizer, name=self.name)

    def _know_pairs(self, fields: GenerateOptions) -> None:
        rules = fields.get("rules")
        if rules and all(isinstance(own, str) for own in rules):  # else the request is refused
            row_rules(self, rules)

    def _composer(self, schema: type[AnyRequest], prompt: Any, fields: Mapping[str, Any]) -> Composer:
        return compose(_request(schema, prompt, fields), self._served, _LIMITS)

    def _answer(self, composer: Composer) -> dict[str, Any]:
        for event in self._events(composer.command("")):
            composer.add(event)
        return {"model": self.name, **composer.reply()}

    def _stream(self, composer: GenerateComposer) -> Iterator[StreamEvent]:
        start = composer.start()
        yield "start", {"model": self.name, **start, "samples": list(start["samples"])}
        for event in self._events(composer.command("")):
            yield from composer.shown(event)
        yield "done", composer.ending()

    def _rows(self, draws: Iterable[Draw], *, seed: int, tally: ConditionTally | None) -> Iterator[list[Value]]:
        """All values of each sample."""
        waiting = deque[Draw]()

        def starts() -> Iterator[Canvas]:
            for draw in draws:
                waiting.append(draw)
                own = draw.sample.canvas
                seed_of_draw = derive_seed(seed, draw.prompt_index, draw.number)
                yield Canvas.start(own.tokens, own.hidden, seed=seed_of_draw, params=own.params)

        for canvas, reveals in self.decode(starts()):
            if canvas.is_unmet:
                raise unmet()
            if tally is not None and canvas.trials is not None:
                tally.add(canvas.trials, canvas.params)
            values = dict(waiting.popleft().sample.template.known)
            for reveal in reveals:
                values[reveal.position] = self.tokenizer.value(reveal.position, reveal.token_id, reveal.uniform)
            yield [values[i] for i in range(canvas.length)]

    def _events(self, work: Work) -> Iterator[RequestEvent]:
        """What the engine would answer, without its thread: one request at a time needs no scheduler."""
        (_, runner), ids = self._engine(), (work.request_id, work.weights_version)
        if isinstance(work, Rank):
            yield Ranked(*ids, tuple(runner.rank(work.canvas)))
            return
        if isinstance(work, Generate):
            canvases = list(work.canvases)
            yield from (SampleDone(*ids, i, 0) for i, canvas in enumerate(canvases) if canvas.is_complete)
            for stepped in loop.run(
                runner.step,
                work.canvases,
                max_batch=min(_MAX_BATCH, runner.most),
                group=lambda canvas: runner.bucket(canvas.length),
                release=runner.release,
            ):
                for index, canvas, reveals in stepped:
                    if canvas.is_unmet:
                        raise unmet()
                    yield from step_events(ids, index, canvases[index], canvas, reveals)
                    canvases[index] = canvas
            return
        from unveil.model.decoding.scoring import score

        every = score(
            runner.score,
            work.chains,
            max_batch=min(_MAX_BATCH, runner.most),
            group=lambda chain: runner.bucket(chain.canvas.length),
            links=runner.links,
            release=lambda chains: runner.release([chain.canvas for chain in chains]),
        )
        yield from (Scored(*ids, index, term) for index, terms in enumerate(every) for term in terms)

    def _engine(self) -> "tuple[str, Runner]":
        """The device and what steps there."""
        environment.prepare()
        import torch

        from unveil.engine.runner import load_unchecked

        if self._loaded is None:
            if self._device.startswith("cuda") and not torch.cuda.is_available():
                raise UnveilError(f"device: {self._device} is asked for, and there is no CUDA device", param="device")
            self._loaded = load_unchecked(
                self._source, max_batch=_MAX_BATCH, device=self._device, threads=self._threads
            )
        torch.set_num_threads(self._threads)  # another model may have set its own
        return self._loaded


def _request(schema: type[AnyRequest], prompt: Any, fields: Mapping[str, Any]) -> AnyRequest:
    """Checked as a body is. Raises UnveilError."""
    for name in fields:
        if name in _ONLY_OVER_HTTP:
            raise ServiceError("invalid_request", f"{name} is a field of HTTP requests only", param=name)
    return validate({name: _as_json(name, value) for name, value in {"prompt": prompt, **fields}.items()}, schema)


def _as_json(name: str, value: Any) -> Any:
    """The value as it comes out of a body. Raises UnveilError for what JSON cannot say."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ServiceError("invalid_request", f"{name} must be a JSON value: {error}", param=name) from None
    try:
        return parse_json(text.encode())
    except ServiceError as error:
        raise ServiceError("invalid_request", error.message.replace("the body", name), param=name) from None
