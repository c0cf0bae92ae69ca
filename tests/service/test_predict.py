"""POST /predict and POST /count: laws of columns and of conditions, against each other and by enumeration."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.servers import Running, run_toy

PROMPT = {"hours": 2}
CLASSES = ["class 0", "class 2"]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with run_toy() as running:
        yield running


def _post(server: Running, path: str, **body: Any) -> Any:
    response = server.client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def _levels(server: Running, prompt: dict[str, Any], column: str) -> dict[str, float]:
    (found,) = _post(server, "/predict", prompt=prompt, columns=[column])["predictions"][0]["columns"]
    return {level["value"]: level["probability"] for level in found["levels"]}


def test_a_law_is_what_generation_draws_from_where_the_column_comes_first(server: Running) -> None:
    (prediction,) = _post(server, "/predict", prompt=PROMPT)["predictions"]
    for column in prediction["columns"]:
        names = [own["name"] for own in prediction["columns"]]
        start = server.generate(prompt=PROMPT, seed=1, top_logprobs=20).json()["samples"][0]["reveals"]
        places = {reveal["name"]: reveal["position"] for reveal in start}
        assert set(places) == set(names), "all that is hidden, and nothing else"
        order = [places[column["name"]], *(i for i in sorted(places.values()) if i != places[column["name"]])]
        first = server.generate(prompt=PROMPT, seed=1, order=order, top_logprobs=20).json()["samples"][0]["reveals"][0]
        parts = column.get("levels") or [{"probability": column["missing"]}, *column["bins"]]
        told = [math.exp(own["logprob"]) for own in first["top_logprobs"]]
        assert sorted((own["probability"] for own in parts), reverse=True)[: len(told)] == pytest.approx(told)
        assert math.fsum(own["probability"] for own in parts) == pytest.approx(1.0)


def test_of_numbers_mean_and_quantiles_follow_from_the_bins(server: Running) -> None:
    (age,) = _post(server, "/predict", prompt=PROMPT, columns=["age"])["predictions"][0]["columns"]
    known = 1 - age["missing"]
    assert "levels" not in age
    quantiles = list(age["quantiles"].values())
    assert quantiles == sorted(quantiles)
    lowest = sum(own["low"] * own["probability"] for own in age["bins"]) / known
    highest = sum(own["high"] * own["probability"] for own in age["bins"]) / known
    assert lowest <= age["mean"] <= highest
    below = sum(own["probability"] for own in age["bins"] if own["high"] < age["quantiles"]["0.5"]) / known
    above = sum(own["probability"] for own in age["bins"] if own["low"] > age["quantiles"]["0.5"]) / known
    assert below <= 0.5
    assert above <= 0.5


def test_draws_are_of_the_asked_columns_alone_and_of_their_seed(server: Running) -> None:
    fields: dict[str, Any] = {"prompt": [PROMPT, {}], "columns": ["income", "workclass"], "num_samples": 250, "seed": 3}
    reply = _post(server, "/predict", **fields)
    assert _post(server, "/predict", **fields)["predictions"] == reply["predictions"]
    law = _levels(server, PROMPT, "income")
    rows: list[dict[str, str]] = reply["predictions"][0]["samples"]
    assert all(set(row) == {"income", "workclass"} for row in rows)
    share = sum(row["income"] == ">50K" for row in rows) / 250
    assert abs(share - law[">50K"]) < 4 * math.sqrt(0.25 / 250)
    assert _post(server, "/predict", prompt=PROMPT)["seed"] is None


def test_one_column_is_counted_exactly(server: Running) -> None:
    law = _levels(server, PROMPT, "workclass")
    found = _post(server, "/count", prompt=PROMPT, where={"workclass": CLASSES})
    assert found["probability"] == pytest.approx(sum(law[own] for own in CLASSES))
    assert (found["standard_error"], found["draws"]) == (0.0, 1)
    assert (found["rows"], found["count"]) == (None, None), "the toy does not say how many rows it was trained on"


def test_several_columns_are_counted_without_bias(server: Running) -> None:
    """By enumeration, in the order in which they are revealed: the likelier one to come next first."""
    where: dict[str, Any] = {"workclass": CLASSES, "income": ">50K"}
    ranked = [own["name"] for own in server.client.post("/order", json={"prompt": PROMPT}).json()["positions"]]
    first, second = sorted(where, key=ranked.index)
    wanted: dict[str, list[str]] = {name: own if isinstance(own, list) else [own] for name, own in where.items()}
    law, expected = _levels(server, PROMPT, first), 0.0
    for level in wanted[first]:
        then = _levels(server, {**PROMPT, first: level}, second)
        expected += law[level] * sum(then[own] for own in wanted[second])
    found = _post(server, "/count", prompt=PROMPT, where=where, num_samples=400, seed=8)
    assert abs(found["probability"] - expected) < 4 * found["standard_error"] + 1e-12
    assert found["standard_error"] < 0.1 * expected
    assert found["draws"] == 400
    one = _post(server, "/count", prompt=PROMPT, where=where, num_samples=1, seed=8)
    assert one["standard_error"] is None


@pytest.mark.parametrize(
    ("path", "body", "param", "line"),
    [
        ("/predict", {"prompt": {}, "columns": ["agee"]}, "columns", 'unknown column "agee"; did you mean "age"?'),
        ("/predict", {"prompt": {}, "columns": []}, "columns", "columns is an empty list"),
        ("/predict", {"prompt": {}, "columns": ["age", "age"]}, "columns", "columns has one of them twice"),
        ("/predict", {"prompt": {"age": 57}, "columns": ["age"]}, "columns", "age is given by prompt"),
        ("/predict", {"prompt": [{}, {"age": 5}]}, "prompt.1.age", "age must be"),
        ("/predict", {"prompt": {}, "where": {}}, "where", "unknown field"),
        ("/predict", {"prompt": [{}] * 8, "num_samples": 250}, "num_samples", "canvases are needed; this server holds"),
        ("/predict", {"prompt": {}, "num_samples": -1}, "num_samples", "num_samples"),
        ("/count", {"where": {"agee": 3}}, "where.agee", 'unknown column "agee"'),
        ("/count", {"where": {"age": 57}, "prompt": {"age": 57}}, "where.age", "age is given by the prompt"),
        ("/count", {"where": {}}, "where", "a table's condition must be an object of columns"),
        ("/count", {"where": {"age": {"min": 400}}}, "where.age", "age has nothing that is"),
        ("/count", {"prompt": {}}, "where", "where"),
        ("/count", {"where": {"age": 57}, "prompt": [{}]}, "prompt", "prompt must be one row"),
    ],
)
def test_a_mistake_names_the_field(server: Running, path: str, body: dict[str, Any], param: str, line: str) -> None:
    response = server.client.post(path, json=body)
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["param"] == param
    assert line in error["message"]
