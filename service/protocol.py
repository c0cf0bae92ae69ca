"""HTTP/1.1 on a connection, as uvicorn and h11 speak it, where that would not do. Knows no route.

What does not parse as HTTP is answered in the one shape of all errors. And a connection is read on while its request is
being answered: uvicorn stops reading at the first byte beyond the request, and would not see its client go away.
"""

import json
import uuid

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import ServiceError

_MOST_AHEAD = 65_536  # bytes of requests to come that a connection may send while one is answered


class Protocol(H11Protocol):
    """uvicorn's, with these two differences."""

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) <= _MOST_AHEAD:
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, and closes; only closes where a reply is on its way already."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        error = ServiceError("invalid_http", msg)
        body = json.dumps(error.body()).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("x-request-id", f"req-{uuid.uuid4().hex}"),
            ("connection", "close"),
        ]
        for event in (
            h11.Response(status_code=error.status, headers=headers, reason="Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
