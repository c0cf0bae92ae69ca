"""Full queues, deadlines, large bodies and dead workers: everybody gets an answer."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.service.mocks import VERSION, WAIT_SECONDS, Gate, toy_catalog, toy_model, toy_runner
from tests.service.servers import Running, connect, post_score, read_reply, run_engine, run_toy, wait_until
from unveil.engine.messages import Command, Died, Emit, Generate, Loaded, Ready
from unveil.engine.request import composers
from unveil.engine.worker import MAX_FAILED_STEPS
from unveil.model.decoding.canvas import Canvas
from unveil.service.app import create_app
from unveil.service.dispatcher import EngineDiedError
from unveil.service.settings import Settings
from unveil.service.transport import unread_body


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_a_full_queue_refuses_whole_requests_says_when_to_come_back_and_recovers(gate: Gate) -> None:
    with run_toy(gate=gate, queue_capacity=4) as server, ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.generate, prompt={}, num_samples=3)
        gate.wait()
        for refused in (server.generate(prompt=[{}, {}]), server.generate(prompt={}, num_samples=2, stream=True)):
            assert server.error(refused) == (429, "overloaded", None)
            assert int(refused.headers["retry-after"]) >= 1
        second = pool.submit(server.generate, prompt={})
        server.wait_for("unveil_requests_waiting", 1)
        assert server.error(server.client.post("/order", json={"prompt": {}}))[0] == 429
        gate.open()
        assert first.result().status_code == second.result().status_code == 200
        assert server.generate(prompt={}, num_samples=4).status_code == 200
        server.wait_for("unveil_request_failures_total", 3, {"reason": "overloaded"})
        server.wait_for("unveil_requests_total", 2, {"endpoint": "/generate", "code": "429"})


def _head(path: str, size: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode()


@pytest.mark.parametrize("path", ["/generate", "/order", "/score", "/predict"])
def test_a_full_queue_refuses_before_the_body_is_there_and_the_connection_goes_on(path: str) -> None:
    gate = Gate()
    with (
        run_toy(gate=gate, queue_capacity=16) as server,
        ThreadPoolExecutor(1) as pool,
        connect(server.url) as connection,
    ):
        first = pool.submit(server.generate, prompt={}, num_samples=16)
        gate.wait()
        body = b'{"prompt": {}}'.ljust(100_000)
        connection.sendall(_head(path, len(body)))
        reply = read_reply(connection)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert json.loads(reply.read())["error"]["type"] == "overloaded"
        connection.sendall(body)
        gate.open()
        assert first.result().status_code == 200
        body = b'{"prompt": {"age": 39}}'
        connection.sendall(_head(path, len(body)) + body)
        assert read_reply(connection).status == 200


def test_what_finds_no_room_is_not_planned(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_toy(gate=gate, queue_capacity=4) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.generate, prompt={}, num_samples=3)
        gate.wait()
        for name in ("plan_generation", "plan_score"):
            monkeypatch.setattr(composers, name, lambda *_: pytest.fail("it was planned"))
        assert server.error(server.generate(prompt={}, num_samples=2)) == (429, "overloaded", None)
        assert server.error(post_score(server, prompt={"age": 39}, num_orders=4)) == (429, "overloaded", None)
        gate.open()
        assert first.result().status_code == 200


def test_whoever_comes_while_the_models_load_is_refused_before_the_body_is_there() -> None:
    with run_engine(LoadingEngine()) as server, connect(server.url) as connection:
        connection.sendall(_head("/generate", 100))
        assert read_reply(connection).status == 503


def test_a_client_that_closes_after_one_request_gets_its_reply_though_it_is_still_sending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its kernel would end the sending, were the connection closed on bytes that nobody has read."""
    monkeypatch.setattr(unread_body, "_SECONDS", WAIT_SECONDS)
    with run_engine(LoadingEngine()) as server:
        for path, status in (("/generate", 503), ("/nowhere", 404), ("/health", 405), ("/generate?stream=true", 422)):
            with connect(server.url) as connection:
                body = b" " * 10 * 2**20
                head = _head(path, len(body)).replace(b"host: x", b"host: x\r\nconnection: close")
                connection.sendall(head)
                connection.sendall(body)
                assert read_reply(connection).status == status


