"""Requests and replies of the API as pydantic models: the contract, and the source of /openapi.json.

Requests are strict (no coercion) and closed (an unknown field is refused). What depends on the served model, a
column's name for example, is checked in `engine.request.planning`.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from unveil.model.decoding.canvas import MAX_SEED, OrderPolicy, Outcome
from unveil.model.errors import UnveilError

OrderName = Literal["learned", "uniform", "left_to_right", "right_to_left", "confidence", "margin", "entropy"]
# The first wrong position ends it: an error for each of very many takes seconds, and memory.
Order = OrderName | Annotated[list[Annotated[int, Field(ge=0)]], Field(fail_fast=True)]
assert {*get_args(OrderName), "explicit"} == set(get_args(OrderPolicy))

NUM_ORDERS = 16  # drawn where a request names no number
MAX_BACKTRACK = 10_000
MAX_TOP_LOGPROBS = 20
ATTEMPTS, MAX_ATTEMPTS = 1_000, 100_000
MAX_RULES = 64
_LOWEST_TEMPERATURE = 1e-6  # below it, dividing by it leaves the range of floating point
_STRIDES = ("tokens_per_step", "steps", "threshold")


class ModelRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    model: str | None = Field(default=None, description="A served model's id; null = the first one.")
    prompt: Any = Field(
        description="A table: an object of columns; text: a string with [MASK] or [MASK:12]. What is known stays."
    )
    length: int | None = Field(
        default=None, ge=1, description="New tokens after a text without holes; null = the model's default_length."
    )
    timeout_seconds: float | None = Field(default=None, gt=0, description="Deadline; null = the server's default.")


class GenerateRequest(ModelRequest):
    """One prompt, or a list of prompts that is admitted whole or not at all."""

    num_samples: int = Field(default=1, ge=1, description="Samples of each prompt.")
    order: Order = Field(default="learned", description="A policy, or all hidden positions in the order wanted.")
    order_temperature: float | None = Field(
        default=None, ge=0, description="With `learned` only; null = 1, 0 = always the likeliest next position."
    )
    tokens_per_step: int | None = Field(default=None, ge=1, description="Positions revealed together at each step.")
    steps: int | None = Field(
        default=None,
        ge=1,
        description="Time steps: at most 1000, or as many as positions are hidden. The order's distribution is the "
        "schedule's; the time grid adapts to each canvas, so that every step is expected to reveal an equal share.",
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        description="Reveals all positions as sure as this: confidence or margin from 0 to 1, at most this entropy.",
    )
    temperature: float = Field(default=1.0, ge=0, description="0 = always the likeliest token.")
    top_k: int | None = Field(default=None, ge=1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    backtrack: int | None = Field(
        default=None,
        ge=0,
        le=MAX_BACKTRACK,
        description="Takes reveals back where they lead to a contradiction, and tries the likeliest alternative: the "
        "most forwards that may be wasted so, beyond those of a sample without it; null = nothing is taken back. "
        "Grids only, and not with `steps`.",
    )
    where: dict[str, Any] | None = Field(
        default=None,
        description="What samples must be like. Of a table an object of columns: a value, a list of values, "
        '{"min": a, "max": b}, {"after": d, "before": e} or {"not": ...}; of sequences {"allow": [...]} or '
        '{"ban": [...]} tokens. These positions come first in the order. Not with `steps` and `backtrack`.',
    )
    rules: list[str] | None = Field(
        default=None,
        max_length=MAX_RULES,
        description="What the columns of a row must be like together: `signup <= last_login`, "
        "`price * 2 + tax == total`, `pair(city, country)` (what stood together in training rows). They are kept in "
        "every row, whatever the model finds likely. null = the rules that the model was trained with; [] = none. "
        "Tables only, not with `steps`.",
    )
    attempts: int | None = Field(
        default=None,
        ge=1,
        le=MAX_ATTEMPTS,
        description="With `where` or `rules`: how often a sample may be tried; null = 1000. Then one of the tried is "
        "taken by its weight, and its law is approximate.",
    )
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="null = drawn by the server; always echoed.")
    logprobs: bool = Field(default=True, description="false leaves all log-probabilities out.")
    top_logprobs: int = Field(
        default=0,
        ge=0,
        le=MAX_TOP_LOGPROBS,
        description="So many of the likeliest tokens are told with each reveal: the unmodified model's, before "
        "temperature, top_k, top_p and `where`.",
    )
    stream: bool = Field(default=False, description="Server-sent events: every reveal in the step it happens.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_temperature("temperature", self.temperature)
        _check_temperature("order_temperature", self.order_temperature)
        strides = [name for name in _STRIDES if getattr(self, name) is not None]
        if len(strides) > 1:
            raise UnveilError(f"{strides[0]} and {strides[1]} exclude each other", param=strides[1])
        if self.backtrack is not None and self.steps is not None:
            raise UnveilError("backtrack and steps exclude each other: a time grid does not go back", param="backtrack")
        for name in ("steps", "backtrack") if self.where is not None else ():
            if getattr(self, name) is not None:
                raise UnveilError(f"where and {name} exclude each other", param=name)
        if self.top_logprobs and not self.logprobs:
            raise UnveilError("top_logprobs and logprobs false exclude each other", param="top_logprobs")
        _check_order_temperature(self.order, self.order_temperature)
        if self.threshold is not None and self.threshold > 1 and self.order != "entropy":
            raise UnveilError("threshold must be between 0 and 1, except with order entropy", param="threshold")
        return self


class OrderRequest(ModelRequest):
    """One prompt, whose hidden positions are ranked."""


class ScoreRequest(ModelRequest):
    """One prompt, or a list of prompts that is admitted whole or not at all. All are scored with the same seed."""

    prompt: Any = Field(
        description="As in /generate. What is known is scored; what is hidden stays masked, and so is integrated out. "
        "Exact for a decoder that reveals the scored part first: rows of /generate, which reveals hidden positions in "
        "between, may differ in their frequencies."
    )
    given: Any = Field(
        default=None,
        description="As prompt, and for a list one for all or as many: what of it is known from the start, and free.",
    )
    length: int | None = Field(
        default=None, ge=1, description="Hidden tokens after a text without holes; null = none, the text as it stands."
    )
    order: Order = Field(default="learned", description="A policy, or all scored positions in the order wanted.")
    order_temperature: float | None = Field(
        default=None, ge=0, description="With `learned` only; null = 1, 0 = always the likeliest next position."
    )
    num_orders: int | None = Field(
        default=None, ge=1, description=f"Orders to draw; null = {NUM_ORDERS}. An order that is not drawn is one order."
    )
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="Of drawn orders; null = by the server.")

    @property
    def is_order_drawn(self) -> bool:
        return self.order == "uniform" or (self.order == "learned" and self.order_temperature != 0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_temperature("order_temperature", self.order_temperature)
        _check_order_temperature(self.order, self.order_temperature)
        if self.num_orders not in (None, 1) and not self.is_order_drawn:
            order = self.order if isinstance(self.order, str) else "given as a list"
            at = " at order_temperature 0" if order == "learned" else ""
            raise UnveilError(f"num_orders must be null or 1 here: order {order}{at} is one order", param="num_orders")
        return self


def _check_temperature(name: str, temperature: float | None) -> None:
    if 0 < (temperature or 0) < _LOWEST_TEMPERATURE:
        raise UnveilError(f"{name} must be 0, or at least {_LOWEST_TEMPERATURE}", param=name)


def _check_order_temperature(order: Order, order_temperature: float | None) -> None:
    if order_temperature is not None and order != "learned":
        raise UnveilError("order_temperature is only valid with order learned", param="order_temperature")


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TopToken(Reply):
    """What a position could hold: a level, the range of a bin, a token of a text."""

    token_id: int
    token: str
    logprob: float


class RevealReply(Reply):
    """One position becoming known. `value` is what `output` will show, null where a table's value is missing; a
    deterministic order has no `order_logprob`. `top_logprobs`, where asked for, has the likeliest first."""

    step: int
    position: int
    name: str | None
    token_id: int
    token: str
    value: str | int | float | None
    logprob: float | None = None
    order_logprob: float | None = None
    top_logprobs: list[TopToken] | None = None


class SampleReply(Reply):
    """A finished sample. `seed` given alone reproduces it; `logprob` is the sum over its reveals.

    With `backtrack`: `reveals` are those that stand, `num_forwards` counts all that were computed, `num_unrevealed` the
    reveals taken back. A `finish_reason` other than complete says that the output holds a contradiction: more forwards
    would be needed (budget), or no alternative is left (contradiction).
    """

    prompt_index: int
    sample_index: int
    seed: int
    output: Any
    text: str
    reveals: list[RevealReply]
    logprob: float | None = None
    finish_reason: Outcome
    num_forwards: int | None = None
    num_unrevealed: int | None = None


class ConditionReply(Reply):
    """Of one prompt with `where` or `rules`. `probability`: the model's, that a sample meets them, a mean over all
    `attempts`.

    `standard_error` is null for a single attempt at several positions. `exact_samples` have the model's law under the
    condition exactly, the others were taken by weight. `effective_samples`: how many equal weights the attempts' are
    worth.
    """

    probability: float
    standard_error: float | None
    attempts: int
    samples: int
    exact_samples: int
    effective_samples: float


class Usage(Reply):
    """`prompt_tokens` counts each prompt's known positions once; the others are sums over samples."""

    prompt_tokens: int
    generated_tokens: int
    denoising_steps: int


