"""Between the event loop and the engine: admits requests, hands out their events, answers every one of them.

Everything but `_emit` runs in the event loop. Admission counts canvases, waiting and running alike, and takes a request
whole or not at all. Of HTTP it knows the errors that it answers with.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Literal, NoReturn

from unveil.engine.messages import (
    BatchRetried,
    Cancel,
    Died,
    EnginePort,
    Event,
    Failed,
    Finished,
    Heartbeat,
    Loaded,
    Ranked,
    Ready,
    RequestEvent,
    Revealed,
    Started,
    StepStats,
    Stop,
    Work,
)
from unveil.engine.request.errors import ServiceError, unmet
from unveil.service.logs import get_logger
from unveil.service.metrics import Metrics
from unveil.service.pending import PendingRequest
from unveil.service.retried_batches import RetriedBatches
from unveil.service.transport.error_replies import internal_error

_WATCH_SECONDS = 1.0


class EngineDiedError(RuntimeError):
    """The engine ended by itself; the message says why."""


class Dispatcher:
    """The only user of its engine; one for each server."""

    def __init__(
        self,
        engine: EnginePort,
        *,
        capacity: int,
        metrics: Metrics,
        worker_timeout_seconds: float = 60.0,
        version: str = "",
    ) -> None:
        self._engine = engine
        self._capacity = capacity
        self._metrics = metrics
        self._worker_timeout_seconds = worker_timeout_seconds
        self._version = version
        self._pending: dict[str, PendingRequest] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._state: Literal["loading", "ready", "dead"] = "loading"
        self._is_draining = False
        self._engine_error: str | None = None
        self._last_sign = 0.0
        self._settled = asyncio.Event()  # loaded, or dead
        self._dead = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._watch: asyncio.Task[None] | None = None
        self._retries = RetriedBatches(metrics)
        self.loaded: dict[str, Loaded] = {}

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last_sign = self._loop.time()
        self._engine.start(self._emit)
        self._watch = asyncio.create_task(self._watch_engine())

    async def stop(self, *, timeout_seconds: float = 5.0) -> None:
        """Ends the engine after the step it is in; requests that still wait are answered."""
        if self._watch is not None:
            self._watch.cancel()
        self._abort_each(self._pending.values(), ServiceError("draining", "the server is shutting down"))
        self._engine.send(Stop())
        await asyncio.to_thread(self._engine.join, timeout_seconds)

    async def wait_until_ready(self) -> None:
        """Raises EngineDiedError where the models cannot be loaded."""
        await self._settled.wait()
        if self._state == "dead":
            await self.wait_until_dead()

    async def wait_until_dead(self) -> NoReturn:
        """Raises EngineDiedError when the engine ends by itself."""
        await self._dead.wait()
        raise EngineDiedError(self._engine_error or "the engine died")

    async def drain(self, *, timeout_seconds: float) -> None:
        """Takes no more requests, lets those there are finish, and answers the rest when the time is up."""
        self._is_draining = True
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            self._abort_each(
                self._pending.values(),
                ServiceError("draining", "the server shut down before this request was finished"),
            )

    @property
    def is_live(self) -> bool:
        """Whether the worker can be expected to go on. Loading may take its time: there is no heartbeat yet."""
        if self._state == "dead" or not self._engine.is_alive():
            return False
        return self._state == "loading" or self._loop.time() - self._last_sign < self._worker_timeout_seconds

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    @property
    def is_ready(self) -> bool:
        return self._state == "ready" and not self._is_draining and self.is_live

    @property
    def num_running(self) -> int:
        return sum(pending.started_at is not None for pending in self._pending.values())

    @property
    def num_waiting(self) -> int:
        return len(self._pending) - self.num_running

    def check_ready(self) -> None:
        """Raises ServiceError (503) unless requests for every model are taken."""
        self._check_running()
        if self._state == "loading":
            raise ServiceError("not_ready", "the models are still being loaded")

    def check_room(self, num_canvases: int = 1, *, model: str | None = None) -> None:
        """Raises ServiceError (429, 503) where a request of so many canvases would not be admitted now; without a name,
        of any model."""
        self._check_running()
        if self._state == "loading" and not (self.loaded if model is None else model in self.loaded):
            what = "the models are" if model is None else f"{model} is"
            raise ServiceError("not_ready", f"{what} still being loaded")
        num_taken = sum(pending.num_canvases for pending in self._pending.values())
        if num_taken + num_canvases > self._capacity:
            needs = f", this request needs {num_canvases}" if num_canvases > 1 else ""
            raise ServiceError("overloaded", f"{num_taken} of {self._capacity} places are taken{needs}")

    def submit(
        self, command: Work, *, arrived_at: float, timeout_seconds: float, buffer_events: int | None = None
    ) -> PendingRequest:
        """Admits a request, whose deadline counts from its arrival. Raises ServiceError (429, 503)."""
        self.check_room(command.num_places, model=command.model)
        pending = PendingRequest(
            command.request_id, num_canvases=command.num_places, arrived_at=arrived_at, buffer_events=buffer_events
        )
        self._pending[pending.request_id] = pending
        self._idle.clear()
        self._timers[pending.request_id] = self._loop.call_at(
            arrived_at + timeout_seconds, self._expire, pending, timeout_seconds
        )
        self._engine.send(command)
        return pending

    def abort(self, pending: PendingRequest, error: ServiceError) -> None:
        """Frees the request's place within one step; its reader gets the error. Ended requests are left alone."""
        if self._pending.get(pending.request_id) is pending:
            pending.fail(error)
            self._engine.send(Cancel(pending.request_id))
            self._release(pending)

    def _check_running(self) -> None:
        if self._is_draining:
            raise ServiceError("draining", "the server is shutting down and takes no more requests")
        if not self.is_live:
            raise ServiceError("not_ready", "the engine is not running")

    def _expire(self, pending: PendingRequest, timeout_seconds: float) -> None:
        self.abort(pending, ServiceError("timeout", f"not finished within {timeout_seconds:g} seconds"))

    def _abort_each(self, requests: Iterable[PendingRequest], error: ServiceError) -> None:
        for pending in tuple(requests):
            try:
                self.abort(pending, error)
            except Exception:  # the others are answered all the same
                pending.context.run(get_logger().exception, "abort_failed")

    def _release(self, pending: PendingRequest) -> None:
        """To be called when the reader has been told: what fails here leaves nobody waiting."""
        del self._pending[pending.request_id]
        if not self._pending:
            self._idle.set()
        pending.ended_at = self._loop.time()
        self._timers.pop(pending.request_id).cancel()
        self._metrics.request_seconds.observe(pending.ended_at - pending.arrived_at)

    def _emit(self, events: Sequence[Event]) -> None:
        """Called from the worker's thread; once the loop is closed events are dropped."""
        if not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self._deliver, events)
            except RuntimeError:
                assert self._loop.is_closed()

    def _deliver(self, events: Iterable[Event]) -> None:
        """Each event on its own: what fails with one changes nothing for the others."""
        self._last_sign = now = self._loop.time()
        for event in events:
            try:
                self._handle(event, now)
            except Exception:
                self._give_up(event)

    def _handle(self, event: Event, now: float) -> None:
        match event:
            case Loaded():
                self.loaded[event.model] = event
                self._metrics.build_info.labels(self._version, event.device, event.model).set(1)
                get_logger().info("model_loaded", model=event.model, deterministic=event.is_deterministic)
            case Ready():
                self._state = "ready"
                self._settled.set()
            case Died():
                self._die(event.message)
            case StepStats():
                self._metrics.count_step(event)
            case BatchRetried():
                self._retries.note(event)
            case Heartbeat():
                pass
            case _:
                self._hand_out(event, now)

    def _give_up(self, event: Event) -> None:
        """Called in an exception's handler: logs it, and answers the request that the event was for."""
        pending = self._pending.get(event.request_id) if isinstance(event, RequestEvent) else None
        if pending is None:
            get_logger().exception("event_failed", kind=type(event).__name__)
        else:
            pending.context.run(get_logger().exception, "event_failed", kind=type(event).__name__)
            self._abort_each([pending], internal_error())

    def _hand_out(self, event: RequestEvent, now: float) -> None:
        pending = self._pending.get(event.request_id)
        if pending is None:
            return  # it was cancelled after this event was emitted
        self._note_time(pending, event, now)
        if isinstance(event, Failed):
            if not event.is_unmet:
                pending.context.run(get_logger().error, "request_failed", cause=event.message)
            pending.fail(unmet() if event.is_unmet else internal_error())
            self._release(pending)
        elif isinstance(event, Revealed) and pending.is_overfull:
            self.abort(pending, ServiceError("slow_reader", "the stream was read too slowly, so it was cut off"))
        else:
            pending.put(event)
            if isinstance(event, Finished | Ranked):
                self._release(pending)

    def _note_time(self, pending: PendingRequest, event: RequestEvent, now: float) -> None:
        if isinstance(event, Started):
            pending.started_at = now
            self._metrics.queue_seconds.observe(now - pending.arrived_at)
        if not isinstance(event, Revealed) or pending.last_reveal_at == now:
            return
        if pending.last_reveal_at is None:
            pending.first_reveal_at = now
            self._metrics.first_reveal_seconds.observe(now - pending.arrived_at)
        else:
            self._metrics.inter_reveal_seconds.observe(now - pending.last_reveal_at)
        pending.last_reveal_at = now

    def _die(self, message: str) -> None:
        self._state, self._engine_error = "dead", message
        self._settled.set()
        self._dead.set()
        self._abort_each(self._pending.values(), internal_error())
        get_logger().error("engine_died", cause=message)

    async def _watch_engine(self) -> None:
        """Notices a worker that ended without a word."""
        while self._engine.is_alive():
            await asyncio.sleep(_WATCH_SECONDS)
        if self._engine_error is None:
            self._die("the worker ended without a word")
