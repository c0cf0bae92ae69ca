"""A valid request to score and a served model -> chains, each with its own seed."""

from dataclasses import dataclass
from typing import Any

from unveil.engine.catalog import ServedModel
from unveil.engine.request.errors import ServiceError
from unveil.engine.request.limits import Limits
from unveil.engine.request.parsing import json_type
from unveil.engine.request.planning import encode_prompt, num_orders_of, order_of, prompts_of
from unveil.engine.request.schemas import ScoreRequest
from unveil.model.decoding.canvas import SamplingParams
from unveil.model.decoding.scoring_chain import Chain
from unveil.model.decoding.seeds import derive_seed, draw_seed
from unveil.model.tokenizers.base import Template

_SCORED = ("known position", "known position that is not given")


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """All chains of a request: `num_orders` for each template, template by template. `num_scored` positions in all."""

    templates: tuple[Template, ...]
    chains: tuple[Chain, ...]
    num_orders: int
    num_scored: int
    is_drawn: bool
    seed: int | None


def plan_score(request: ScoreRequest, model: ServedModel, limits: Limits) -> ScorePlan:
    """Raises ServiceError (422) naming the field, down to the column, that cannot be served.

    Order k of every prompt has the same seed: a prompt's score does not depend on its place in a list, two prompts with
    the same known positions are compared along paired orders, and the first orders of many are those of few.
    """
    prompts = prompts_of(request, limits)
    num_orders = num_orders_of(request, limits)
    _check_size(len(prompts), num_orders, limits)
    seed = draw_seed() if request.seed is None and request.is_order_drawn else request.seed
    templates: list[Template] = []
    chains: list[Chain] = []
    num_scored = 0
    for (place, prompt), part in zip(prompts, _parts_given(request, len(prompts)), strict=True):
        template = encode_prompt(model, prompt, request.length, place, append=False)
        if all(template.hidden):
            raise ServiceError("invalid_request", "nothing to score: no position is known", param=place)
        given = _given(model, template, *part)
        scored = [i for i, h in enumerate(template.hidden) if not h and not given[i]]
        if not scored:
            raise ServiceError("invalid_request", f"nothing to score: all that {place} knows is given", param=part[0])
        params = SamplingParams(**order_of(request, scored, f"{_SCORED[any(given)]} once: for {place}"))
        num_scored += len(scored)
        templates.append(template)
        for index in range(num_orders):
            own_seed = derive_seed(seed or 0, 0, index)
            chains.append(Chain.start(template.tokens, template.hidden, seed=own_seed, params=params, given=given))
    return ScorePlan(tuple(templates), tuple(chains), num_orders, num_scored, request.is_order_drawn, seed)


def _parts_given(request: ScoreRequest, num_prompts: int) -> list[tuple[str, Any]]:
    """What is given to each prompt, with its place in the request. Raises ServiceError (422)."""
    if not isinstance(request.given, list):
        return [("given", request.given)] * num_prompts
    if not isinstance(request.prompt, list) or len(request.given) != num_prompts:
        message = f"given lists {len(request.given)} for {num_prompts} prompt{'s' * (num_prompts > 1)}"
        raise ServiceError("invalid_request", f"{message}: it must be one for all, or one for each", param="given")
    return [(f"given.{i}", part) for i, part in enumerate(request.given)]


def _given(model: ServedModel, template: Template, place: str, part: Any) -> tuple[bool, ...]:
    """Which positions of the template are given. Raises ServiceError (422) where it says otherwise than the prompt."""
    flags = [False] * len(template.tokens)
    if part is None:
        return tuple(flags)
    known = encode_prompt(model, part, None, place, append=False)
    for i in (i for i, h in enumerate(known.hidden) if not h):
        name = model.tokenizer.name(i)
        what, param = (f"position {i}", place) if name is None else (name, f"{place}.{name}")
        if i >= len(flags) or template.hidden[i]:
            raise ServiceError("invalid_request", f"{what} is given, and the prompt does not know it", param=param)
        if template.tokens[i] != known.tokens[i]:
            mine, other = (json_type(model.tokenizer.token(i, t.tokens[i])) for t in (known, template))
            raise ServiceError("invalid_request", f"{what} is given as {mine}, and {other} in the prompt", param=param)
        flags[i] = True
    return tuple(flags)


def _check_size(num_prompts: int, num_orders: int, limits: Limits) -> None:
    if num_orders > limits.max_num_orders:
        message = f"num_orders must be at most {limits.max_num_orders} here"
        raise ServiceError("invalid_request", message, param="num_orders")
    num_chains = num_prompts * num_orders
    if num_chains > limits.queue_capacity:
        param = "num_orders" if num_orders > 1 else "prompt"
        message = f"{num_prompts} prompts x {num_orders} orders are {num_chains} canvases"
        raise ServiceError("invalid_request", f"{message}; this server holds {limits.queue_capacity}", param=param)
