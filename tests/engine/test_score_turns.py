"""POST /score under load: it takes its turn, its leave and its blame."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.service.mocks import Gate, toy_model, toy_runner
from tests.service.servers import connect, post_score, run_toy, score_reply
from unveil.model.decoding.canvas import Canvas

PROMPT = {"age": 39, "income": ">50K", "rate": 0.5}
WHOLE = {"age": 39, "workclass": "[MISSING]", "income": ">50K", "hours": 3, "rate": 0.5}


def test_a_full_queue_says_when_to_come_back_and_orders_take_places_as_samples_do() -> None:
    gate = Gate()
    with run_toy(gate=gate, queue_capacity=16) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(post_score, server, prompt=PROMPT)
        gate.wait()
        for refused in (post_score(server, prompt=PROMPT, order="margin"), server.generate(prompt={})):
            assert server.error(refused) == (429, "overloaded", None)
            assert int(refused.headers["retry-after"]) >= 1
        gate.open()
        assert running.result().status_code == 200
        assert post_score(server, prompt=PROMPT).status_code == 200


def test_a_deadline_passed_is_504_and_frees_the_place() -> None:
    gate = Gate()
    with run_toy(gate=gate, queue_capacity=16) as server:
        assert server.error(post_score(server, prompt=PROMPT, timeout_seconds=0.05)) == (504, "timeout", None)
        server.wait_for("unveil_request_failures_total", 1, {"reason": "timeout"})
        gate.open()
        assert post_score(server, prompt=PROMPT).status_code == 200


def test_a_client_that_goes_away_frees_its_place_and_its_work_stops() -> None:
    gate = Gate()
    model = toy_model()
    runner = toy_runner(model, gate)
    with run_toy(model=model, runner=runner, queue_capacity=16, max_batch=1) as server:
        body = b'{"prompt": {"age": 39, "hours": 3}, "num_orders": 16}'
        with connect(server.url) as connection:
            connection.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            gate.wait()
            server.wait_for("unveil_requests_running", 1)
        server.wait_for("unveil_requests_running", 0)
        server.wait_for("unveil_request_failures_total", 1, {"reason": "client_disconnected"})
        gate.open()
        assert post_score(server, prompt=PROMPT).status_code == 200
        assert sum(map(len, runner.scored)) == 1 + 48


def test_a_long_score_and_a_generation_advance_together() -> None:
    gate = Gate()
    with run_toy(gate=gate, max_batch=1) as server, ThreadPoolExecutor(2) as pool:
        long = pool.submit(post_score, server, prompt=[WHOLE] * 20, num_orders=10)
        gate.wait()
        short = pool.submit(server.generate, prompt={})
        server.wait_for("unveil_requests_waiting", 1)
        gate.allow(200)  # of the thousand that the score needs
        assert short.result().status_code == 200
        assert not long.done()
        gate.open()
        assert long.result().status_code == 200


def test_a_drain_lets_a_score_finish_and_takes_no_new_one() -> None:
    gate = Gate()
    with run_toy(gate=gate) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(post_score, server, prompt=PROMPT)
        gate.wait()
        server.server.handle_exit(15, None)
        server.wait_for("unveil_draining", 1)
        assert server.error(post_score(server, prompt=PROMPT)) == (503, "draining", None)
        gate.open()
        assert running.result().status_code == 200


def test_one_bad_score_fails_alone_and_the_engine_lives() -> None:
    model, gate = toy_model(), Gate()

    def refuse(canvases: Sequence[Canvas]) -> None:
        gate(canvases)
        if any(canvas.seed == 13 for canvas in canvases):
            raise RuntimeError("secret")

    with run_toy(model=model, runner=toy_runner(model, refuse)) as server, ThreadPoolExecutor(4) as pool:
        good = [pool.submit(score_reply, server, prompt=PROMPT, seed=1)]
        gate.wait()
        bad = pool.submit(post_score, server, prompt=PROMPT, seed=13)
        good += [pool.submit(score_reply, server, prompt=PROMPT, seed=seed) for seed in (2, 3)]
        server.wait_for("unveil_requests_waiting", 3)
        gate.open()
        assert server.error(bad.result()) == (500, "internal", None)
        assert "secret" not in bad.result().text
        for seed, future in zip((1, 2, 3), good, strict=True):
            assert future.result()["scores"] == score_reply(server, prompt=PROMPT, seed=seed)["scores"]
        assert server.client.get("/health/live").status_code == 200
