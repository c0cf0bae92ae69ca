"""The endpoints: each reads a request, plans it, waits for its events and answers."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response
from structlog.contextvars import bind_contextvars

from unveil.engine.catalog import Catalog, ServedModel
from unveil.engine.messages import Finished, Ranked, RequestEvent
from unveil.engine.request.composers import compose
from unveil.engine.request.errors import ServiceError
from unveil.engine.request.parsing import parse
from unveil.engine.request.planning import deadline, num_canvases
from unveil.engine.request.replies import GenerateComposer
from unveil.engine.request.schemas import (
    GenerateReply,
    GenerateRequest,
    HealthReply,
    ModelsReply,
    OrderReply,
    OrderRequest,
    ScoreReply,
    ScoreRequest,
)
from unveil.engine.request.table_schemas import CountReply, CountRequest, PredictReply, PredictRequest
from unveil.service.dispatcher import Dispatcher
from unveil.service.metrics import Metrics
from unveil.service.openapi import EVENT_STREAM, request_body, responses
from unveil.service.pending import PendingRequest
from unveil.service.settings import Settings
from unveil.service.streaming import EventStream, stream_chunks, watch_client
from unveil.service.transport.bodies import read_body
from unveil.service.transport.ids import new_id
from unveil.service.transport.json_pieces import as_json, json_pieces

INLINE_BYTES = (
    4_096  # of a body that is parsed in the event loop; for a larger one, a thread's hop costs little beside it
)
INLINE_POSITIONS = 1_024  # the same for planning requests and writing replies: canvases x length

Result = TypeVar("Result")
AnyRequest = TypeVar("AnyRequest", GenerateRequest, OrderRequest, ScoreRequest, PredictRequest, CountRequest)
router = APIRouter()


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoints work with; `app.state.service`."""

    settings: Settings
    catalog: Catalog
    dispatcher: Dispatcher
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class _Asked(Generic[AnyRequest]):
    """A request that was read, and the model it is for; `num_positions`: canvases x length, at most."""

    request: AnyRequest
    model: ServedModel
    num_positions: int
    timeout_seconds: float


@router.post(
    "/generate",
    response_model=GenerateReply,
    responses={200: EVENT_STREAM, **responses(400, 404, 413, 422, 429, 500, 503, 504)},
    openapi_extra=request_body(GenerateRequest),
)
async def generate(request: Request) -> Response:
    """Completes a template: what is known stays, what is hidden is generated, in the order asked for."""
    return await _answer(request, GenerateRequest)


@router.post(
    "/order",
    response_model=OrderReply,
    responses=responses(400, 404, 413, 422, 429, 500, 503, 504),
    openapi_extra=request_body(OrderRequest),
)
async def order(request: Request) -> Response:
    """The model's own probability of each hidden position to be revealed next."""
    return await _answer(request, OrderRequest)


@router.post(
    "/score",
    response_model=ScoreReply,
    responses=responses(400, 404, 413, 422, 429, 500, 503, 504),
    openapi_extra=request_body(ScoreRequest),
)
async def score(request: Request) -> Response:
    """What the known positions cost in nats, along one order exactly, or over drawn orders with a standard error."""
    return await _answer(request, ScoreRequest)


@router.post(
    "/predict",
    response_model=PredictReply,
    responses=responses(400, 404, 413, 422, 429, 500, 503, 504),
    openapi_extra=request_body(PredictRequest),
)
async def predict(request: Request) -> Response:
    """The whole law of hidden columns of a table given the rest: levels, bins, quantiles; and draws of them jointly."""
    return await _answer(request, PredictRequest)


@router.post(
    "/count",
    response_model=CountReply,
    responses=responses(400, 404, 413, 422, 429, 500, 503, 504),
    openapi_extra=request_body(CountRequest),
)
async def count(request: Request) -> Response:
    """The probability that a row of a table meets a condition, and that many times the rows of training."""
    return await _answer(request, CountRequest)


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
    """Whether requests are taken for every model: all loaded and warm, worker alive, not draining."""
    _service(request).dispatcher.check_ready()
    return JSONResponse({"status": "ready"})


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    return Response(_service(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _answer(request: Request, schema: type[AnyRequest]) -> Response:
    """Reads a request, plans it, waits for its events and writes the reply, in a stream where it asks for one."""
    service, arrived_at = _service(request), asyncio.get_running_loop().time()
    asked = await _read(request, service, schema)
    wanted, model = asked.request, asked.model
    composer = await _compute(lambda: compose(wanted, model, service.settings.limits), asked.num_positions)
    head = _head(composer.id_prefix, model)
    bind_contextvars(id=head["id"])
    is_streamed = isinstance(wanted, GenerateRequest) and wanted.stream
    pending = service.dispatcher.submit(
        composer.command(head["id"]),
        arrived_at=arrived_at,
        timeout_seconds=asked.timeout_seconds,
        buffer_events=service.settings.stream_buffer_events if is_streamed else None,
    )
    if is_streamed:
        assert isinstance(composer, GenerateComposer)
        return await _streamed(request, service, pending, composer, head)
    events = await _collect(request, service, pending)

    def write() -> Response:
        for event in events:
            composer.add(event)
        every = pending.timings()
        timings = {"timings": {name: every[name] for name in composer.timings}} if composer.timings else {}
        return _json({**head, **composer.reply(), **timings}, asked.num_positions)

    return await _compute(write, asked.num_positions)


async def _read(request: Request, service: Service, schema: type[AnyRequest]) -> _Asked[AnyRequest]:
    """The request, read and valid as far as its schema goes. Raises ServiceError, before the body is there where it
    would not be admitted anyway."""
    settings, dispatcher = service.settings, service.dispatcher
    try:
        for name in request.query_params if request.scope["query_string"] else ():
            message = "no parameters in the address: all fields go into the body"
            raise ServiceError("invalid_request", message, param=name)
        dispatcher.check_room()
    except ServiceError as error:
        error.is_body_unread = True
        raise
    body = await read_body(request, settings.max_body_bytes, timeout_seconds=settings.default_timeout_seconds)
    dispatcher.check_room()
    parsed = parse(body, schema) if len(body) <= INLINE_BYTES else await asyncio.to_thread(parse, body, schema)
    model = service.catalog.get(parsed.model)
    timeout_seconds = deadline(parsed.timeout_seconds, settings.limits)
    size = num_canvases(parsed, settings.limits)
    if size <= settings.queue_capacity:  # else it is refused for good
        dispatcher.check_room(size, model=model.name)
    return _Asked(parsed, model, size * model.manifest.length, timeout_seconds)


async def _compute(work: Callable[[], Result], num_positions: int) -> Result:
    """What `work` gives; from a thread where it would hold the event loop for more than a few milliseconds."""
    return work() if num_positions <= INLINE_POSITIONS else await asyncio.to_thread(work)


def _json(reply: Mapping[str, Any], num_positions: int) -> Response:
    """A large one is written list entry by list entry: who writes it at once holds the event loop, even in a thread."""
    if num_positions <= INLINE_POSITIONS:
        return Response(as_json(reply), media_type="application/json")
    fields = ((name, iter(value) if isinstance(value, list) else value) for name, value in reply.items())
    return Response(b"".join(json_pieces(fields)), media_type="application/json")


async def _streamed(
    request: Request, service: Service, pending: PendingRequest, composer: GenerateComposer, head: dict[str, Any]
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


def _head(prefix: str, model: ServedModel) -> dict[str, Any]:
    return {"id": new_id(prefix), "model": model.name, "created": int(time.time())}


def _gone() -> ServiceError:
    return ServiceError("client_disconnected", "the client went away")
