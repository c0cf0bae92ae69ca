"""The HTTP benchmark measures saturation and an open loop on real servers, by our clients and by locust."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.benchmarks.quick import run
from unveil.benchmarks.serving.clients.http_load import FAILED, Connection, closed_loop, percentiles, within


def test_saturation_and_an_open_loop_are_measured_on_real_servers() -> None:
    found = run("http")
    (small,) = found["models"]
    for row in (small, found["large"]):
        for side in ("plain", "streamed"):
            assert row[side]["requests_per_second"] > 0
            assert row[side]["server_cpu_seconds_a_request"] >= 0  # in hundredths of a second
            assert row[side]["over_in_process"] > 0
    for row in (*found["new_connections"].values(), *found["generators"].values()):
        assert row["requests"] > 0
        assert row["requests_per_second"] > 0
    assert found["generators"]["locust"]["failures"] == 0
    (row,) = found["open_loop"]["loads"]
    assert row["requests"] > 0
    assert row["failed"] == 0
    for name in ("first_reveal_seconds", "inter_reveal_seconds", "total_seconds"):
        assert 0 <= row[name]["p50"] <= row[name]["p95"] <= row[name]["p99"]


class _Handler(BaseHTTPRequestHandler):
    """Refuses odd seeds; streams four reveals in two chunks where a stream is asked for."""

    protocol_version = "HTTP/1.1"
    peers: set[int] = set()  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.peers.add(self.client_address[1])
        self.close_connection = body.get("leave", False)  # without a word of it in the reply
        if body["seed"] % 2:
            self._whole(429)
        elif not body["stream"]:
            self._whole(200)
        else:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in (b"event: start\n\nevent: reveal\n\n", b"event: reveal\n\n" * 3, self._end(body), b""):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def _end(self, body: dict[str, object]) -> bytes:
        return b"event: error\n\n" if body.get("fails") else b"event: done\n\n"

    def _whole(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _server() -> Iterator[int]:
    _Handler.peers.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def test_a_connection_is_kept_over_whole_replies_streams_and_refusals() -> None:
    async def ask(port: int) -> list[tuple[int, bool, int]]:
        connection = Connection(port)
        answers = [
            await connection.ask({"seed": seed, "stream": stream})
            for seed, stream in ((0, True), (1, True), (2, False), (4, True))
        ]
        connection.close()
        return [(answer.status, answer.first is not None, len(answer.gaps)) for answer in answers]

    with _server() as port:
        assert asyncio.run(ask(port)) == [(200, True, 3), (429, False, 0), (200, False, 0), (200, True, 3)]
        assert len(_Handler.peers) == 1


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_closed_loop_counts_while_all_are_busy_and_can_open_a_connection_for_each_request(is_kept: bool) -> None:
    readings = iter([3.0, 7.0])
    with _server() as port:
        window = asyncio.run(
            closed_loop(
                port,
                lambda number: {"seed": 2 * number, "stream": False},
                seconds=1.0,
                num=2,
                is_kept=is_kept,
                meter=lambda: next(readings),
            )
        )
        num_peers = len(_Handler.peers)
    assert window.metered == 4.0
    assert window.seconds >= 1.0
    assert window.answers
    assert all(answer.status == 200 for answer in window.answers)
    assert abs(window.num - len(window.answers)) <= 2  # connections, each with a part of a request at either edge
    assert num_peers == 2 if is_kept else num_peers > len(window.answers)  # one at least before the window


def test_a_request_at_an_edge_counts_by_its_share_within() -> None:
    spans = [(0.0, 4.0), (2.0, 6.0), (3.0, 5.0), (5.0, 9.0), (7.0, 8.0), (0.0, 10.0)]
    assert within(spans, 3.0, 6.0) == pytest.approx(1 / 4 + 3 / 4 + 1 + 1 / 4 + 0 + 3 / 10)


def test_an_answer_is_timed_from_when_its_request_was_due() -> None:
    async def ask(port: int) -> None:
        connection = Connection(port)
        due = time.perf_counter() - 60
        answer = await connection.ask({"seed": 0, "stream": True}, due=due)
        connection.close()
        assert answer.first is not None
        assert 60 < answer.first <= answer.total <= time.perf_counter() - due

    with _server() as port:
        asyncio.run(ask(port))


def test_a_connection_that_the_server_closed_meanwhile_is_opened_anew() -> None:
    async def ask(port: int) -> list[int]:
        connection = Connection(port)
        statuses = []
        for _ in range(3):
            statuses.append((await connection.ask({"seed": 0, "stream": False, "leave": True})).status)
            assert connection._streams is not None
            assert await connection._streams[0].read() == b""  # the server has hung up
        connection.close()
        return statuses

    with _server() as port:
        assert asyncio.run(ask(port)) == [200, 200, 200]
        assert len(_Handler.peers) == 3


def test_a_stream_that_ends_in_an_error_does_not_count_as_answered() -> None:
    async def ask(port: int) -> int:
        connection = Connection(port)
        answer = await connection.ask({"seed": 0, "stream": True, "fails": True})
        connection.close()
        return answer.status

    with _server() as port:
        assert asyncio.run(ask(port)) == FAILED


def test_percentiles_of_nothing_are_none() -> None:
    assert percentiles([]) == {}
    assert percentiles(range(100)) == {"p50": 50, "p95": 95, "p99": 99}
