"""The socket, the environment and the logs of a server's process."""

import json
import logging
import socket
from collections.abc import Callable, Iterator

import h11
import pytest
import structlog

from tests.service.mocks import WAIT_SECONDS, Gate, toy_model, toy_runner
from tests.service.servers import Running, connect, read_reply, run_toy, wait_until
from unveil.engine import environment
from unveil.model.errors import UnveilError
from unveil.service import server as server_module
from unveil.service.logs import configure, get_logger
from unveil.service.server import open_socket
from unveil.service.transport import unread_body
from unveil.service.transport.protocol import Protocol


def test_connections_are_accepted_without_nagles_algorithm() -> None:
    with run_toy() as server:
        (asyncio_server,) = server.server.servers
        (listening,) = asyncio_server.sockets
        assert listening.proto == socket.IPPROTO_TCP


IDLE = 500  # seconds, which nobody waits for: the server's clock is set ahead


@pytest.fixture(scope="module")
def impatient() -> Iterator[Running]:
    with run_toy(idle_connection_seconds=IDLE, worker_timeout_seconds=1e6) as server:
        yield server


HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("num_requests", [0, 1, 2])
def test_a_connection_that_sends_nothing_is_closed_when_its_time_is_up(impatient: Running, num_requests: int) -> None:
    with connect(impatient.url) as connection:
        for _ in range(num_requests):
            connection.sendall(HEALTH)
            assert read_reply(connection).read() == b'{"status":"ready"}'
        wait_until(lambda: bool(_protocols(impatient, connection)))
        impatient.skip(IDLE + 1)
        assert _read_to_the_end(connection) == b""


@pytest.mark.parametrize("before", [b"", HEALTH], ids=["first", "second"])
@pytest.mark.parametrize("half", [b"G", b"GET /health HTTP/1.1\r\nhost: x\r\n"], ids=["a byte", "no end"])
def test_half_a_head_is_told_408_when_its_time_is_up(impatient: Running, before: bytes, half: bytes) -> None:
    with connect(impatient.url) as connection:
        connection.sendall(before + half)
        if before:
            assert read_reply(connection).read() == b'{"status":"ready"}'
        _until_received(impatient, connection, half)
        impatient.skip(IDLE + 1)
        assert _error(_read_to_the_end(connection)) == (408, "timeout")


def _until_received(server: Running, connection: socket.socket, head: bytes) -> None:
    """Waits until the server has this much of a request's head, and no more."""

    def is_received() -> bool:
        return [protocol.conn.trailing_data[0] for protocol in _protocols(server, connection)] == [head]

    wait_until(is_received)


def test_a_head_that_comes_byte_by_byte_is_not_waited_for_any_longer(impatient: Running) -> None:
    head = b"GET /"
    with connect(impatient.url) as connection:
        connection.sendall(head)
        for _ in range(2):
            _until_received(impatient, connection, head)
            impatient.skip(0.4 * IDLE)
            connection.sendall(b"x")
            head += b"x"
        _until_received(impatient, connection, head)
        impatient.skip(0.4 * IDLE)
        assert _error(_read_to_the_end(connection)) == (408, "timeout")


def test_the_rest_of_a_body_that_was_answered_already_is_not_waited_for_without_end(
    impatient: Running,
) -> None:
    with connect(impatient.url) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        reply = read_reply(connection)
        assert (reply.status, json.loads(reply.read())["error"]["type"]) == (404, "not_found")
        impatient.skip(unread_body._SECONDS + 1)
        (protocol,) = _protocols(impatient, connection)
        wait_until(lambda: protocol.conn.our_state is h11.DONE)
        connection.sendall(b"x")
        wait_until(lambda: protocol._waiting_since is not None)
        impatient.skip(0.6 * IDLE)
        connection.sendall(b"x")
        impatient.skip(0.6 * IDLE)
        assert _read_to_the_end(connection) == b""


