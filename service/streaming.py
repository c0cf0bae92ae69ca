"""A request's events as server-sent events, and the watch for a client that goes away. Knows no engine.

Every event leaves in the step in which it happened. A stream ends with exactly one `done` or `error`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import ServiceError, internal_error
from service.flight import PendingRequest
from service.logs import get_logger
from service.messages import Finished, RequestEvent, Revealed, SampleDone
from service.replies import Composer

_WRITE_BYTES = 65_536
KEEP_ALIVE = b": keep-alive\n\n"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # a proxy's buffer would hold reveals back


def as_json(data: dict[str, Any]) -> bytes:
    """Without spaces, as everything that the service writes."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def frame(event: str, data: dict[str, Any]) -> bytes:
    """One server-sent event. JSON has no raw line break, so one data line is enough."""
    return b"event: " + event.encode() + b"\ndata: " + as_json(data) + b"\n\n"


class EventStream(Response):
    """Sends chunks of a stream as they come. `on_end` is called once, with whether the client was too slow.

    Ends without a word where the client takes nothing for `write_timeout_seconds`; the server then hangs up.
    """

    media_type = "text/event-stream"

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], *, write_timeout_seconds: float, on_end: Callable[[bool], None]
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._chunks = chunks
        self._write_timeout_seconds = write_timeout_seconds
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        is_slow = False
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    await self._send(send, chunk, more_body=True)
            await self._send(send, b"", more_body=False)
        except TimeoutError:
            is_slow = True
        finally:
            self._on_end(is_slow)

    async def _send(self, send: Send, chunk: bytes, *, more_body: bool) -> None:
        """In pieces: the time is up for a client that takes nothing, not for one that takes a large chunk slowly."""
        for begin in range(0, len(chunk) or 1, _WRITE_BYTES):
            piece = chunk[begin : begin + _WRITE_BYTES]
            async with asyncio.timeout(self._write_timeout_seconds):
                await send({"type": "http.response.body", "body": piece, "more_body": more_body})


async def stream_chunks(
    pending: PendingRequest,
    composer: Composer,
    first: Sequence[RequestEvent],
    *,
    head: dict[str, Any],
    keep_alive_seconds: float,
    on_error: Callable[[ServiceError], None],
) -> AsyncGenerator[bytes, None]:
    """The whole stream of a request that has started; `first` are the events taken so far."""
    try:
        yield frame("start", {**head, "names": composer.names(), "samples": composer.start()})
        events = first
        while True:
            async for chunk in _chunks(events, pending, composer):
                yield chunk
            if any(isinstance(event, Finished) for event in events):
                return
            events = await pending.take(timeout_seconds=keep_alive_seconds)
            if not events:
                yield KEEP_ALIVE
    except ServiceError as error:
        on_error(error)
        if error.kind != "client_disconnected":
            yield frame("error", error.body())
    except Exception:
        get_logger().exception("stream_failed")
        failure = internal_error()
        on_error(failure)
        yield frame("error", failure.body())


async def _chunks(
    events: Sequence[RequestEvent], pending: PendingRequest, composer: Composer
) -> AsyncGenerator[bytes, None]:
    """What these events come to; the loop goes on to others where it is much, as for one who joins late."""
    parts, size = [], 0
    for event in events:
        parts.append(_frames(event, pending, composer))
        size += len(parts[-1])
        if size >= _WRITE_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
            await asyncio.sleep(0)
    if size:
        yield b"".join(parts)


def _frames(event: RequestEvent, pending: PendingRequest, composer: Composer) -> bytes:
    if isinstance(event, Revealed):
        place = composer.place(event.index)
        return b"".join(frame("reveal", {**place, **reveal}) for reveal in composer.revealed(event))
    if isinstance(event, SampleDone):
        return frame("sample", composer.sample(event))
    if isinstance(event, Finished):
        return frame("done", {"usage": composer.usage(), "timings": pending.timings()})
    return b""


def watch_client(request: Request, on_gone: Callable[[], None]) -> "asyncio.Task[None]":
    """Calls `on_gone` when the client closes the connection. Cancel it when the reply is complete."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        on_gone()

    return asyncio.create_task(watch())
