"""500 random requests, of every bundled model, order and parameter: the same alone, in batches, streamed, restarted.

The crowds come in different orders, over several connections, in whole replies and in streams.
"""

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.model.artifacts import text_tokenizer, write_artifact
from tests.service.servers import Running, events_of, run_artifacts

NUM_REQUESTS = 500
ORDERS = ("learned", "uniform", "left_to_right", "right_to_left", "confidence", "margin", "entropy")
COLUMNS: dict[str, Any] = {"age": 39, "sex": "Female", "education": "Masters", "hours-per-week": 40, "income": ">50K"}
GRID = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def _prompt(draws: random.Random) -> tuple[str, Any]:
    """A model and a prompt for it."""
    model = draws.choice(["adult"] * 5 + ["words"] * 4 + ["sudoku"])  # by what a step of each costs
    if model == "adult":
        known = draws.sample(sorted(COLUMNS), draws.randint(0, 5))
        return model, {name: COLUMNS[name] for name in known}
    if model == "words":
        return model, f"{'ab ' * draws.randint(0, 5)}[MASK:{draws.randint(1, 20)}]"
    holes = draws.sample(range(81), draws.randint(1, 4))
    return model, "".join("." if i in holes else digit for i, digit in enumerate(GRID))


def _requests() -> list[dict[str, Any]]:
    draws = random.Random(5)
    requests = []
    for _ in range(NUM_REQUESTS):
        model, prompt = _prompt(draws)
        request = {"model": model, "prompt": prompt, "seed": draws.randrange(2**53), "order": draws.choice(ORDERS)}
        pace: dict[str, Any] = draws.choice(
            [{}, {}, {"tokens_per_step": draws.randint(1, 4)}, {"steps": draws.randint(1, 9)}, {"threshold": 0.4}]
        )
        if request["order"] == "learned":
            pace = {**pace, "order_temperature": draws.choice([0, 0.7, 1, 2])}
        tokens = {"temperature": draws.choice([0, 0.6, 1, 1.5]), "top_k": draws.choice([None, None, 3])}
        requests.append({**request, **pace, **tokens, "top_p": draws.choice([None, None, 0.8])})
        if "order_temperature" not in pace and draws.random() < 0.1:
            requests[-1] |= {"prompt": "[MASK:9]", "model": "words", "order": draws.sample(range(9), 9)}
    return requests


REQUESTS = _requests()


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("artifacts")
    write_artifact(folder / "words", tokenizer=text_tokenizer(), kind="contextual")
    bundled = Path(__file__).resolve().parents[2] / "checkpoints"
    return (str(bundled / "adult"), str(bundled / "sudoku"), str(folder / "words"))


def _serve(artifacts: tuple[str, ...]) -> Any:
    return run_artifacts(artifacts=artifacts, max_batch=32)


@pytest.fixture(scope="module")
def server(artifacts: tuple[str, ...]) -> Iterator[Running]:
    with _serve(artifacts) as running:
        yield running


@pytest.fixture(scope="module")
def alone(server: Running) -> list[Any]:
    return [_whole(server, request) for request in REQUESTS]


def _whole(server: Running, request: dict[str, Any]) -> Any:
    response = server.generate(**request)
    assert response.status_code == 200, response.text
    reply = response.json()
    return [reply["samples"], reply["usage"]]


def _streamed(server: Running, request: dict[str, Any]) -> Any:
    with server.client.stream("POST", "/generate", json={**request, "stream": True}) as response:
        events = list(events_of(response.iter_lines()))
    samples = [data for kind, data in events if kind == "sample"]
    assert [{k: reveal[k] for k in samples[0]["reveals"][0]} for kind, reveal in events if kind == "reveal"] == (
        samples[0]["reveals"]
    )
    return [samples, events[-1][1]["usage"]]


def _crowd(server: Running, order: Sequence[int], *, is_streamed: bool = False) -> list[Any]:
    """All requests, 24 at a time, in this order; the answers in the requests' own."""
    ask = _streamed if is_streamed else _whole
    with ThreadPoolExecutor(24) as pool:
        found = dict(zip(order, pool.map(lambda i: ask(server, REQUESTS[i]), order), strict=True))
    return [found[i] for i in range(len(REQUESTS))]


def _shuffled(seed: int) -> list[int]:
    return random.Random(seed).sample(range(len(REQUESTS)), len(REQUESTS))


def test_the_requests_are_of_every_kind(alone: list[Any]) -> None:
    assert len(REQUESTS) == NUM_REQUESTS
    assert {request["model"] for request in REQUESTS} == {"adult", "sudoku", "words"}
    assert {str(request["order"]) for request in REQUESTS} >= set(ORDERS)
    for field in ("tokens_per_step", "steps", "threshold", "top_k", "top_p"):
        assert sum(request.get(field) is not None for request in REQUESTS) > 30, field
    assert len({json.dumps(samples) for samples, _ in alone}) > NUM_REQUESTS * 0.9


def test_in_one_batch_and_in_another_they_are_as_alone(server: Running, alone: list[Any]) -> None:
    assert _crowd(server, range(len(REQUESTS))) == alone
    assert _crowd(server, _shuffled(1)) == alone


def test_streamed_they_are_as_alone(server: Running, alone: list[Any]) -> None:
    assert _crowd(server, _shuffled(2), is_streamed=True) == alone


def test_after_a_restart_they_are_as_before(artifacts: tuple[str, ...], alone: list[Any]) -> None:
    with _serve(artifacts) as again:
        assert _crowd(again, _shuffled(3)) == alone
