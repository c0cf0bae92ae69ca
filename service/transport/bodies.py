"""A request's body: read within its limits, parsed strictly, checked against a schema.

JSON is accepted as RFC 8259 defines it and nothing more: UTF-8, no NaN, no infinity, no half of a surrogate pair (it
is no character), no name twice in an object (one of the two values would be silently ignored). The content-type header
is ignored: `curl -d` sends the wrong one.

FastAPI's own reading of bodies would not do. It reads and parses the whole body in the event loop, without a limit of
size or time, before any dependency may refuse the request. Of a duplicate name it keeps the last value, and it lets NaN
and lone surrogates through. What a body's fields may be is pydantic's to check: here it is only put in words of JSON.
"""

import asyncio

from starlette.requests import ClientDisconnect, Request

from unveil.engine.request.errors import ServiceError


async def read_body(request: Request, limit: int, *, timeout_seconds: float) -> bytes:
    """Raises ServiceError as soon as the body is known to be too large, declared or not, and when it does not arrive in
    time."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large(limit)
                parts.append(part)
    except TimeoutError:
        message = f"the body was not there within {timeout_seconds:g} seconds"
        raise ServiceError("timeout", message, headers={"connection": "close"}) from None
    except ClientDisconnect:
        raise ServiceError("client_disconnected", "the client went away") from None
    return b"".join(parts)


def too_large(limit: int) -> ServiceError:
    message = f"the body is larger than {limit} bytes"
    return ServiceError("payload_too_large", message, headers={"connection": "close"}, is_body_unread=True)
