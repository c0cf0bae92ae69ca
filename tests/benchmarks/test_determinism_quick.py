"""The bundled models, asked in every way: alone, together, streamed, after a restart and after eviction."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.benchmarks.quick import run
from unveil.benchmarks.serving import determinism
from unveil.benchmarks.serving.clients.served import Served
from unveil.model.decoding.canvas import ORDER_POLICIES


def test_random_requests_of_every_domain_get_the_same_bytes_in_every_way() -> None:
    report = run("determinism")
    assert sum(report["requests"].values()) == determinism.QUICK_REQUESTS
    assert report["requests"].keys() == determinism.SHARES.keys()
    assert report["different_answers"] > 0.9 * determinism.QUICK_REQUESTS
    assert len(report["agreeing"]) == 4
    assert all(found == report["requests"] for found in report["agreeing"].values())
    assert report["agree"] is True


def test_the_requests_are_of_every_order_and_parameter_and_the_same_every_time() -> None:
    requests = determinism.draw_requests(determinism.REQUESTS)
    assert requests == determinism.draw_requests(determinism.REQUESTS)
    assert len(requests) == determinism.REQUESTS
    orders = {"explicit" if isinstance(own["order"], list) else own["order"] for own in requests}
    assert orders == set(ORDER_POLICIES)
    for field in ("tokens_per_step", "steps", "threshold", "order_temperature", "top_k", "top_p"):
        assert sum(own.get(field) is not None for own in requests) > 30, field


def test_one_answer_that_differs_is_found_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Servers that answer as alone, but one request in one way."""
    num, ways = 40, iter(range(4))

    def crowd(server: Served, requests: Sequence[Any], order: Sequence[int], **_: bool) -> list[Any]:
        assert sorted(order) == list(range(num))
        way = next(ways)
        return [-1 if way == 2 and i == 11 else i for i in range(len(requests))]

    class Nothing:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(determinism, "crowd", crowd)
    monkeypatch.setattr(determinism, "served", lambda *_, **__: Nothing())
    monkeypatch.setattr(determinism, "answers_alone", lambda requests: list(range(len(requests))))
    monkeypatch.setattr("sys.argv", ["determinism", "--quick"])
    with pytest.raises(SystemExit) as ended:
        determinism.main()
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "NOT all agree" in said
    assert "streamed: 39" in said


def test_the_order_in_which_they_are_asked_is_not_that_of_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(determinism, "_whole", lambda port, request: request["seed"])
    requests = [{"seed": seed} for seed in range(50)]
    order = random.Random(0).sample(range(50), 50)
    assert determinism.crowd(Served(0, 0), requests, order) == list(range(50))
