"""A valid request -> its composer: what it asks of the engine, and its reply. The same for all that can be asked."""

from typing import Any, ClassVar, Protocol

from unveil.engine.catalog import ServedModel
from unveil.engine.messages import RequestEvent, Work
from unveil.engine.request.limits import Limits
from unveil.engine.request.planning import AnyRequest, plan_generation, plan_order
from unveil.engine.request.replies import GenerateComposer, OrderComposer
from unveil.engine.request.schemas import GenerateRequest, ScoreRequest
from unveil.engine.request.score_planning import plan_score
from unveil.engine.request.score_replies import ScoreComposer
from unveil.engine.request.table_answers import CountComposer, PredictComposer
from unveil.engine.request.table_schemas import CountRequest, PredictRequest


class Composer(Protocol):
    """One planned request. `id_prefix` begins its reply's id; `timings` are those that its reply has."""

    id_prefix: ClassVar[str]
    timings: ClassVar[tuple[str, ...]]

    def command(self, request_id: str) -> Work:
        """What the engine is to do."""
        ...

    def add(self, event: RequestEvent) -> None:
        """Takes in one of the events that the engine answers with."""
        ...

    def reply(self) -> dict[str, Any]:
        """All of the reply but its head and its timings. To be asked once, after the last event."""
        ...


def compose(request: AnyRequest, model: ServedModel, limits: Limits) -> Composer:
    """Raises ServiceError (422) naming the field, down to the column, that cannot be served."""
    match request:
        case GenerateRequest():
            return GenerateComposer(plan_generation(request, model, limits), model, has_logprobs=request.logprobs)
        case ScoreRequest():
            return ScoreComposer(plan_score(request, model, limits), model)
        case PredictRequest():
            return PredictComposer(request, model, limits)
        case CountRequest():
            return CountComposer(request, model, limits)
        case _:
            return OrderComposer(plan_order(request, model), model)
