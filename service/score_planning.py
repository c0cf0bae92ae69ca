"""A valid request to score and a served model -> chains, each with its own seed. Knows no queue and no engine."""

from dataclasses import dataclass

from model.canvas import SamplingParams
from model.chain import Chain
from model.seeds import derive_seed, draw_seed
from model.tokenizers.base import Template
from service.catalog import Model
from service.errors import ServiceError
from service.planning import encode_prompt, order_of, prompts_of
from service.schemas import NUM_ORDERS, ScoreRequest
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """All chains of a request: `num_orders` for each template, template by template."""

    templates: tuple[Template, ...]
    chains: tuple[Chain, ...]
    num_orders: int
    is_drawn: bool
    seed: int | None


def plan_score(request: ScoreRequest, model: Model, settings: Settings) -> ScorePlan:
    """Raises ServiceError (422) naming the field, down to the column, that cannot be served.

    Order k of every prompt has the same seed: a prompt's score does not depend on its place in a list, two prompts with
    the same known positions are compared along paired orders, and the first orders of many are those of few.
    """
    prompts = prompts_of(request, settings)
    num_orders = _num_orders(request, len(prompts), settings)
    seed = draw_seed() if request.seed is None and request.is_order_drawn else request.seed
    templates = []
    chains = []
    for place, prompt in prompts:
        template = encode_prompt(model, prompt, request.length, place, append=False)
        known = [position for position, is_hidden in enumerate(template.hidden) if not is_hidden]
        if not known:
            raise ServiceError("invalid_request", "nothing to score: no position is known", param=place)
        params = SamplingParams(**order_of(request, known, f"known position once: for {place}"))
        templates.append(template)
        for index in range(num_orders):
            own_seed = derive_seed(seed or 0, 0, index)
            chains.append(Chain.start(template.tokens, template.hidden, seed=own_seed, params=params))
    return ScorePlan(tuple(templates), tuple(chains), num_orders, request.is_order_drawn, seed)


def _num_orders(request: ScoreRequest, num_prompts: int, settings: Settings) -> int:
    default = min(NUM_ORDERS, settings.max_num_orders) if request.is_order_drawn else 1
    num_orders = default if request.num_orders is None else request.num_orders
    if num_orders > settings.max_num_orders:
        message = f"num_orders is at most {settings.max_num_orders} here"
        raise ServiceError("invalid_request", message, param="num_orders")
    num_chains = num_prompts * num_orders
    if num_chains > settings.queue_capacity:
        param = "num_orders" if num_orders > 1 else "prompt"
        message = f"{num_prompts} prompts x {num_orders} orders are {num_chains} canvases"
        raise ServiceError("invalid_request", f"{message}; this server holds {settings.queue_capacity}", param=param)
    return num_orders
