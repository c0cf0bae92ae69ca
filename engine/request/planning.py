"""A valid request and a served model -> canvases to decode, each with its own seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from unveil.engine.catalog import ServedModel
from unveil.engine.request.errors import ServiceError
from unveil.engine.request.limits import Limits
from unveil.engine.request.rules import Named, bound_rules, read_rules
from unveil.engine.request.schemas import ATTEMPTS, NUM_ORDERS, GenerateRequest, OrderRequest, ScoreRequest
from unveil.engine.request.table_schemas import CountRequest, PredictRequest
from unveil.model.decoding.canvas import Canvas, Condition, OrderPolicy, Part, SamplingParams
from unveil.model.decoding.seeds import derive_seed, draw_seed
from unveil.model.errors import PromptError
from unveil.model.tokenizers.base import Template, condition_of, contradiction_of

AnyRequest = GenerateRequest | OrderRequest | ScoreRequest | PredictRequest | CountRequest
_MAX_STEPS = 1_000  # unless more positions are hidden
_LARGEST_TOP_K = 2**31 - 1  # beyond every vocabulary, and what a tensor can hold


class OrderFields(TypedDict):
    """The fields of `SamplingParams` that say how the next position is chosen."""

    order: OrderPolicy
    explicit_order: tuple[int, ...] | None
    order_temperature: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample to make: where it belongs, what it starts from."""

    prompt_index: int
    sample_index: int
    template: Template
    canvas: Canvas


@dataclass(frozen=True, slots=True)
class Plan:
    """All samples of a request, prompt by prompt. `num_prompt_tokens` counts each prompt's known positions once."""

    samples: tuple[Sample, ...]
    num_prompt_tokens: int

    @property
    def canvases(self) -> tuple[Canvas, ...]:
        return tuple(sample.canvas for sample in self.samples)


def num_canvases(request: AnyRequest, limits: Limits) -> int:
    """How many canvases or chains a request asks for, before anything of it is looked at; of one to predict that names
    no columns, the least."""
    match request:
        case OrderRequest():
            return 1
        case GenerateRequest() | CountRequest():
            each = request.num_samples
        case PredictRequest():
            each = request.num_samples + len(request.columns or [""])
        case ScoreRequest():
            each = num_orders_of(request, limits)
    return each * len(request.prompt) if isinstance(request.prompt, list) else each


def num_orders_of(request: ScoreRequest, limits: Limits) -> int:
    """As asked for, or the default."""
    if request.num_orders is not None:
        return request.num_orders
    return min(NUM_ORDERS, limits.max_num_orders) if request.is_order_drawn else 1


def plan_generation(request: GenerateRequest, model: ServedModel, limits: Limits) -> Plan:
    """Raises ServiceError (422) naming the field, down to the column, that cannot be served."""
    prompts = prompts_of(request, limits)
    _check_size(request, len(prompts), limits)
    _check_backtrack(request, model)
    rules = _rules(request, model)
    seed = draw_seed() if request.seed is None else request.seed
    samples: list[Sample] = []
    num_prompt_tokens = 0
    for prompt_index, (place, prompt) in enumerate(prompts):
        template = encode_prompt(model, prompt, request.length, place)
        params = _params(request, template, place, condition=_condition(request, model, template, rules))
        num_prompt_tokens += template.num_given
        for sample_index in range(request.num_samples):
            own_seed = derive_seed(seed, prompt_index, sample_index)
            canvas = Canvas.start(template.tokens, template.hidden, seed=own_seed, params=params)
            samples.append(Sample(prompt_index, sample_index, template, canvas))
    return Plan(tuple(samples), num_prompt_tokens)


def plan_order(request: OrderRequest, model: ServedModel) -> Canvas:
    """Raises ServiceError (422) as `plan_generation` does."""
    template = encode_prompt(model, request.prompt, request.length, "prompt")
    return Canvas.start(template.tokens, template.hidden, seed=0, params=SamplingParams())


def deadline(timeout_seconds: float | None, limits: Limits) -> float:
    """Seconds that a request may take. Raises ServiceError (422): a longer one is refused, not shortened."""
    if timeout_seconds is None:
        return limits.default_timeout_seconds
    if timeout_seconds > limits.max_timeout_seconds:
        raise ServiceError(
            "invalid_request",
            f"timeout_seconds must be at most {limits.max_timeout_seconds:g} here",
            param="timeout_seconds",
        )
    return timeout_seconds


def _check_size(request: GenerateRequest, num_prompts: int, limits: Limits) -> None:
    if request.num_samples > limits.max_num_samples:
        message = f"num_samples must be at most {limits.max_num_samples} here"
        raise ServiceError("invalid_request", message, param="num_samples")
    num_canvases = num_prompts * request.num_samples
    if num_canvases > limits.queue_capacity:
        param = "num_samples" if request.num_samples > 1 else "prompt"
        message = f"{num_prompts} prompts x {request.num_samples} samples are {num_canvases} canvases"
        raise ServiceError("invalid_request", f"{message}; this server holds {limits.queue_capacity}", param=param)