def test_a_head_in_two_pieces_is_answered() -> None:
    with run_toy() as server, connect(server.url) as connection:
        for _ in range(2):
            connection.sendall(HEALTH[:10])
            connection.sendall(HEALTH[10:])
            assert read_reply(connection).read() == b'{"status":"ready"}'


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    with open_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(UnveilError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
            open_socket("127.0.0.1", port)


def test_what_the_user_has_set_in_the_environment_stays() -> None:
    given = {"OMP_WAIT_POLICY": "ACTIVE"}
    environment.prepare(given)
    assert given == {"OMP_WAIT_POLICY": "ACTIVE", "MKL_CBWR": "AUTO"}


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Gives what has gone to stderr; puts the logging of the tests back afterwards."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.NOTSET)
    structlog.configure(**config)


def test_every_log_line_is_json_with_the_requests_id_and_without_its_prompt(stderr: Callable[[], str]) -> None:
    configure(level="debug", log_format="json")
    with run_toy() as server:
        server.client.post("/generate", json={"prompt": {"age": 39, "secret": 1}}, headers={"x-request-id": "trace-7"})
        server.wait_for("unveil_requests_total", 1, {"endpoint": "/generate", "code": "422"})
    text = stderr()
    assert "secret" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    (line,) = [line for line in lines if line.get("path") == "/generate"]
    assert {"timestamp", "level", "event", "seconds"} <= set(line)
    assert (line["request_id"], line["status"], line["error"]) == ("trace-7", 422, "invalid_request")
    assert all("timestamp" in line and "level" in line for line in lines)


def test_what_went_wrong_in_the_engine_is_logged_under_the_id_that_the_reply_names(stderr: Callable[[], str]) -> None:
    model = toy_model()
    runner = toy_runner(model)
    runner.spoil = lambda results: results[:-1]
    configure(level="info", log_format="json")
    with run_toy(model=model, runner=runner) as server:
        reply = server.client.post("/generate", json={"prompt": {}}, headers={"x-request-id": "trace-8"})
        assert (reply.status_code, reply.headers["x-request-id"]) == (500, "trace-8")
        server.wait_for("unveil_request_failures_total", 1, {"reason": "internal"})
    lines = [json.loads(line) for line in stderr().splitlines()]
    cause, access = [line for line in lines if line.get("request_id") == "trace-8"]
    assert cause["cause"] == "BadStepError: 0 results for 1 canvases"
    assert access["status"] == 500
    assert cause["id"] == access["id"]


def test_an_exception_is_one_json_line_with_its_traceback(stderr: Callable[[], str]) -> None:
    configure(level="info", log_format="json")
    try:
        raise RuntimeError("inside")
    except RuntimeError:
        get_logger().exception("unhandled")
    logging.getLogger("uvicorn.error").error("from uvicorn")
    first, second = map(json.loads, stderr().splitlines())
    assert "RuntimeError: inside" in first["exception"]
    assert (second["event"], second["level"]) == ("from uvicorn", "error")


def test_the_console_format_and_the_level_are_choices(stderr: Callable[[], str]) -> None:
    configure(level="warning", log_format="console")
    get_logger().info("quiet")
    get_logger().warning("loud")
    text = stderr()
    assert "loud" in text
    assert "quiet" not in text


def _read_to_the_end(connection: socket.socket) -> bytes:
    connection.settimeout(WAIT_SECONDS)
    read = b""
    while chunk := connection.recv(65_536):
        read += chunk
    return read


def _error(reply: bytes) -> tuple[int, str]:
    """(status, type) of a raw reply in the error shape, with a request id."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"x-request-id: " in head.lower()
    assert b"content-type: application/json" in head.lower()
    error = json.loads(body)["error"]
    assert set(error) == {"type", "message", "param"}
    return int(head.split()[1]), error["type"]


HALF = b'POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"prompt"'


def test_what_is_no_http_gets_the_shape_of_all_errors() -> None:
    with run_toy() as server, connect(server.url) as connection:
        connection.sendall(b"\x16\x03\x01 what is this\r\n\r\n")
        assert _error(_read_to_the_end(connection)) == (400, "invalid_http")
        assert server.generate(prompt={}).status_code == 200


def test_a_body_that_does_not_come_is_waited_for_no_longer_than_a_request_may_take() -> None:
    with run_toy(default_timeout_seconds=0.2) as server, connect(server.url) as connection:
        connection.sendall(HALF)
        assert _error(_read_to_the_end(connection)) == (504, "timeout")
        server.wait_for("unveil_request_failures_total", 1, {"reason": "timeout"})


def test_half_a_body_at_the_end_of_the_server_is_told_that_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_CLOSE_SECONDS", 1)
    with run_toy() as server:
        connection = connect(server.url)
        connection.sendall(HALF)
        wait_until(lambda: bool(server.server.server_state.tasks))
    with connection:
        assert _error(_read_to_the_end(connection)) == (503, "draining")


def _protocols(server: Running, connection: socket.socket) -> list[Protocol]:
    """The server's end of a connection."""
    protocols = [protocol for protocol in server.server.server_state.connections if isinstance(protocol, Protocol)]
    return [protocol for protocol in protocols if protocol.client == connection.getsockname()]


@pytest.mark.parametrize("more", [b"\r\n", b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"])
def test_a_client_that_goes_is_noticed_though_it_had_sent_more(more: bytes) -> None:
    gate = Gate()
    with run_toy(gate=gate) as server:
        body = b'{"prompt": {}}'
        connection = connect(server.url)
        connection.sendall(b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        gate.wait()
        connection.sendall(more)
        (protocol,) = _protocols(server, connection)
        wait_until(lambda: protocol.conn.trailing_data[0] == more)
        connection.close()
        server.wait_for("unveil_request_failures_total", 1, {"reason": "client_disconnected"})
        assert server.service.dispatcher.num_running == 0


def test_what_a_client_sends_ahead_is_answered_in_turn() -> None:
    gate = Gate()
    with run_toy(gate=gate) as server, connect(server.url) as connection:
        body = b'{"prompt": {}}'
        request = b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        connection.sendall(request)
        gate.wait()
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        gate.open()
        read = b""
        while not read.endswith(b'{"status":"ready"}'):
            read += (chunk := connection.recv(65_536))
            assert chunk, read
        assert read.count(b"HTTP/1.1 200 OK") == 2
        assert b'"samples"' in read


def test_more_than_a_last_request_ends_a_stream_and_frees_its_place() -> None:
    gate = Gate()
    with run_toy(gate=gate) as server, connect(server.url) as connection:
        body = b'{"prompt": {}, "stream": true}'
        head = b"POST /generate HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        gate.wait()
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        connection.sendall(b"and more")
        assert b"event: done" not in _read_to_the_end(connection)
        server.wait_for("unveil_request_failures_total", 1, {"reason": "client_disconnected"})
        assert server.service.dispatcher.num_running == 0
