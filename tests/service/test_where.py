"""Requests with `where`: what comes back meets it, says how likely it was, and is the same streamed and alone."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.servers import Running, events_of, run_toy

WHERE = {"income": ">50K", "age": {"min": 30, "max": 55}, "workclass": {"not": ["class 1", None]}}
FIELDS: dict[str, Any] = {"prompt": [{}, {"hours": 2}], "num_samples": 4, "seed": 5, "where": WHERE}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with run_toy() as running:
        yield running


@pytest.mark.parametrize("order", ["learned", "uniform", "confidence"])
def test_every_sample_meets_the_condition_and_the_reply_says_how_likely_it_was(server: Running, order: str) -> None:
    reply = server.generate(**FIELDS, order=order).json()
    for sample in reply["samples"]:
        row = sample["output"]
        assert row["income"] == ">50K"
        assert 30 <= row["age"] <= 55
        assert row["workclass"] in ("class 0", "class 2", "class 3")
        assert {reveal["name"] for reveal in sample["reveals"][:3]} == set(WHERE)
        assert [reveal["step"] for reveal in sample["reveals"]] == list(range(len(sample["reveals"])))
    assert len(reply["condition"]) == 2
    for found in reply["condition"]:
        assert 0 < found["probability"] < 1
        assert found["exact_samples"] == 4 <= found["attempts"]
        assert 0 < found["effective_samples"] <= found["attempts"]
        assert found["standard_error"] is not None
    attempts = sum(found["attempts"] for found in reply["condition"])
    assert reply["usage"]["denoising_steps"] == 3 * attempts + 4 * 2 + 4 * 1, (
        "three positions of each attempt, the rest once"
    )
    assert reply["usage"]["generated_tokens"] == 4 * 5 + 4 * 4


def test_streamed_it_is_the_same_and_nothing_is_taken_back(server: Running) -> None:
    whole = server.generate(**FIELDS).json()
    with server.client.stream("POST", "/generate", json={**FIELDS, "stream": True}) as response:
        events = list(events_of(response.iter_lines()))
    samples = [data for kind, data in events if kind == "sample"]
    assert sorted(samples, key=lambda s: (s["prompt_index"], s["sample_index"])) == whole["samples"]
    assert {kind for kind, _ in events} == {"start", "reveal", "sample", "done"}
    assert events[-1][1]["condition"] == whole["condition"]
    alone = server.generate(**{**FIELDS, "prompt": {}, "num_samples": 1, "seed": whole["samples"][2]["seed"]}).json()
    assert alone["samples"][0]["output"] == whole["samples"][2]["output"]


def test_one_set_takes_one_attempt_and_its_probability_is_exact(server: Running) -> None:
    (found,) = server.generate(prompt={}, where={"income": ">50K"}, seed=1).json()["condition"]
    assert (found["attempts"], found["exact_samples"], found["standard_error"]) == (1, 1, 0.0)


def test_when_attempts_run_out_the_reply_says_that_samples_are_not_exact(server: Running) -> None:
    fields = {**FIELDS, "prompt": {}, "num_samples": 20, "attempts": 1}
    reply = server.generate(**fields).json()
    (found,) = reply["condition"]
    assert (found["attempts"], len(reply["samples"])) == (20, 20)
    assert found["exact_samples"] < 20
    assert all(sample["output"]["income"] == ">50K" for sample in reply["samples"])


@pytest.mark.parametrize(
    ("fields", "param", "line"),
    [
        ({"where": {"agee": 3}}, "where.agee", 'unknown column "agee"'),
        (
            {"where": {"age": {"min": 400}}},
            "where.age",
            'age has nothing that is {"min": 400}; it is an integer between 17 and 90',
        ),
        ({"where": {"age": 30}, "prompt": {"age": 39}}, "where.age", "age is given by the prompt"),
        ({"where": {}}, "where", "a table's condition must be an object of columns"),
        ({"where": {"age": 30}, "steps": 3}, "steps", "where and steps exclude each other"),
        ({"attempts": 3}, "attempts", "attempts is only valid with where or rules"),
        ({"where": {"age": 30}, "attempts": 0}, "attempts", "attempts must be at least 1, got 0"),
    ],
)
def test_a_mistake_gets_one_line_that_names_the_field(
    server: Running, fields: dict[str, Any], param: str, line: str
) -> None:
    response = server.generate(**{"prompt": {}, **fields})
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["param"] == param
    assert line in error["message"]
