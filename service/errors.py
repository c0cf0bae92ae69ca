"""Every way in which a request can fail, in the one shape that users see.

`{"error": {"type": ..., "message": ..., "param": ...}}`; the message is one line, `param` names the field to blame or
is null. What went wrong inside is for the log alone.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model.errors import UnveilError
from service.unread_body import UnreadBodyResponse

_LONGEST_PATH = 200  # characters of a path that a message repeats

ErrorType = Literal[
    "invalid_http",
    "invalid_json",
    "invalid_request",
    "model_not_found",
    "not_found",
    "method_not_allowed",
    "payload_too_large",
    "overloaded",
    "not_ready",
    "draining",
    "timeout",
    "slow_reader",
    "client_disconnected",
    "internal",
]
FailureReason = Literal["validation", "overloaded", "timeout", "client_disconnected", "internal"]
FAILURE_REASONS: tuple[FailureReason, ...] = get_args(FailureReason)

STATUS: Mapping[ErrorType, int] = MappingProxyType(
    {
        "invalid_http": 400,
        "invalid_json": 400,
        "invalid_request": 422,
        "model_not_found": 404,
        "not_found": 404,
        "method_not_allowed": 405,
        "payload_too_large": 413,
        "overloaded": 429,
        "not_ready": 503,
        "draining": 503,
        "timeout": 504,
        "slow_reader": 499,  # seen in a stream and in the metrics only: its reader is past headers
        "client_disconnected": 499,  # seen by nobody but the metrics and the log
        "internal": 500,
    }
)

REASONS: Mapping[ErrorType, FailureReason] = MappingProxyType(
    {
        "overloaded": "overloaded",
        "not_ready": "overloaded",
        "draining": "overloaded",
        "timeout": "timeout",
        "slow_reader": "client_disconnected",
        "client_disconnected": "client_disconnected",
        "internal": "internal",
    }
)

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


class ServiceError(UnveilError):
    """A failure that is answered. The message is shown to the user, on one line.

    `is_body_unread`: raised before the request's body was read, which its client may still be sending.
    """

    def __init__(
        self,
        kind: ErrorType,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        is_body_unread: bool = False,
    ) -> None:
        super().__init__(message, param=param)
        self.kind = kind
        self.message = " ".join(message.split())
        self.headers = dict(headers or {})
        self.is_body_unread = is_body_unread

    @property
    def status(self) -> int:
        return STATUS[self.kind]

    @property
    def reason(self) -> FailureReason:
        return REASONS.get(self.kind, "validation")

    def body(self) -> dict[str, Any]:
        return {"error": {"type": self.kind, "message": self.message, "param": self.param}}


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
        own = ServiceError("method_not_allowed", f"{path} takes {allowed}, not {method}", headers={"allow": allowed})
    elif error.status_code == 404:
        shown = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
        own = ServiceError("not_found", f"there is nothing at {shown}; /docs lists what there is")
    else:
        own = ServiceError("invalid_request", str(error.detail))
    own.is_body_unread = True
    return await on_service_error(request, own)
