"""Every way in which a request can fail, in the one shape that users see.

`{"error": {"type": ..., "message": ..., "param": ...}}`; the message is one line, `param` names the field to blame or
is null. What went wrong inside is for the log alone.
"""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unveil.engine.request.errors import ErrorType, ServiceError
from unveil.service.transport.unread_body import UnreadBodyResponse

_LONGEST_PATH = 200  # characters of a path that a message repeats


RETRY_AFTER_SECONDS: Mapping[ErrorType, int] = MappingProxyType({"overloaded": 1, "not_ready": 2, "draining": 5})


class ErrorDetail(BaseModel):
    """What failed. `param` is a path into the request (`prompt.age`, `prompt.2.age` in a list), or null."""

    model_config = ConfigDict(extra="forbid")

    type: str
    message: str
    param: str | None = None


class ErrorReply(BaseModel):
    """The body of every reply that is not a success, and of a stream's `error` event."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorDetail


def internal_error() -> ServiceError:
    """Says nothing of what happened: that stands in the log, under the request's id."""
    return ServiceError(
        "internal", "something went wrong on the server; its log has it under this reply's x-request-id"
    )


def error_response(error: ServiceError) -> JSONResponse:
    headers = dict(error.headers)
    if error.kind in RETRY_AFTER_SECONDS:
        headers.setdefault("retry-after", str(RETRY_AFTER_SECONDS[error.kind]))
    if error.kind == "draining":
        headers["connection"] = "close"  # a client that keeps its connection would come back here
    response = UnreadBodyResponse if error.is_body_unread else JSONResponse
    return response(error.body(), status_code=error.status, headers=headers)


async def on_service_error(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for ServiceError; leaves the error for the request log."""
    assert isinstance(error, ServiceError)
    request.scope["unveil.error"] = error
    return error_response(error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own errors (no route, wrong method) in our shape."""
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{path} is only valid with {allowed}, not with {method}"
        own = ServiceError("method_not_allowed", message, headers={"allow": allowed})
    elif error.status_code == 404:
        shown = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
        own = ServiceError("not_found", f"there is nothing at {shown}; /docs lists what there is")
    else:
        own = ServiceError("invalid_request", str(error.detail))
    own.is_body_unread = True
    return await on_service_error(request, own)
