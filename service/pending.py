"""One admitted request that is not answered yet: the events its reader has not taken, and when things happened.

Lives in the event loop.
"""

import asyncio
from collections import deque
from contextvars import copy_context

from unveil.engine.messages import Finished, Ranked, RequestEvent, Revealed
from unveil.engine.request.errors import ServiceError


class PendingRequest:
    """Filled by the dispatcher, emptied by one reader. Times are the event loop's, in seconds.

    `buffer_events` bounds the reveals a slow reader may lag behind; None where the reader only collects, which is woken
    once, when all is there.
    """

    def __init__(self, request_id: str, *, num_canvases: int, arrived_at: float, buffer_events: int | None) -> None:
        self.request_id = request_id
        self.num_canvases = num_canvases
        self.arrived_at = arrived_at
        self.context = copy_context()  # of the request, for log lines that are written for it elsewhere
        self.started_at: float | None = None
        self.first_reveal_at: float | None = None
        self.last_reveal_at: float | None = None
        self.ended_at: float | None = None
        self._buffer_events = buffer_events
        self._events: deque[RequestEvent] = deque()
        self._num_reveals = 0
        self.is_writing = False  # whether the reader waits for its client to take what it has written
        self._error: ServiceError | None = None
        self._wake = asyncio.Event()

    @property
    def is_overfull(self) -> bool:
        """Whether the client lags too far behind to be given more. It is never to blame for what this process is slow
        to take or to write."""
        return self._buffer_events is not None and self.is_writing and self._num_reveals > self._buffer_events

    def put(self, event: RequestEvent) -> None:
        self._events.append(event)
        if isinstance(event, Revealed):
            self._num_reveals += len(event.reveals)
        if self._buffer_events is not None or isinstance(event, Finished | Ranked):
            self._wake.set()

    def fail(self, error: ServiceError) -> None:
        """The reader gets what it has not taken yet, then this; a slow one gets this at once."""
        if error.kind == "slow_reader":
            self._events.clear()
        self._error = error
        self._wake.set()

    async def take(self, *, timeout_seconds: float | None = None) -> list[RequestEvent]:
        """All events there are, as soon as there is one, or all of them where the reader only collects; none after the
        timeout. Raises what the request failed of.
        """
        if self._error is None and not self._wake.is_set():
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._wake.wait()
            except TimeoutError:
                return []
        events = list(self._events)
        self._events.clear()
        self._wake.clear()
        self._num_reveals = 0
        if not events and self._error is not None:
            raise self._error
        return events

    def timings(self) -> dict[str, float | None]:
        """Of an ended request, as the reply has them: seconds since arrival."""
        assert self.ended_at is not None
        started = self.arrived_at if self.started_at is None else self.started_at
        first = None if self.first_reveal_at is None else self.first_reveal_at - self.arrived_at
        return {
            "queue_seconds": _rounded(started - self.arrived_at),
            "first_reveal_seconds": None if first is None else _rounded(first),
            "total_seconds": _rounded(self.ended_at - self.arrived_at),
        }


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
