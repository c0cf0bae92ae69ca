"""A crowd that streams, waits, goes away and runs out of time: everybody is answered, and nothing is left behind."""

import random
from concurrent.futures import ThreadPoolExecutor

from tests.service.servers import Running, events_of, run_toy, wait_until

NUM_CLIENTS = 120
NAME = "unveil_requests_total"


def _visit(server: Running, number: int) -> str:
    """One client's visit, and how it ended."""
    chance = random.Random(number)
    body = {"prompt": {}, "seed": number, "num_samples": chance.randint(1, 6), "stream": chance.random() < 0.6}
    if chance.random() < 0.2:
        body["timeout_seconds"] = 0.002
    with server.client.stream("POST", "/generate", json=body) as response:
        if response.status_code != 200:
            response.read()
            return str(response.status_code)
        if not body["stream"]:
            response.read()
            assert len(response.json()["samples"]) == body["num_samples"]
            return "whole"
        kinds = []
        for kind, _ in events_of(response.iter_lines()):
            kinds.append(kind)
            if len(kinds) == 4 and chance.random() < 0.3:
                return "gone"
    assert kinds[0] == "start"
    assert kinds[-1] in ("done", "error")
    assert kinds.count("done") + kinds.count("error") == 1
    assert kinds[-1] == "error" or kinds.count("sample") == body["num_samples"]
    return kinds[-1]


def _labels(code: int) -> dict[str, str]:
    return {"endpoint": "/generate", "code": str(code)}


def test_everybody_in_a_crowd_is_answered_and_every_place_is_free_again() -> None:
    with run_toy(queue_capacity=48, max_batch=8) as server, ThreadPoolExecutor(24) as pool:
        ends = list(pool.map(lambda number: _visit(server, number), range(NUM_CLIENTS)))
        server.wait_for("unveil_requests_running", 0)
        server.wait_for("unveil_requests_waiting", 0)
        assert set(ends) <= {"whole", "done", "gone", "error", "429", "504"}
        assert {"whole", "done"} <= set(ends)
        wait_until(lambda: sum(server.metric(NAME, _labels(code)) for code in (200, 429, 499, 504)) == NUM_CLIENTS)
        assert server.metric("unveil_request_failures_total", {"reason": "internal"}) == 0
        assert server.generate(prompt={}, num_samples=48).status_code == 200
