"""A request's events as server-sent events, and the watch for a client that disconnects.

Every event leaves in the step in which it happened. A stream ends with exactly one `done` or `error`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unveil.engine.messages import Finished, RequestEvent
from unveil.engine.request.errors import ServiceError
from unveil.engine.request.replies import GenerateComposer
from unveil.service.logs import get_logger
from unveil.service.pending import PendingRequest
from unveil.service.transport.error_replies import internal_error
from unveil.service.transport.json_pieces import as_json, json_pieces

_WRITE_BYTES = 65_536
_TURN_SECONDS = 0.002  # of the event loop, after which a stream lets others go on
KEEP_ALIVE = b": keep-alive\n\n"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # a proxy's buffer would hold reveals back


def frame(event: str, data: dict[str, Any]) -> bytes:
    """One server-sent event. JSON has no raw line break, so one data line is enough."""
    return b"".join(_frame_pieces(event, [as_json(data)]))


def _frame_pieces(event: str, data: Iterable[bytes]) -> Iterator[bytes]:
    yield b"event: " + event.encode() + b"\ndata: "
    yield from data
    yield b"\n\n"


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
    composer: GenerateComposer,
    first: Sequence[RequestEvent],
    *,
    head: dict[str, Any],
    keep_alive_seconds: float,
    on_error: Callable[[ServiceError], None],
) -> AsyncGenerator[bytes, None]:
    """The whole stream of a request that has started; `first` are the events taken so far."""
    try:
        start = {**head, **composer.start()}
        async for chunk in _written(_chunks(_frame_pieces("start", json_pieces(start.items()))), pending):
            yield chunk
        events = first
        while True:
            async for chunk in _written(_chunks(_event_pieces(events, pending, composer)), pending):
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


async def _written(chunks: AsyncGenerator[bytes, None], pending: PendingRequest) -> AsyncGenerator[bytes, None]:
    """The same chunks. Whoever asks for the next one has written the last."""
    async for chunk in chunks:
        pending.is_writing = True
        yield chunk
        pending.is_writing = False


async def _chunks(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """What these pieces come to. Where it is much, or takes long, others of the event loop have their turn between."""
    time = asyncio.get_running_loop().time
    parts, size, since = [], 0, time()
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES or time() - since >= _TURN_SECONDS:
            yield b"".join(parts)
            await asyncio.sleep(0)
            parts, size, since = [], 0, time()
    if size:
        yield b"".join(parts)


def _event_pieces(
    events: Iterable[RequestEvent], pending: PendingRequest, composer: GenerateComposer
) -> Iterator[bytes]:
    for event in events:
        for name, data in composer.shown(event):
            if name == "sample":
                yield from _frame_pieces(name, json_pieces(data.items()))
            else:
                yield frame(name, data)
        if isinstance(event, Finished):
            yield frame("done", {**composer.ending(), "timings": pending.timings()})


def watch_client(request: Request, on_gone: Callable[[], None]) -> "asyncio.Task[None]":
    """Calls `on_gone` when the client closes the connection. Cancel it when the reply is complete."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        on_gone()

    return asyncio.create_task(watch())
