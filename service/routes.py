"""The endpoints: read a request, have it planned, wait for its events, answer. Nothing is generated or scored here."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response
from structlog.contextvars import bind_contextvars

from service.bodies import parse, read_body
from service.catalog import Catalog, Model
from service.dispatcher import Dispatcher
from service.errors import ServiceError
from service.flight import PendingRequest
from service.messages import (
    Finished,
    Generate,
    Rank,
    Ranked,
    RequestEvent,
    Revealed,
    SampleDone,
    Score,
    Scored,
)
from service.metrics import Metrics
from service.openapi import EVENT_STREAM, responses, takes
from service.planning import Plan, deadline, plan_generation, plan_order
from service.replies import Composer
from service.schemas import (
    GenerateReply,
    GenerateRequest,
    HealthReply,
    ModelsReply,
    OrderReply,
    OrderRequest,
    ScoreReply,
    ScoreRequest,
)
from service.score_planning import ScorePlan, plan_score
from service.score_replies import ScoreComposer
from service.settings import Settings
from service.streaming import EventStream, as_json, stream_chunks, watch_client

INLINE_BYTES = 16_384  # larger bodies are read in a thread; below it, the thread's hop costs more than the reading
INLINE_TOKENS = 4_096  # the same for writing replies

Result = TypeVar("Result")
router = APIRouter()


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoints work with; `app.state.service`."""

    settings: Settings
    catalog: Catalog
    dispatcher: Dispatcher
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class _Work:
    """A generation request, read and planned."""

    request: GenerateRequest
    model: Model
    plan: Plan
    timeout_seconds: float


@router.post(
    "/generate",
    response_model=GenerateReply,
    responses={200: EVENT_STREAM, **responses(400, 404, 413, 422, 429, 500, 503, 504)},
    openapi_extra=takes(GenerateRequest),
)
async def generate(request: Request) -> Response:
    """Completes a template: what is known stays, what is hidden is generated, in the order asked for."""
    service, arrived_at = _service(request), asyncio.get_running_loop().time()

    def prepare(body: bytes) -> _Work:
        parsed = parse(body, GenerateRequest)
        model = service.catalog.get(parsed.model)
        plan = plan_generation(parsed, model, service.settings)
        return _Work(parsed, model, plan, deadline(parsed.timeout_seconds, service.settings))

    work = await _read(request, service, prepare)
    head = _head("gen", work.model)
    bind_contextvars(id=head["id"])
    pending = service.dispatcher.submit(
        Generate(head["id"], work.model.name, work.model.weights_version, work.plan.canvases),
        arrived_at=arrived_at,
        timeout_seconds=work.timeout_seconds,
        buffer_events=service.settings.stream_buffer_events if work.request.stream else None,
    )
    composer = Composer(work.plan, work.model, has_logprobs=work.request.logprobs)
    if work.request.stream:
        return await _streamed(request, service, pending, composer, head)
    return await _whole(request, service, pending, composer, head)


@router.post(
    "/order",
    response_model=OrderReply,
    responses=responses(400, 404, 413, 422, 429, 500, 503, 504),
    openapi_extra=takes(OrderRequest),
)
async def order(request: Request) -> Response:
    """The model's own probability of each hidden position to be revealed next."""
    service, arrived_at = _service(request), asyncio.get_running_loop().time()

    def prepare(body: bytes) -> tuple[Model, Rank, float]:
        parsed = parse(body, OrderRequest)
        model = service.catalog.get(parsed.model)
        rank = Rank(f"order-{uuid.uuid4().hex}", model.name, model.weights_version, plan_order(parsed, model))
        return model, rank, deadline(parsed.timeout_seconds, service.settings)

    model, rank, timeout_seconds = await _read(request, service, prepare)
    bind_contextvars(id=rank.request_id)
    pending = service.dispatcher.submit(rank, arrived_at=arrived_at, timeout_seconds=timeout_seconds)
    ranked = (await _collect(request, service, pending))[-1]
    assert isinstance(ranked, Ranked)
    positions = [
        {"position": position, "name": model.tokenizer.name(position), "probability": probability}
        for position, probability in sorted(ranked.probabilities, key=lambda pair: (-pair[1], pair[0]))
    ]
    return JSONResponse({**_head("order", model), "id": rank.request_id, "positions": positions})


@router.post(
    "/score",
    response_model=ScoreReply,
    responses=responses(400, 404, 413, 422, 429, 500, 503, 504),
    openapi_extra=takes(ScoreRequest),
)
async def score(request: Request) -> Response:
    """What the known positions cost in nats, along one order exactly, or over drawn orders with a standard error."""
    service, arrived_at = _service(request), asyncio.get_running_loop().time()

    def prepare(body: bytes) -> tuple[Model, ScorePlan, float]:
        parsed = parse(body, ScoreRequest)
        model = service.catalog.get(parsed.model)
        return model, plan_score(parsed, model, service.settings), deadline(parsed.timeout_seconds, service.settings)

    model, plan, timeout_seconds = await _read(request, service, prepare)
    head = _head("score", model)
    bind_contextvars(id=head["id"])
    command = Score(head["id"], model.name, model.weights_version, plan.chains)
    pending = service.dispatcher.submit(command, arrived_at=arrived_at, timeout_seconds=timeout_seconds)
    events = await _collect(request, service, pending)

    def compose() -> Response:
        composer = ScoreComposer(plan, model)
        for event in events:
            if isinstance(event, Scored):
                composer.add(event)
        timings = {name: seconds for name, seconds in pending.timings().items() if name != "first_reveal_seconds"}
        return JSONResponse({**head, **composer.reply(), "timings": timings})

    return compose() if len(events) <= INLINE_TOKENS else await asyncio.to_thread(compose)


