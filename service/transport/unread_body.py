"""A reply to a request whose body is not read.

Closing the connection of a client that is still sending makes its kernel throw the reply away unread. So the reply
leaves at once and whole, and what still comes in is discarded for a while before the request ends.
"""

import asyncio
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

_SECONDS = 2.0
_BYTES = 2**26


class UnreadBodyResponse(JSONResponse):
    """Sends itself, then discards the rest of the request's body, within limits."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                await _discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    size = 0
    while size < _BYTES:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return
        size += len(message["body"])
