"""HTTP/1.1 on a connection: where uvicorn and h11 fall short.

What does not parse as HTTP is answered in the one shape of all errors. A connection is read on while its request is
being answered: uvicorn stops reading at the first byte beyond the request, and would not see its client go away. And
nobody is waited for without end: uvicorn closes a connection that is idle after a reply, but not one that never sends a
request, or half the head of one.
"""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from unveil.engine.request.errors import ServiceError
from unveil.service.transport.ids import new_id

_MOST_AHEAD = 65_536  # bytes of requests to come that a connection may send while one is answered
_REASONS = {400: "Bad Request", 408: "Request Timeout"}


class Protocol(H11Protocol):
    """uvicorn's, with these differences. Its keep-alive timeout is the longest that a connection may take to send
    anything after it was made or after a reply, and to send a whole head from its first byte on."""

    _waiting_since: float | None = None  # for the end of a head, or of a body that was answered before it was there

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._close_at(self.loop.time() + self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_half_sent or self.conn.our_state is h11.DONE:
            self._waiting_since = self.loop.time() if self._waiting_since is None else self._waiting_since
            self._close_at(self._waiting_since + self.timeout_keep_alive)
            return
        self._waiting_since = None
        if self.conn.their_state is h11.IDLE:
            self._close_at(self.loop.time() + self.timeout_keep_alive)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) <= _MOST_AHEAD:
            self.flow.resume_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Called when the time is up."""
        if self._is_half_sent and not self.transport.is_closing():
            message = f"the request's head was not there within {self.timeout_keep_alive:g} seconds"
            self._refuse(ServiceError("timeout", message), status=408)
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, and closes; only closes where a reply is on its way already."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._refuse(ServiceError("invalid_http", msg), status=400)
        else:
            self.transport.close()

    @property
    def _is_half_sent(self) -> bool:
        """Whether the next request's head has begun, and is not complete."""
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _close_at(self, when: float) -> None:
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_at(when, self.timeout_keep_alive_handler)

    def _refuse(self, error: ServiceError, *, status: int) -> None:
        body = json.dumps(error.body()).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("x-request-id", new_id("req")),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=_REASONS[status]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
