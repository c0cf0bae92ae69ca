"""A valid request -> its composer: what it asks of the engine, and its reply. The same for all that can be asked."""

from typing import Any, ClassVar, Protocol

from service.catalog import ServedModel
from service.messages import RequestEvent, Work
from service.planning import plan_generation, plan_order
from service.replies import GenerateComposer, OrderComposer
from service.schemas import GenerateRequest, OrderRequest, ScoreRequest
from service.score_planning import plan_score
from service.score_replies import ScoreComposer
from service.settings import Settings


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


def compose(request: GenerateRequest | OrderRequest | ScoreRequest, model: ServedModel, settings: Settings) -> Composer:
    """Raises ServiceError (422) naming the field, down to the column, that cannot be served."""
    match request:
        case GenerateRequest():
            return GenerateComposer(plan_generation(request, model, settings), model, has_logprobs=request.logprobs)
        case ScoreRequest():
            return ScoreComposer(plan_score(request, model, settings), model)
        case _:
            return OrderComposer(plan_order(request, model), model)
