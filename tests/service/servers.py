"""Real servers on free ports, for tests that speak HTTP."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

import httpx
from fastapi import FastAPI

from tests.service.mocks import WAIT_SECONDS, Gate, MockRunner, toy_catalog, toy_engine, toy_model, toy_runner
from unveil.engine.catalog import ServedModel, find_sources, load_catalog
from unveil.engine.messages import EnginePort
from unveil.service.app import create_app
from unveil.service.routes import Service
from unveil.service.server import Server, build_engine, open_socket
from unveil.service.settings import Settings

# What the service itself gives up on, long enough for a busy machine; what a client leaves behind still ends.
PATIENT: Mapping[str, Any] = {
    "default_timeout_seconds": 600.0,
    "stream_write_timeout_seconds": 600.0,
    "idle_connection_seconds": 600,
    "drain_timeout_seconds": 300.0,
    "worker_timeout_seconds": WAIT_SECONDS,
}


def patient(**settings: Any) -> Settings:
    """Settings with `PATIENT` for what is not given."""
    return Settings(**{**PATIENT, **settings})


def as_prompt(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row that came out as a prompt has it, where null is hidden and a missing value has a name."""
    return {name: "[MISSING]" if value is None else value for name, value in row.items()}


@dataclass(frozen=True)
class Running:
    """A server that answers at `url`, with a client for it."""

    server: Server
    app: FastAPI
    url: str
    client: httpx.Client

    @property
    def service(self) -> Service:
        service = self.app.state.service
        assert isinstance(service, Service)
        return service

    def generate(self, **fields: Any) -> httpx.Response:
        return self.client.post("/generate", json=fields)

    def error(self, response: httpx.Response) -> tuple[int, str, str | None]:
        """(status, type, param) of a reply in the error shape, which it must have."""
        body = response.json()
        assert set(body) == {"error"}
        assert set(body["error"]) == {"type", "message", "param"}
        assert body["error"]["message"]
        assert "\n" not in body["error"]["message"]
        assert "Traceback" not in response.text
        return response.status_code, body["error"]["type"], body["error"]["param"]

    def metric(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        value = self.service.metrics.registry.get_sample_value(name, dict(labels or {}))
        return 0.0 if value is None else value

    def expire(self) -> None:
        """As if every request's deadline had passed just now."""
        dispatcher = self.service.dispatcher

        def expire() -> None:
            for pending in tuple(dispatcher._pending.values()):
                dispatcher._expire(pending, 0.0)

        dispatcher._loop.call_soon_threadsafe(expire)

    def skip(self, seconds: float) -> None:
        """Sets the clock of the server's event loop ahead, of what it was set to before."""
        loop = self.service.dispatcher._loop

        def skip() -> None:
            before = loop.time
            setattr(loop, "time", lambda: before() + seconds)  # noqa: B010

        loop.call_soon_threadsafe(skip)

    def wait_for(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """Asks until a metric has a value; fails after a while. A reply is counted just after it was sent."""
        wait_until(lambda: self.metric(name, labels) == value)


def connect(url: str) -> socket.socket:
    """A connection to a server, for tests that write HTTP by hand."""
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=WAIT_SECONDS)


def read_reply(connection: socket.socket) -> HTTPResponse:
    """The next reply on a connection; its body is to be read from it."""
    reply = HTTPResponse(connection)
    reply.begin()
    return reply


def wait_until(is_so: Callable[[], bool]) -> None:
    """Asks until something is so; fails after a while."""
    for _ in range(int(WAIT_SECONDS * 100)):
        if is_so():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came to be so")


@contextmanager
def run_app(app: FastAPI, settings: Settings, *, is_ready: bool = True) -> Iterator[Running]:
    """Serves an app from a thread; gives it when it is ready (or listening, at least), and ends it."""
    server = Server(app, settings)
    with open_socket("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=WAIT_SECONDS) as client:
                if is_ready:
                    wait_until(lambda: client.get("/health/ready").status_code == 200)
                yield Running(server, app, url, client)
        finally:
            server.should_exit = True
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()


@contextmanager
def run_toy(
    *, gate: Gate | None = None, runner: MockRunner | None = None, model: ServedModel | None = None, **settings: Any
) -> Iterator[Running]:
    """A server of one mock model."""
    model = model or toy_model()
    runner = runner or (toy_runner(model) if gate is None else toy_runner(model, gate))
    chosen = patient(**settings)
    engine = toy_engine({model.name: runner}, max_batch=chosen.max_batch)
    app = create_app(chosen, engine=engine, catalog=toy_catalog(model))
    with run_app(app, chosen) as running:
        try:
            yield running
        finally:
            if gate is not None:
                gate.open()


@contextmanager
def run_engine(engine: EnginePort, *models: ServedModel, is_ready: bool = False, **settings: Any) -> Iterator[Running]:
    """A server of any engine, ready or not."""
    chosen = patient(**settings)
    app = create_app(chosen, engine=engine, catalog=toy_catalog(*models))
    with run_app(app, chosen, is_ready=is_ready) as running:
        yield running


@contextmanager
def run_artifacts(**settings: Any) -> Iterator[Running]:
    """A server of the artifacts that its settings name, as `unveil serve` has it, in a thread of this process."""
    chosen = patient(**settings)
    sources = find_sources(chosen.artifacts, checkpoints=chosen.checkpoints)
    app = create_app(chosen, engine=build_engine(sources, chosen), catalog=load_catalog(sources))
    with run_app(app, chosen) as running:
        yield running


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """(event, data) of a stream of server-sent events as it comes; a comment is (":", its text)."""
    event = ""
    for line in lines:
        if line.startswith(":"):
            yield ":", line[1:].strip()
        elif line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def post_score(server: Running, **fields: Any) -> httpx.Response:
    return server.client.post("/score", json=fields)


def score_reply(server: Running, **fields: Any) -> dict[str, Any]:
    """The body of an answered request."""
    response = post_score(server, **fields)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply
