"""Live, ready and draining are three things, and the socket is open through all of them."""

import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.service.mocks import VERSION, WAIT_SECONDS, Gate, MockRunner, toy_model, toy_runner
from tests.service.servers import Running, events_of, run_engine, run_toy, wait_until
from unveil.engine.messages import Loaded
from unveil.engine.thread import Engine


class SlowLoad:
    """An engine's `load` that waits for leave."""

    def __init__(self) -> None:
        self.leave = threading.Event()

    def __call__(self) -> Iterable[tuple[Loaded, MockRunner]]:
        assert self.leave.wait(WAIT_SECONDS)
        yield Loaded("toy", VERSION, "cpu", False), toy_runner(toy_model())


def _statuses(server: Running) -> dict[str, int]:
    paths = ("/health/live", "/health/ready", "/health")
    return {path: server.client.get(path).status_code for path in paths}


def test_while_the_models_load_the_socket_answers_live_but_not_ready_and_takes_no_requests() -> None:
    load = SlowLoad()
    with run_engine(Engine(load, max_batch=1)) as server:
        assert _statuses(server) == {"/health/live": 200, "/health/ready": 503, "/health": 503}
        early = server.generate(prompt={})
        assert server.error(early) == (503, "not_ready", None)
        assert int(early.headers["retry-after"]) >= 1
        assert server.error(server.client.get("/v1/models")) == (503, "not_ready", None)
        assert server.metric("unveil_ready") == 0
        load.leave.set()
        wait_until(lambda: server.client.get("/health/ready").status_code == 200)
        assert server.generate(prompt={}).status_code == 200
        assert server.client.get("/v1/models").json()["data"][0]["deterministic"] is False
        assert server.metric("unveil_ready") == 1


def test_a_model_that_is_loaded_answers_while_others_load_and_ready_is_said_of_all() -> None:
    leave = threading.Event()
    models = [toy_model("first"), toy_model("second")]

    def load() -> Iterator[tuple[Loaded, MockRunner] | None]:
        yield Loaded("first", VERSION, "cpu", True), toy_runner(models[0])
        while not leave.wait(0.001):
            yield None
        yield Loaded("second", VERSION, "cpu", True), toy_runner(models[1])

    with run_engine(Engine(load, max_batch=1), *models) as server:
        wait_until(lambda: server.generate(prompt={}).status_code == 200)
        assert server.generate(model="first", prompt={}, num_samples=3).status_code == 200
        early = server.generate(model="second", prompt={})
        assert server.error(early) == (503, "not_ready", None)
        assert early.json()["error"]["message"] == "second is still being loaded"
        assert server.error(server.generate(model="third", prompt={})) == (404, "model_not_found", "model")
        assert _statuses(server) == {"/health/live": 200, "/health/ready": 503, "/health": 503}
        assert server.error(server.client.get("/v1/models")) == (503, "not_ready", None)
        assert server.metric("unveil_ready") == 0
        leave.set()
        wait_until(lambda: server.client.get("/health/ready").status_code == 200)
        assert server.generate(model="second", prompt={}).status_code == 200


def test_a_drain_lets_running_requests_finish_behind_an_open_socket_and_takes_no_new_ones() -> None:
    gate = Gate()
    with run_toy(gate=gate) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.generate, prompt={})
        gate.wait()
        server.server.handle_exit(signal.SIGTERM, None)
        server.wait_for("unveil_draining", 1)
        assert _statuses(server) == {"/health/live": 200, "/health/ready": 503, "/health": 503}
        refused = server.generate(prompt={})
        assert server.error(refused) == (503, "draining", None)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["connection"] == "close"
        assert server.metric("unveil_ready") == 0
        gate.open()
        assert running.result().status_code == 200
    assert server.server.exit_code == 0


def test_what_does_not_finish_in_time_is_answered_all_the_same() -> None:
    gate = Gate()
    with run_toy(gate=gate, drain_timeout_seconds=0.05, max_batch=1) as server, ThreadPoolExecutor(2) as pool:
        streaming = pool.submit(_stream, server)
        gate.wait()
        waiting = pool.submit(server.generate, prompt={})
        server.wait_for("unveil_requests_waiting", 1)
        server.server.handle_exit(signal.SIGTERM, None)
        assert server.error(waiting.result()) == (503, "draining", None)
        events = streaming.result()
        assert [kind for kind, _ in events] == ["start", "error"]
        assert events[-1][1]["error"]["type"] == "draining"
    assert server.server.exit_code == 0


def _stream(server: Running) -> list[tuple[str, Any]]:
    with server.client.stream("POST", "/generate", json={"prompt": {}, "stream": True}) as response:
        return list(events_of(response.iter_lines()))


def test_an_idle_server_ends_at_once() -> None:
    with run_toy() as server:
        server.server.handle_exit(signal.SIGINT, None)
        wait_until(lambda: server.server.should_exit)
    assert server.server.exit_code == 0


def test_a_second_signal_hurries() -> None:
    gate = Gate()
    with run_toy(gate=gate, drain_timeout_seconds=WAIT_SECONDS) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(_status_or_none, server)
        gate.wait()
        server.server.handle_exit(signal.SIGTERM, None)
        server.wait_for("unveil_draining", 1)
        server.server.handle_exit(signal.SIGTERM, None)
        gate.open()
        assert running.result() in (200, 503, None)
    assert server.server.exit_code == 0


def _status_or_none(server: Running) -> int | None:
    try:
        return server.generate(prompt={}).status_code
    except httpx.TransportError:
        return None


def test_an_artifact_that_cannot_be_loaded_ends_the_server_with_one_line_and_exit_code_1(capfd: Any) -> None:
    def load() -> Iterable[tuple[Loaded, MockRunner]]:
        raise ValueError("weights\nof another network")

    with run_engine(Engine(load, max_batch=1)) as server:
        wait_until(lambda: server.server.should_exit)
    assert server.server.exit_code == 1
    assert "error: ValueError: weights of another network\n" in capfd.readouterr().err


def test_what_answers_get_answers_head_with_the_same_status_and_no_body() -> None:
    with run_toy() as server:
        for path in ("/", "/docs", "/health", "/health/live", "/health/ready", "/metrics", "/v1/models"):
            head = server.client.head(path)
            assert (head.status_code, head.content) == (200, b""), path
            assert head.headers["content-type"] == server.client.get(path).headers["content-type"]
        assert server.client.head("/generate").status_code == 405
        assert "head" not in server.client.get("/openapi.json").json()["paths"]["/health"]
