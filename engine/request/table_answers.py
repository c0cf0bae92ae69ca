"""POST /predict and POST /count: a valid request -> canvases that stop early, and their events -> the reply.

A canvas reveals what is asked first and is complete then (`SamplingParams.num_left`). Of one position all ids are told
with their log-probabilities, so a column's law takes one forward. It is that of the decoder which reveals this column
next: what stays hidden is summed out, since whatever it writes there afterwards, those probabilities sum to one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from unveil.engine.catalog import ServedModel
from unveil.engine.messages import Generate, RequestEvent, Revealed, SampleDone
from unveil.engine.request.errors import ServiceError
from unveil.engine.request.limits import Limits
from unveil.engine.request.planning import encode_prompt, parts_of, prompts_of
from unveil.engine.request.table_schemas import CountRequest, PredictRequest
from unveil.model.decoding.canvas import Canvas, Condition, Reveal, SamplingParams, Weights
from unveil.model.decoding.seeds import derive_seed, draw_seed
from unveil.model.errors import PromptError
from unveil.model.tokenizers.base import Template
from unveil.model.tokenizers.table.columns import outward
from unveil.model.tokenizers.table.distributions import distribution
from unveil.model.tokenizers.table.table import TableTokenizer

_TIMINGS = ("queue_seconds", "total_seconds")


@dataclass(frozen=True, slots=True)
class _Asked:
    """The columns wanted of one prompt, by position, and its canvases: from `first` on one for each column, and behind
    them those of the draws."""

    positions: tuple[int, ...]
    first: int


class PredictComposer:
    """One request for laws of columns; a `engine.request.composers.Composer`."""

    id_prefix: ClassVar[str] = "predict"
    timings: ClassVar[tuple[str, ...]] = _TIMINGS

    def __init__(self, request: PredictRequest, model: ServedModel, limits: Limits) -> None:
        """Raises ServiceError (422) naming the field, down to the column, that cannot be served."""
        self._model, self._tokenizer = model, _table(model, "predict")
        self._num_samples = request.num_samples
        self._seed = (draw_seed() if request.seed is None else request.seed) if request.num_samples else None
        self._asked: list[_Asked] = []
        self._canvases: list[Canvas] = []
        if request.num_samples > limits.max_num_samples:
            message = f"num_samples must be at most {limits.max_num_samples} here"
            raise ServiceError("invalid_request", message, param="num_samples")
        for prompt_index, (place, prompt) in enumerate(prompts_of(request, limits)):
            template = encode_prompt(model, prompt, request.length, place)
            positions = _positions(request, self._tokenizer, template, place)
            self._asked.append(_Asked(positions, len(self._canvases)))
            blamed = "num_samples" if request.num_samples > len(positions) else "prompt"
            _check_room(len(self._canvases) + len(positions) + request.num_samples, limits, blamed)
            laws = [(self._params(template, (i,)), 0) for i in positions]
            seeds = [derive_seed(self._seed or 0, prompt_index, k) for k in range(request.num_samples)]
            drawn = self._params(template, positions)
            for params, seed in (*laws, *((drawn, seed) for seed in seeds)):
                self._canvases.append(Canvas.start(template.tokens, template.hidden, seed=seed, params=params))
        self._reveals: list[list[Reveal]] = [[] for _ in self._canvases]

    def command(self, request_id: str) -> Generate:
        """What the engine is to do."""
        return Generate(request_id, self._model.name, self._model.weights_version, tuple(self._canvases))

    def add(self, event: RequestEvent) -> None:
        """Takes in one event."""
        if isinstance(event, Revealed):
            self._reveals[event.index] += event.reveals

    def reply(self) -> dict[str, Any]:
        """All of a finished reply but its head and its timings."""
        return {"seed": self._seed, "predictions": [self._prediction(i) for i in range(len(self._asked))]}

    def _params(self, template: Template, first: Sequence[int]) -> SamplingParams:
        """Of a canvas that reveals these positions in turn, and no others."""
        hidden = [i for i, is_hidden in enumerate(template.hidden) if is_hidden]
        order = tuple(dict.fromkeys((*first, *hidden)))
        told = self._tokenizer.vocabulary_sizes[first[0]] if len(first) == 1 else 0
        return SamplingParams(
            order="explicit", explicit_order=order, top_logprobs=told, num_left=len(hidden) - len(first)
        )

    def _prediction(self, prompt_index: int) -> dict[str, Any]:
        asked, columns = self._asked[prompt_index], self._tokenizer.columns
        laws = [self._reveals[asked.first + k][0].top for k in range(len(asked.positions))]
        drawn = asked.first + len(asked.positions)
        return {
            "prompt_index": prompt_index,
            "columns": [distribution(columns[i], dict(law)) for i, law in zip(asked.positions, laws, strict=True)],
            "samples": [self._row(self._reveals[drawn + k]) for k in range(self._num_samples)],
        }

    def _row(self, reveals: Sequence[Reveal]) -> dict[str, Any]:
        own = self._tokenizer
        return {own.name(x.position): outward(own.value(x.position, x.token_id, x.uniform)) for x in reveals}


class CountComposer:
    """One request for a condition's probability; a `engine.request.composers.Composer`.

    Each draw of the constrained columns, each restricted to its set, has a weight: the product of the masses that the
    model gives the sets. Their mean is unbiased (importance sampling), and exact where one column is constrained.
    """

    id_prefix: ClassVar[str] = "count"
    timings: ClassVar[tuple[str, ...]] = _TIMINGS

    def __init__(self, request: CountRequest, model: ServedModel, limits: Limits) -> None:
        """Raises ServiceError (422) naming the field, down to the column, that cannot be served."""
        _table(model, "count")
        self._model = model
        if isinstance(request.prompt, list):
            raise ServiceError("invalid_request", "prompt must be one row, got a list", param="prompt")
        template = encode_prompt(model, request.prompt, request.length, "prompt")
        parts = parts_of(model, request.where, template)
        num_left = sum(template.hidden) - len(parts)
        params = SamplingParams(order_temperature=0, condition=Condition(parts, attempts=1), num_left=num_left)
        self._is_exact = len(parts) == 1
        self._seed = draw_seed() if request.seed is None else request.seed
        seeds = [derive_seed(self._seed, 0, k) for k in range(1 if self._is_exact else request.num_samples)]
        _check_room(len(seeds), limits, "num_samples")
        self._canvases = [Canvas.start(template.tokens, template.hidden, seed=seed, params=params) for seed in seeds]
        self._weights: dict[int, Weights] = {}

    def command(self, request_id: str) -> Generate:
        """What the engine is to do."""
        return Generate(request_id, self._model.name, self._model.weights_version, tuple(self._canvases))

    def add(self, event: RequestEvent) -> None:
        """Takes in one event."""
        if isinstance(event, SampleDone) and event.trials is not None:
            self._weights[event.index] = event.trials.weights

    def reply(self) -> dict[str, Any]:
        """All of a finished reply but its head and its timings."""
        weights = Weights()
        for index in sorted(self._weights):  # in one order, so that the sum has the same bits
            weights = weights.and_all(self._weights[index])
        error = weights.standard_error if weights.num > 1 or self._is_exact else None
        rows = self._model.manifest.training.get("data", {}).get("train", {}).get("rows")
        return {
            "seed": self._seed,
            "probability": weights.mean,
            "standard_error": error,
            "draws": weights.num,
            "rows": rows,
            "count": None if rows is None else rows * weights.mean,
            "count_standard_error": None if rows is None or error is None else rows * error,
        }


def _table(model: ServedModel, what: str) -> TableTokenizer:
    if not isinstance(model.tokenizer, TableTokenizer):
        message = f"{what} is only valid with tables, and {model.name} is a {model.manifest.domain} model"
        raise ServiceError("invalid_request", message, param="model")
    return model.tokenizer


def _positions(request: PredictRequest, tokenizer: TableTokenizer, template: Template, place: str) -> tuple[int, ...]:
    """The columns asked for. Raises ServiceError (422) for one that is not there, or known."""
    if request.columns is None:
        found = tuple(i for i, is_hidden in enumerate(template.hidden) if is_hidden)
        if not found:
            raise ServiceError("invalid_request", "the prompt hides no column", param=place)
        return found
    try:
        positions = tuple(tokenizer.position(name) for name in request.columns)
    except PromptError as error:
        raise ServiceError("invalid_request", str(error), param="columns") from None
    for i in positions:
        if not template.hidden[i]:
            message = f"{tokenizer.name(i)} is given by {place}"
            raise ServiceError("invalid_request", message, param="columns")
    return positions


def _check_room(num_canvases: int, limits: Limits, param: str) -> None:
    if num_canvases > limits.queue_capacity:
        message = f"{num_canvases} canvases are needed; this server holds {limits.queue_capacity}"
        raise ServiceError("invalid_request", message, param=param)