class Timings(Reply):
    """Seconds since the request arrived: until its first step began, its first reveal, its end."""

    queue_seconds: float
    first_reveal_seconds: float | None
    total_seconds: float


class GenerateReply(Reply):
    id: str
    model: str
    created: int
    samples: list[SampleReply]
    condition: list[ConditionReply | None] | None = Field(
        default=None,
        description="With `where` or `rules`: of each prompt, null of one that leaves nothing of them open.",
    )
    usage: Usage
    timings: Timings


class NextPosition(Reply):
    position: int
    name: str | None
    probability: float


class OrderReply(Reply):
    """Hidden positions by the probability to be revealed next, likeliest first."""

    id: str
    model: str
    created: int
    positions: list[NextPosition]


class TermReply(Reply):
    """What one known position costs: `-log p` in nats, a mean over the orders; a number's `p` is that of its bin.

    `mean_step` is the step in which it was revealed, counted from 0, on average.
    """

    position: int
    name: str | None
    token_id: int
    token: str
    value: str | int | float
    nats: float
    standard_error: float | None
    mean_step: float


class ScoreOfPrompt(Reply):
    """One prompt's score. `nelbo` is the sum of its terms, which are in position order.

    `standard_error` is null after a single drawn order, and 0 where the order is not drawn; only then there is a
    `log_likelihood`, which is exact.
    """

    prompt_index: int
    nelbo: float
    standard_error: float | None
    log_likelihood: float | None
    terms: list[TermReply]


class ScoreUsage(Reply):
    """`positions` counts each prompt's scored positions once, `forwards` the canvases that went through the network."""

    positions: int
    forwards: int


class ScoreTimings(Reply):
    """Seconds since the request arrived: until its first step began, and until its end."""

    queue_seconds: float
    total_seconds: float


class ScoreReply(Reply):
    """`seed` is null where nothing was drawn and none was given."""

    id: str
    model: str
    created: int
    seed: int | None
    num_orders: int
    scores: list[ScoreOfPrompt]
    usage: ScoreUsage
    timings: ScoreTimings


class ModelReply(BaseModel):
    """One served model; tables add `columns`, text its `vocabulary_size`."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["model"]
    domain: str
    length: int
    default_length: int
    order: str
    weights: str
    deterministic: bool
    example_prompt: Any
    metrics: dict[str, Any]


class ModelsReply(Reply):
    object: Literal["list"]
    data: list[ModelReply]


class HealthReply(Reply):
    status: Literal["live", "ready"]
