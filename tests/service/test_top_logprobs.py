"""Requests with `top_logprobs`: the unmodified model's likeliest tokens at each reveal, streamed and whole."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.servers import Running, events_of, run_toy

FIELDS: dict[str, Any] = {"prompt": [{}, {"hours": 2}], "num_samples": 2, "seed": 5}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with run_toy() as running:
        yield running


@pytest.mark.parametrize("order", ["learned", "confidence"])
@pytest.mark.parametrize("more", [{}, {"temperature": 0.5, "top_k": 2}, {"where": {"income": ">50K"}}])
def test_they_are_the_likeliest_of_the_unmodified_model_and_change_nothing(
    server: Running, order: str, more: dict[str, Any]
) -> None:
    fields = {**FIELDS, **more, "order": order}
    plain, told = server.generate(**fields).json(), server.generate(**fields, top_logprobs=20).json()
    for without, sample in zip(plain["samples"], told["samples"], strict=True):
        for reveal in sample["reveals"]:
            top = reveal.pop("top_logprobs")
            logprobs = [own["logprob"] for own in top]
            assert logprobs == sorted(logprobs, reverse=True)
            if len(top) < 20:
                assert math.fsum(map(math.exp, logprobs)) == pytest.approx(1.0)
            (drawn,) = [own for own in top if own["token_id"] == reveal["token_id"]]
            assert drawn == {name: reveal[name] for name in ("token_id", "token", "logprob")}
        assert sample == without


def test_the_likeliest_comes_first_and_is_what_temperature_0_takes(server: Running) -> None:
    reply = server.generate(**FIELDS, temperature=0, top_logprobs=3).json()
    for sample in reply["samples"]:
        for reveal in sample["reveals"]:
            assert reveal["top_logprobs"][0]["token_id"] == reveal["token_id"]
            assert len(reveal["top_logprobs"]) <= 3


def test_streamed_they_are_the_same(server: Running) -> None:
    fields = {**FIELDS, "top_logprobs": 2}
    whole = server.generate(**fields).json()
    with server.client.stream("POST", "/generate", json={**fields, "stream": True}) as response:
        events = list(events_of(response.iter_lines()))
    for sample in whole["samples"]:
        place = {name: sample[name] for name in ("prompt_index", "sample_index")}
        own = [data for kind, data in events if kind == "reveal" and place.items() <= data.items()]
        assert own == [{**place, **reveal} for reveal in sample["reveals"]]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"top_logprobs": 2, "logprobs": False}, "top_logprobs and logprobs false exclude each other"),
    ],
)
def test_a_mistake_names_the_field(server: Running, fields: dict[str, Any], line: str) -> None:
    reply = server.generate(prompt={}, **fields)
    assert reply.status_code == 422
    assert reply.json()["error"]["param"] == "top_logprobs"
    assert line in reply.json()["error"]["message"]
