"""Streams: every reveal in the step in which it happened, one ending, and no place held for a reader who is gone."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from starlette.types import Message

from tests.service.mocks import WAIT_SECONDS, Gate, toy_model, toy_runner
from tests.service.servers import Running, events_of, run_toy
from unveil.service.streaming import EventStream, frame

COLUMNS = ["age", "workclass", "income", "hours", "rate"]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with run_toy() as running:
        yield running


def _stream(server: Running, **fields: Any) -> list[tuple[str, Any]]:
    with server.client.stream("POST", "/generate", json={**fields, "stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events_of(response.iter_lines()))


def test_a_stream_is_start_reveals_samples_and_one_done(server: Running) -> None:
    events = _stream(server, prompt={"age": 39}, num_samples=2, seed=7)
    kinds = [kind for kind, _ in events]
    assert kinds[0] == "start"
    assert kinds[-1] == "done"
    assert sorted(kinds[1:-1]) == ["reveal"] * 8 + ["sample"] * 2
    start = events[0][1]
    assert set(start) == {"id", "model", "created", "names", "samples"}
    assert start["names"] == COLUMNS
    assert start["samples"][0] == {
        "prompt_index": 0,
        "sample_index": 0,
        "seed": 7,
        "canvas": [39, None, None, None, None],
        "hidden": [1, 2, 3, 4],
    }
    assert set(events[-1][1]) == {"usage", "timings"}
    assert events[-1][1]["usage"] == {"prompt_tokens": 1, "generated_tokens": 8, "denoising_steps": 8}


def test_a_stream_folds_to_the_same_samples_as_the_whole_reply(server: Running) -> None:
    fields = {"prompt": [{"age": 39}, {"rate": 0.5, "hours": 2}], "num_samples": 3, "seed": 7}
    whole = server.generate(**fields).json()["samples"]
    events = _stream(server, **fields)
    samples = sorted(
        (data for kind, data in events if kind == "sample"), key=lambda s: (s["prompt_index"], s["sample_index"])
    )
    assert samples == whole
    canvases = {(s["prompt_index"], s["sample_index"]): list(s["canvas"]) for s in events[0][1]["samples"]}
    reveals: dict[Any, list[Any]] = {place: [] for place in canvases}
    for kind, data in events:
        if kind == "reveal":
            place = (data.pop("prompt_index"), data.pop("sample_index"))
            assert canvases[place][data["position"]] is None
            canvases[place][data["position"]] = data["value"]
            reveals[place].append(data)
    for sample in whole:
        place = (sample["prompt_index"], sample["sample_index"])
        assert dict(zip(COLUMNS, canvases[place], strict=True)) == sample["output"]
        assert reveals[place] == sample["reveals"]


def test_headers_and_start_arrive_while_the_first_step_runs_and_each_reveal_before_the_next_step() -> None:
    gate = Gate()
    with run_toy(gate=gate) as server:
        body = {"prompt": {}, "stream": True}
        with ThreadPoolExecutor(1) as pool:
            opening = pool.submit(lambda: server.client.send(_request(server, body), stream=True))
            gate.wait()
            response = opening.result()
        events = events_of(response.iter_lines())
        assert next(events)[0] == "start"
        for position in range(5):
            gate.allow()
            kind, reveal = next(events)
            assert (kind, reveal["step"]) == ("reveal", position)
            if position < 4:
                gate.wait()
        assert [kind for kind, _ in events] == ["sample", "done"]
        response.close()


def _request(server: Running, body: dict[str, Any]) -> httpx.Request:
    return server.client.build_request("POST", "/generate", json=body)


def test_an_idle_stream_is_kept_alive_by_comments() -> None:
    gate = Gate()
    with (
        run_toy(gate=gate, keep_alive_seconds=0.01) as server,
        server.client.stream("POST", "/generate", json={"prompt": {}, "stream": True}) as response,
    ):
        events = events_of(response.iter_lines())
        assert next(events)[0] == "start"
        assert next(events) == (":", "keep-alive")
        assert next(events) == (":", "keep-alive")
        gate.open()
        assert [kind for kind, _ in events if kind != ":"] == ["reveal"] * 5 + ["sample", "done"]


def test_a_row_that_is_all_known_streams_start_sample_done(server: Running) -> None:
    prompt = {"age": 39, "workclass": "class 1", "income": ">50K", "hours": 3, "rate": 0.5}
    assert [kind for kind, _ in _stream(server, prompt=prompt)] == ["start", "sample", "done"]


def test_what_fails_after_the_start_ends_the_stream_with_one_error() -> None:
    model = toy_model()
    runner = toy_runner(model)

    def refuse(canvases: Any) -> None:
        if canvases[0].step == 2:
            raise RuntimeError("secret")

    runner.on_step = refuse
    with run_toy(model=model, runner=runner) as server:
        events = _stream(server, prompt={})
        assert [kind for kind, _ in events] == ["start", "reveal", "reveal", "error"]
        assert events[-1][1]["error"]["type"] == "internal"
        assert "secret" not in str(events)
        server.wait_for("unveil_request_failures_total", 1, {"reason": "internal"})
        assert server.error(server.generate(prompt={}))[:2] == (500, "internal")


def test_a_deadline_after_the_start_is_an_error_event() -> None:
    gate = Gate()
    with run_toy(gate=gate) as server:
        with server.client.stream("POST", "/generate", json={"prompt": {}, "stream": True}) as response:
            events = events_of(response.iter_lines())
            assert next(events)[0] == "start"
            server.expire()
            ((kind, data),) = events
        assert (kind, data["error"]["type"]) == ("error", "timeout")
        server.wait_for("unveil_request_failures_total", 1, {"reason": "timeout"})


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_goes_away_frees_its_place_within_one_step(is_stream: bool) -> None:
    gate = Gate()
    with run_toy(gate=gate, queue_capacity=1) as server:
        connection = _post(server, b'{"prompt": {}, "seed": 1, "stream": %s}' % str(is_stream).lower().encode())
        gate.wait()
        assert server.error(server.generate(prompt={}))[0] == 429
        connection.close()
        server.wait_for("unveil_requests_running", 0)
        with ThreadPoolExecutor(1) as pool:
            next_one = pool.submit(server.generate, prompt={}, seed=2)
            server.wait_for("unveil_requests_waiting", 1)
            gate.allow()
            assert [canvas.seed for canvas in gate.wait()] == [2]
            gate.open()
            assert next_one.result().status_code == 200
        server.wait_for("unveil_request_failures_total", 1, {"reason": "client_disconnected"})


def _post(server: Running, body: bytes, *, receive_bytes: int | None = None) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect((host, int(port)))
    head = f"POST /generate HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def _narrow(server: Running) -> None:
    """Makes the sockets of the server hold little, so that a reader who does not read is soon felt."""
    for asyncio_server in server.server.servers:
        for listening in asyncio_server.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def _read_all(connection: socket.socket) -> bytes:
    connection.settimeout(WAIT_SECONDS)
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    connection.close()
    return b"".join(parts)


def test_a_reader_too_slow_for_its_buffer_is_cut_off_with_an_error_and_its_place_is_free() -> None:
    with run_toy(stream_buffer_events=8, max_batch=16) as server:
        _narrow(server)
        connection = _post(server, b'{"prompt": {}, "num_samples": 256, "stream": true}', receive_bytes=4096)
        server.wait_for("unveil_request_seconds_count", 1)
        assert server.metric("unveil_revealed_tokens_total") < 256 * 5
        assert server.service.dispatcher.num_running == 0
        text = _read_all(connection).decode()
        assert text.count("event: error") == 1
        assert "event: done" not in text
        assert '"type":"slow_reader"' in text.rsplit("event: error", 1)[1]
        server.wait_for("unveil_request_failures_total", 1, {"reason": "client_disconnected"})
        assert server.generate(prompt={}).status_code == 200


def test_a_reader_who_takes_nothing_at_all_is_hung_up_on() -> None:
    with run_toy(stream_write_timeout_seconds=0.05, max_batch=16) as server:
        _narrow(server)
        connection = _post(server, b'{"prompt": {}, "num_samples": 256, "stream": true}', receive_bytes=4096)
        server.wait_for("unveil_request_failures_total", 1, {"reason": "client_disconnected"})
        assert server.service.dispatcher.num_running == 0
        assert b"event: done" not in _read_all(connection)
        assert server.generate(prompt={}).status_code == 200


def test_a_large_chunk_is_written_in_pieces_each_with_a_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """So only a reader who takes nothing is hung up on, not one who takes it all slowly."""
    taken: list[bytes] = []
    ends: list[bool] = []
    limits: list[float | None] = []
    timeout = asyncio.timeout

    def counting(seconds: float | None) -> asyncio.Timeout:
        limits.append(seconds)
        return timeout(WAIT_SECONDS)

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"x" * 2**20
        yield b"y"

    async def send(message: Message) -> None:
        taken.append(message.get("body", b""))

    async def receive() -> Message:
        raise AssertionError

    monkeypatch.setattr(asyncio, "timeout", counting)
    stream = EventStream(chunks(), write_timeout_seconds=0.2, on_end=ends.append)
    asyncio.run(stream({"type": "http"}, receive, send))
    pieces = taken[1:]  # behind the head
    assert b"".join(pieces) == b"x" * 2**20 + b"y"
    assert max(map(len, pieces)) <= 2**16
    assert limits == [0.2] * len(pieces)
    assert ends == [False]


def test_a_reader_who_reads_is_never_cut_off_however_small_the_buffer() -> None:
    with run_toy(stream_buffer_events=1) as server:
        kinds = [kind for kind, _ in _stream(server, prompt={}, num_samples=64)]
        assert kinds.count("reveal") == 64 * 5
        assert kinds[-1] == "done"


def test_generation_does_not_run_in_the_event_loop() -> None:
    gate = Gate()
    with run_toy(gate=gate) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.generate, prompt={})
        gate.wait()
        assert server.client.get("/health/live").status_code == 200
        gate.open()
        assert running.result().status_code == 200
        assert "unveil-engine" in {thread.name for thread in threading.enumerate()}


def test_an_event_is_one_data_line_whatever_it_holds() -> None:
    assert frame("x", {"a": "1\n2\r\u2028é"}) == 'event: x\ndata: {"a":"1\\n2\\r\u2028é"}\n\n'.encode()
