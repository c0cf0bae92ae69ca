"""/openapi.json says what the service does, and the pages come with their own armour."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.servers import Running, run_toy
from unveil.engine.request.schemas import GenerateReply, OrderReply, ScoreReply
from unveil.engine.request.table_schemas import CountReply, PredictReply


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with run_toy() as running:
        yield running


@pytest.fixture(scope="module")
def document(server: Running) -> Any:
    return server.client.get("/openapi.json").json()


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def test_every_reference_leads_somewhere(document: Any) -> None:
    targets = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(_references(document)) <= targets


def test_every_error_of_the_contract_is_declared_in_our_shape(document: Any) -> None:
    for path in ("/generate", "/order", "/score", "/predict", "/count"):
        responses = document["paths"][path]["post"]["responses"]
        assert set(responses) == {"200", "400", "404", "413", "422", "429", "500", "503", "504"}
        for code in set(responses) - {"200"}:
            schema = responses[code]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorReply"}
        assert "Retry-After" in responses["429"]["headers"]


def test_the_body_is_declared_and_closed(document: Any) -> None:
    schema = document["components"]["schemas"]["GenerateRequest"]
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["prompt"]
    assert schema["example"] == {"prompt": {"age": 57, "rate": -0.02}}
    assert set(schema["properties"]) == {
        *("model", "prompt", "num_samples", "length", "order", "order_temperature", "tokens_per_step", "steps"),
        *("threshold", "temperature", "top_k", "top_p", "seed", "logprobs", "stream", "timeout_seconds", "backtrack"),
        *("where", "rules", "attempts", "top_logprobs"),
    }


def test_the_body_of_a_score_is_declared_and_closed(document: Any) -> None:
    schema = document["components"]["schemas"]["ScoreRequest"]
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["prompt"]
    assert set(schema["properties"]) == {
        *("model", "prompt", "given", "length", "order", "order_temperature", "num_orders", "seed", "timeout_seconds")
    }
    assert "scored" in schema["properties"]["prompt"]["description"]
    reply = document["paths"]["/score"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert reply == {"$ref": "#/components/schemas/ScoreReply"}


def test_what_is_answered_is_what_is_declared(server: Running) -> None:
    for fields in ({}, {"logprobs": False}, {"order": "margin", "num_samples": 2}):
        GenerateReply.model_validate(server.generate(prompt={"age": 39}, **fields).json())
    bodies: list[dict[str, Any]] = [{}, {"order": "margin"}, {"num_orders": 1}]
    for body in bodies:
        ScoreReply.model_validate(server.client.post("/score", json={"prompt": {"age": 39}, **body}).json())
    OrderReply.model_validate(server.client.post("/order", json={"prompt": {}}).json())
    PredictReply.model_validate(server.client.post("/predict", json={"prompt": {}, "num_samples": 1}).json())
    CountReply.model_validate(server.client.post("/count", json={"where": {"age": 57}}).json())


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/web/play.js", "text/javascript; charset=utf-8"),
        ("/web/docs.js", "text/javascript; charset=utf-8"),
        ("/web/style.css", "text/css; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
        ("/favicon.ico", "image/svg+xml"),
    ],
)
def test_pages_are_served_with_a_policy_that_lets_nothing_in_from_elsewhere(
    server: Running, path: str, media_type: str
) -> None:
    response = server.client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == media_type
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    if path != "/favicon.svg":
        assert "http://" not in response.text.replace("http://www.w3.org/2000/svg", "")


def test_no_path_leads_out_of_the_web_folder(server: Running) -> None:
    for path in ("/web/../app.py", "/web/%2e%2e/app.py", "/web/", "/web/index.html"):
        assert server.client.get(path).status_code == 404