def prompts_of(request: GenerateRequest | ScoreRequest | PredictRequest, limits: Limits) -> list[tuple[str, Any]]:
    """Each prompt with its place in the request, `prompt` or `prompt.2`. Raises ServiceError (422)."""
    if not isinstance(request.prompt, list):
        return [("prompt", request.prompt)]
    num_prompts = len(request.prompt)
    if num_prompts == 0:
        raise ServiceError("invalid_request", "prompt is an empty list", param="prompt")
    if num_prompts > limits.max_prompts:
        message = f"{num_prompts} prompts; one request takes at most {limits.max_prompts} here"
        raise ServiceError("invalid_request", message, param="prompt")
    return [(f"prompt.{i}", prompt) for i, prompt in enumerate(request.prompt)]


def encode_prompt(model: ServedModel, prompt: Any, length: int | None, place: str, *, append: bool = True) -> Template:
    """Raises ServiceError (422) with the path to what is to blame."""
    try:
        return model.tokenizer.encode(prompt, length=length, append=append)
    except PromptError as error:
        # A table may have a column called "length"; it takes no length of its own.
        if error.param == "length" and length is not None:
            param = "length"
        else:
            param = place if error.param is None else f"{place}.{error.param}"
        raise ServiceError("invalid_request", str(error), param=param) from None


def order_of(request: GenerateRequest | ScoreRequest, positions: list[int], what: str) -> OrderFields:
    """The order's part of `SamplingParams`. A list must hold these positions once each. Raises ServiceError (422)."""
    temperature = 1.0 if request.order_temperature is None else request.order_temperature
    if isinstance(request.order, str):
        return {"order": request.order, "explicit_order": None, "order_temperature": temperature}
    if sorted(request.order) != positions:
        message = f"order must list every {what} {_listed(positions)}"
        raise ServiceError("invalid_request", message, param="order")
    return {"order": "explicit", "explicit_order": tuple(request.order), "order_temperature": temperature}


def _rules(request: GenerateRequest, model: ServedModel) -> list[Named]:
    """The request's, or the model's. Raises ServiceError (422) for what does not go with them or without them."""
    rules = read_rules(request.rules, model)
    if request.attempts is not None and request.where is None and not rules:
        raise ServiceError("invalid_request", "attempts is only valid with where or rules", param="attempts")
    if rules and request.steps is not None:
        own = "" if request.rules is not None else " (the model has rules; rules: [] leaves them out)"
        raise ServiceError("invalid_request", f"rules and steps exclude each other{own}", param="steps")
    return rules


def _condition(
    request: GenerateRequest, model: ServedModel, template: Template, named: Sequence[Named]
) -> Condition | None:
    """What `where` and the rules ask of the template's hidden positions, if anything. Raises ServiceError (422)."""
    rules = bound_rules(named, model, template)
    attempts = request.attempts or ATTEMPTS
    if request.where is None:
        return Condition({}, attempts, rules) if rules else None
    if model.tokenizer.end_id is not None:  # an end decides what others of its step would have been
        for name in ("tokens_per_step", "threshold"):
            if getattr(request, name) is not None:
                message = f"where and {name} exclude each other for a {model.manifest.domain}"
                raise ServiceError("invalid_request", message, param=name)
    parts = parts_of(model, request.where, template)
    return Condition(parts, attempts, rules) if parts or rules else None


def parts_of(model: ServedModel, where: object, template: Template) -> dict[int, tuple[Part, ...]]:
    """What `where` allows at each of the template's hidden positions that it is about. Raises ServiceError (422)."""
    try:
        shares = condition_of(model.tokenizer, where, template)
    except PromptError as error:
        param = "where" if error.param is None else f"where.{error.param}"
        raise ServiceError("invalid_request", str(error), param=param) from None
    return {i: tuple(Part(*own) for own in of) for i, of in shares.items()}


def _params(request: GenerateRequest, template: Template, place: str, *, condition: Condition | None) -> SamplingParams:
    _check_steps(request.steps, template.hidden.count(True))
    hidden = [position for position, is_hidden in enumerate(template.hidden) if is_hidden]
    return SamplingParams(
        **order_of(request, hidden, f"hidden position once: for {place}"),
        tokens_per_step=request.tokens_per_step,
        steps=request.steps,
        threshold=request.threshold,
        temperature=request.temperature,
        top_k=None if request.top_k is None else min(request.top_k, _LARGEST_TOP_K),
        top_p=request.top_p,
        backtrack=request.backtrack,
        condition=condition,
        top_logprobs=request.top_logprobs,
    )


def _check_backtrack(request: GenerateRequest, model: ServedModel) -> None:
    if request.backtrack is None:
        return
    if contradiction_of(model.tokenizer) is None:
        message = f"backtrack is only valid with a grid: nothing tells a contradiction in a {model.manifest.domain}"
        raise ServiceError("invalid_request", message, param="backtrack")
    if getattr(model.manifest.architecture, "query_layers", 0):
        message = "backtrack is not valid with a model that is autoregressive along its order"
        raise ServiceError("invalid_request", message, param="backtrack")


def _check_steps(steps: int | None, num_hidden: int) -> None:
    """The sampler passes over idle time steps within one forward, during which nobody else is served."""
    most = max(_MAX_STEPS, num_hidden)
    if steps is not None and steps > most:
        raise ServiceError("invalid_request", f"steps must be at most {most} here", param="steps")


def _listed(positions: list[int]) -> str:
    head = ", ".join(map(str, positions[:20]))
    return (head or "none") + (", ..." if len(positions) > 20 else "")