def test_a_request_of_exactly_the_capacity_is_taken_and_a_larger_one_is_told_so_for_good() -> None:
    with run_toy(queue_capacity=4) as server:
        assert server.generate(prompt={}, num_samples=4).status_code == 200
        assert server.error(server.generate(prompt={}, num_samples=5)) == (422, "invalid_request", "num_samples")
        assert server.error(server.generate(prompt=[{}] * 5)) == (422, "invalid_request", "prompt")


def test_a_deadline_passed_while_running_or_waiting_is_504_and_frees_the_place(gate: Gate) -> None:
    with run_toy(gate=gate, max_batch=1, queue_capacity=2) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.generate, prompt={})
        gate.wait()
        waiting = server.generate(prompt={}, stream=True, timeout_seconds=0.01)
        assert server.error(waiting) == (504, "timeout", None)
        server.expire()
        assert server.error(running.result()) == (504, "timeout", None)
        server.wait_for("unveil_request_failures_total", 2, {"reason": "timeout"})
        gate.open()
        assert server.generate(prompt={}, num_samples=2).status_code == 200


def test_the_servers_own_deadline_counts_where_the_request_names_none(gate: Gate) -> None:
    with run_toy(gate=gate, default_timeout_seconds=0.05) as server:
        assert server.error(server.generate(prompt={})) == (504, "timeout", None)


def test_ten_megabytes_are_refused_before_they_are_read_and_the_client_can_read_the_answer() -> None:
    with run_toy() as server:
        response = server.client.post("/generate", content=b" " * 10 * 2**20)
        assert server.error(response) == (413, "payload_too_large", None)
        assert server.generate(prompt={}).status_code == 200


def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(10_000):
            taken += 1
            yield b" " * 65_536

    with run_toy(max_body_bytes=200_000) as server:
        response = server.client.post("/generate", content=endless())
        assert server.error(response) == (413, "payload_too_large", None)
        assert taken < 10_000


