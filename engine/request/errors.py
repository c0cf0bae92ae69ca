"""Every way in which a request can fail: its type, its status, its reason. Knows no HTTP library."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from unveil.model.errors import UnveilError

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


def unmet() -> "ServiceError":
    """No attempt at a sample had any weight."""
    message = "no attempt at a sample met what where and rules ask for"
    return ServiceError("invalid_request", message, param="attempts")


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
