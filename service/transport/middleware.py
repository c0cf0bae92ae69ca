"""Around every request: its id, its log line, its metrics, and an answer to exceptions that nobody caught."""

import asyncio
import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unveil.engine.request.errors import ServiceError
from unveil.service.logs import get_logger
from unveil.service.metrics import Metrics
from unveil.service.transport.error_replies import error_response, internal_error
from unveil.service.transport.ids import new_id

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_QUIET = ("/health", "/health/live", "/health/ready", "/metrics")


class RequestLog:
    """ASGI middleware. A well-formed `x-request-id` is kept, otherwise one is generated."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        begin = time.perf_counter()
        status: list[int] = []

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except asyncio.CancelledError:  # the server stops, and this request was never admitted or is past its end
                scope["unveil.error"] = ServiceError("draining", "the server is shutting down")
                if not status:
                    await error_response(scope["unveil.error"])(scope, receive, send_with_id)
            except Exception:
                get_logger().exception("unhandled")
                scope["unveil.error"] = internal_error()
                if not status:
                    await error_response(scope["unveil.error"])(scope, receive, send_with_id)
            self._note(scope, status[0] if status else 499, time.perf_counter() - begin)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        error: ServiceError | None = scope.get("unveil.error")
        route = scope.get("route")
        endpoint = getattr(route, "path", "other")
        self._metrics.requests.labels(endpoint, str(status)).inc()
        if error is not None and endpoint not in _QUIET:
            self._metrics.failed(error.reason)
        log = get_logger().debug if endpoint in _QUIET else get_logger().info
        log(
            "request",
            method=scope["method"],
            path=scope["path"][:200],
            status=status,
            seconds=round(seconds, 6),
            **({} if error is None else {"error": error.kind, "param": _without_prompt(error.param)}),
        )


def _without_prompt(param: str | None) -> str | None:
    """A wrong column's name comes from the prompt, which is never logged."""
    return None if param is None else param.partition(".")[0][:40]


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else new_id("req")
