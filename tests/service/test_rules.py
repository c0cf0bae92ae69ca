"""Requests with `rules`: every row keeps them, the reply says how likely that was, and a mistake gets one line."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.service.mocks import toy_model
from tests.service.servers import Running, events_of, run_toy
from unveil.engine.catalog import ServedModel
from unveil.model.tokenizers.table.rules.book import together

RULES = ["hours * 10 <= age", "pair(workclass, income)"]
FIELDS: dict[str, Any] = {"prompt": [{}, {"hours": 4}], "num_samples": 6, "seed": 5, "rules": RULES}
PAIRS = {("class 0", ">50K"), ("class 1", "<=50K"), ("class 2", ">50K")}


def _model(rules: list[str]) -> ServedModel:
    """The toy with rules of its own, and with three pairs of ids that stood together."""
    model = toy_model()
    table: Any = model.tokenizer
    own = {c.name: c for c in table.columns}
    ids = [[own["workclass"].encode(a), own["income"].encode(b)] for a, b in sorted(PAIRS)]
    known = together(["workclass", "income"], np.array(ids))
    return replace(model, tokenizer=table.with_rules(rules, known=[known]))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with run_toy(model=_model(RULES)) as running:
        yield running


@pytest.mark.parametrize("fields", [{}, {"order": "uniform"}, {"order": "confidence"}, {"tokens_per_step": 3}])
def test_every_row_keeps_the_rules_and_the_reply_says_how_likely_that_was(
    server: Running, fields: dict[str, Any]
) -> None:
    reply = server.generate(**FIELDS, **fields).json()
    for sample in reply["samples"]:
        row = sample["output"]
        assert row["hours"] * 10 <= row["age"]
        assert (row["workclass"], row["income"]) in PAIRS
    assert [found["samples"] for found in reply["condition"]] == [6, 6]
    for found in reply["condition"]:
        assert 0 < found["probability"] < 1
        assert found["attempts"] >= 6


def test_a_models_own_rules_are_kept_unless_a_request_says_otherwise(server: Running) -> None:
    fields = {"prompt": {}, "num_samples": 40, "seed": 2}
    own = server.generate(**fields).json()
    assert own["samples"] == server.generate(**fields, rules=RULES).json()["samples"]
    free = server.generate(**fields, rules=[]).json()
    assert "condition" not in free
    assert any(s["output"]["hours"] * 10 > s["output"]["age"] for s in free["samples"])


def test_streamed_it_is_the_same(server: Running) -> None:
    whole = server.generate(**FIELDS).json()
    with server.client.stream("POST", "/generate", json={**FIELDS, "stream": True}) as response:
        events = list(events_of(response.iter_lines()))
    samples = [data for kind, data in events if kind == "sample"]
    assert sorted(samples, key=lambda s: (s["prompt_index"], s["sample_index"])) == whole["samples"]
    assert events[-1][1]["condition"] == whole["condition"]


def test_a_condition_and_rules_hold_together(server: Running) -> None:
    reply = server.generate(prompt={}, num_samples=10, seed=1, rules=RULES, where={"age": {"max": 40}}).json()
    assert all(s["output"]["hours"] * 10 <= s["output"]["age"] <= 40 for s in reply["samples"])


def test_rules_that_no_attempt_keeps_are_answered_in_one_line_and_others_go_on(server: Running) -> None:
    rules = ["hours * 40 > age + 150", "age > 60", "hours < 3"]
    response = server.generate(prompt={}, rules=rules, attempts=3, seed=1)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (422, "invalid_request", "attempts")
    assert error["message"] == "no attempt at a sample met what where and rules ask for"
    assert server.generate(prompt={}, seed=1).status_code == 200


def test_numbers_beyond_every_float_are_compared_as_others(server: Running) -> None:
    huge, tiny = "9" * 400, "0." + "0" * 400 + "1"
    for rule in (f"age <= {huge}", f"age * {tiny} <= hours", f"age - {huge} < hours", f"age != {huge}"):
        assert server.generate(prompt={}, seed=1, rules=[rule]).status_code == 200, rule
    for rule in (f"age >= {huge}", f"age == {huge}"):
        assert server.generate(prompt={}, seed=1, rules=[rule]).json()["error"]["param"] == "rules.0"


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"rules": ["hours <"]}, "rules.0", "must name a column or a number"),
        ({"rules": ["hours < age", "pair(age, hours)"]}, "rules.1", "not known to this model"),
        ({"rules": ["unique(age)"]}, "rules.0", "about the rows of a whole file"),
        ({"rules": ["age > 2"], "steps": 3}, "steps", "rules and steps exclude each other"),
        ({"steps": 3}, "steps", "rules: [] leaves them out"),
        ({"rules": [], "attempts": 3}, "attempts", "only valid with where or rules"),
        ({"rules": ["age < hours"], "prompt": {"age": 60, "hours": 2}}, "rules.0", "no row with this prompt"),
        ({"rules": ["age < hours"], "prompt": {"age": 60}}, "rules.0", "no row with this prompt"),
        ({"rules": "age > 2"}, "rules", "list"),
        ({"rules": ["age > 2"] * 65}, "rules", "64"),
    ],
)
def test_a_mistake_names_its_field(server: Running, fields: dict[str, Any], param: str, reason: str) -> None:
    response = server.generate(**{"prompt": {}, **fields})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (422, param)
    assert reason in error["message"]