def test_a_client_that_sends_to_the_end_before_it_reads_still_gets_its_413() -> None:
    with run_toy() as server, connect(server.url) as connection:
        body = b" " * 10 * 2**20
        connection.sendall(b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
        connection.sendall(body)
        assert read_reply(connection).status == 413


def test_a_declared_length_is_refused_without_a_byte_of_the_body() -> None:
    with run_toy() as server, connect(server.url) as connection:
        head = "POST /generate HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n"
        connection.sendall(head.encode())
        assert read_reply(connection).status == 413


def test_a_body_of_exactly_the_limit_is_read() -> None:
    with run_toy(max_body_bytes=1000) as server:
        body = json.dumps({"prompt": {}}).encode().ljust(1000)
        assert server.client.post("/generate", content=body).status_code == 200
        assert server.client.post("/generate", content=body + b" ").status_code == 413


def test_a_failing_request_fails_alone_in_the_batch_it_shares() -> None:
    model, gate = toy_model(), Gate()

    def refuse(canvases: Sequence[Canvas]) -> None:
        gate(canvases)
        if any(canvas.seed == 13 for canvas in canvases):
            raise RuntimeError("secret")

    with run_toy(model=model, runner=toy_runner(model, refuse)) as server, ThreadPoolExecutor(4) as pool:
        good = [pool.submit(server.generate, prompt={}, seed=1)]
        gate.wait()
        bad = pool.submit(server.generate, prompt={}, seed=13)
        good += [pool.submit(server.generate, prompt={}, seed=seed) for seed in (2, 3)]
        server.wait_for("unveil_requests_waiting", 3)
        gate.open()
        assert server.error(bad.result()) == (500, "internal", None)
        assert "secret" not in bad.result().text
        for seed, future in zip((1, 2, 3), good, strict=True):
            (sample,) = future.result().json()["samples"]
            assert sample["reveals"] == server.generate(prompt={}, seed=seed).json()["samples"][0]["reveals"]


def _die(canvases: Sequence[Canvas]) -> None:
    raise SystemExit


def _fail(canvases: Sequence[Canvas]) -> None:
    raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize("end", [_die, _fail])
def test_an_engine_that_ends_answers_everybody_who_waits_and_ends_the_process(
    gate: Gate, end: Callable[[Sequence[Canvas]], None], capfd: pytest.CaptureFixture[str]
) -> None:
    model, num_requests = toy_model(), MAX_FAILED_STEPS + 4

    def on_step(canvases: Sequence[Canvas]) -> None:
        gate(canvases)
        end(canvases)

    runner = toy_runner(model, on_step)
    with run_toy(model=model, runner=runner, max_batch=1) as server, ThreadPoolExecutor(num_requests) as pool:
        requests = [pool.submit(server.generate, prompt={}, seed=seed) for seed in range(num_requests)]
        gate.wait()
        server.wait_for("unveil_requests_waiting", num_requests - 1)
        gate.open()
        assert [server.error(request.result()) for request in requests] == [(500, "internal", None)] * num_requests
        wait_until(lambda: server.server.should_exit)
        assert server.metric("unveil_ready") == 0
    assert server.server.exit_code == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: ")


def test_while_the_process_of_a_dead_engine_ends_it_is_not_live_and_takes_no_requests() -> None:
    async def ask() -> list[int]:
        engine = SilentEngine()
        app = create_app(Settings(), engine=engine, catalog=toy_catalog())
        transport = httpx.ASGITransport(app)
        client = httpx.AsyncClient(transport=transport, base_url="http://x")
        async with app.router.lifespan_context(app), client:
            await app.state.service.dispatcher.wait_until_ready()
            before = await client.get("/health/live")
            engine.emit([Died("out of order")])
            with pytest.raises(EngineDiedError, match="out of order"):
                await app.state.service.dispatcher.wait_until_dead()
            paths = ("/health/live", "/health/ready", "/health")
            after = [await client.get(path) for path in paths]
            generate = await client.post("/generate", json={"prompt": {}})
            return [response.status_code for response in (before, *after, generate)]

    assert asyncio.run(ask()) == [200, 503, 503, 503, 503]


class SilentEngine:
    """Loads, takes everything, says nothing more, and stops being alive when told."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.is_up = True

    def start(self, emit: Emit) -> None:
        self.emit = emit
        emit([Loaded("toy", VERSION, "cpu", True), Ready()])

    def send(self, command: Command) -> None:
        self.sent.append(command)
        if isinstance(command, Generate):
            self.is_up = False

    def is_alive(self) -> bool:
        return self.is_up

    def join(self, timeout_seconds: float) -> None:
        pass


class LoadingEngine(SilentEngine):
    """Never gets its models loaded."""

    def start(self, emit: Emit) -> None:
        pass


def test_a_worker_that_ends_without_a_word_is_noticed_and_everybody_answered() -> None:
    with run_engine(SilentEngine(), is_ready=True) as server:
        assert server.error(server.generate(prompt={})) == (500, "internal", None)
        wait_until(lambda: server.server.should_exit)
    assert server.server.exit_code == 1


def test_a_worker_that_hangs_is_not_live_and_is_again_when_it_goes_on(gate: Gate) -> None:
    with run_toy(gate=gate, worker_timeout_seconds=60) as server, ThreadPoolExecutor(1) as pool:
        request = pool.submit(server.generate, prompt={}, timeout_seconds=600)
        gate.wait()
        server.skip(61)
        _until(server, "/health/live", 503)
        assert server.error(server.client.get("/health/ready")) == (503, "not_ready", None)
        gate.open()
        assert request.result().status_code == 200
        _until(server, "/health/ready", 200)


def _until(server: Running, path: str, status: int) -> None:
    wait_until(lambda: server.client.get(path).status_code == status)