@router.head("/v1/models", include_in_schema=False)
@router.get("/v1/models", response_model=ModelsReply, responses=responses(503))
async def models(request: Request) -> Response:
    """What is served, the default first; `deterministic` is what the warm-up measured."""
    service = _service(request)
    loaded = service.dispatcher.loaded
    if not all(model.name in loaded for model in service.catalog):
        raise ServiceError("not_ready", "the models are still being loaded")
    data = [model.describe(is_deterministic=loaded[model.name].is_deterministic) for model in service.catalog]
    return JSONResponse({"object": "list", "data": data})


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", response_model=HealthReply, responses=responses(503))
async def live(request: Request) -> Response:
    """Whether the process can go on: true while loading and while draining. False is a reason to restart it."""
    if not _service(request).dispatcher.is_live:
        raise ServiceError("not_ready", "the engine is not running")
    return JSONResponse({"status": "live"})


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", response_model=HealthReply, responses=responses(503))
@router.head("/health", include_in_schema=False)
@router.get("/health", response_model=HealthReply, responses=responses(503))
async def ready(request: Request) -> Response:
    """Whether requests are taken: models loaded and warm, worker alive, not draining."""
    _service(request).dispatcher.check_ready()
    return JSONResponse({"status": "ready"})


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    return Response(_service(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _read(request: Request, service: Service, prepare: Callable[[bytes], Result]) -> Result:
    """The request's body, prepared; in a thread where that may take long. Raises ServiceError."""
    for name in request.query_params:
        raise ServiceError("invalid_request", "no parameters in the address: all fields go into the body", param=name)
    settings = service.settings
    body = await read_body(request, settings.max_body_bytes, timeout_seconds=settings.default_timeout_seconds)
    service.dispatcher.check_ready()
    if len(body) <= INLINE_BYTES:
        return prepare(body)
    return await asyncio.to_thread(prepare, body)


async def _whole(
    request: Request, service: Service, pending: PendingRequest, composer: Composer, head: dict[str, Any]
) -> Response:
    events = await _collect(request, service, pending)

    def compose() -> Response:
        samples: dict[int, bytes] = {}  # as JSON, one by one: a thread that writes much of it at once stops all others
        for event in events:
            if isinstance(event, Revealed):
                composer.revealed(event)
            elif isinstance(event, SampleDone):
                samples[event.index] = as_json(composer.sample(event))
        done = as_json({"usage": composer.usage(), "timings": pending.timings()})
        written = b",".join(samples[index] for index in sorted(samples))
        body = as_json(head)[:-1] + b',"samples":[' + written + b"]," + done[1:]
        return Response(body, media_type="application/json")

    num_tokens = sum(len(event.reveals) for event in events if isinstance(event, Revealed))
    return compose() if num_tokens <= INLINE_TOKENS else await asyncio.to_thread(compose)


async def _streamed(
    request: Request, service: Service, pending: PendingRequest, composer: Composer, head: dict[str, Any]
) -> Response:
    """Waits for the first step, so that what fails before it is a plain HTTP error."""
    watch = watch_client(request, lambda: service.dispatcher.abort(pending, _gone()))
    try:
        first = await pending.take()
    except BaseException:
        watch.cancel()
        raise

    def note_error(error: ServiceError) -> None:
        request.scope["unveil.error"] = error
        service.dispatcher.abort(pending, error)

    def end(is_slow: bool) -> None:
        watch.cancel()
        if is_slow:
            note_error(ServiceError("slow_reader", "the stream was not read"))
        service.dispatcher.abort(pending, _gone())

    chunks = stream_chunks(
        pending,
        composer,
        first,
        head=head,
        keep_alive_seconds=service.settings.keep_alive_seconds,
        on_error=note_error,
    )
    return EventStream(chunks, write_timeout_seconds=service.settings.stream_write_timeout_seconds, on_end=end)


async def _collect(request: Request, service: Service, pending: PendingRequest) -> list[RequestEvent]:
    """All events of a request up to its end. Raises the ServiceError it failed with."""
    watch = watch_client(request, lambda: service.dispatcher.abort(pending, _gone()))
    events: list[RequestEvent] = []
    try:
        while not (events and isinstance(events[-1], Finished | Ranked)):
            events += await pending.take()
        return events
    finally:
        watch.cancel()
        service.dispatcher.abort(pending, _gone())


def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


def _head(prefix: str, model: Model) -> dict[str, Any]:
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "model": model.name, "created": int(time.time())}


def _gone() -> ServiceError:
    return ServiceError("client_disconnected", "the client went away")
