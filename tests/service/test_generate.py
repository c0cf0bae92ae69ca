"""POST /generate on a real server: whole replies, what they say and what they keep."""

import json
from typing import Any

import httpx
import pytest

from tests.model.artifacts import text_tokenizer
from tests.service.mocks import Gate, canvas, toy_model
from tests.service.servers import Running, run_toy
from unveil.engine.messages import Generate
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.seeds import derive_seed

COLUMNS = ["age", "workclass", "income", "hours", "rate"]


@pytest.fixture(scope="module")
def server() -> Any:
    with run_toy() as running:
        yield running


def _samples(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    samples: list[dict[str, Any]] = response.json()["samples"]
    return samples


def test_a_reply_has_the_shape_of_the_contract(server: Running) -> None:
    reply = server.generate(prompt={"age": 39}, seed=7).json()
    assert set(reply) == {"id", "model", "created", "samples", "usage", "timings"}
    assert reply["id"].startswith("gen-")
    assert reply["model"] == "toy"
    (sample,) = reply["samples"]
    assert {key: sample[key] for key in ("prompt_index", "sample_index", "seed", "finish_reason")} == {
        "prompt_index": 0,
        "sample_index": 0,
        "seed": 7,
        "finish_reason": "complete",
    }
    assert set(sample["reveals"][0]) == {
        *("step", "position", "name", "token_id", "token", "value", "logprob", "order_logprob")
    }
    assert reply["usage"] == {"prompt_tokens": 1, "generated_tokens": 4, "denoising_steps": 4}
    assert set(reply["timings"]) == {"queue_seconds", "first_reveal_seconds", "total_seconds"}
    assert 0 <= reply["timings"]["queue_seconds"] <= reply["timings"]["first_reveal_seconds"]
    assert reply["timings"]["first_reveal_seconds"] <= reply["timings"]["total_seconds"]


def test_the_reveals_put_into_the_template_give_the_output_and_what_was_known_stays(server: Running) -> None:
    prompt = {"age": 39, "workclass": "[MISSING]", "rate": 0.123}
    for sample in _samples(server.generate(prompt=prompt, num_samples=5, seed=1)):
        folded = {name: prompt.get(name) for name in COLUMNS}
        for reveal in sample["reveals"]:
            assert folded[reveal["name"]] is None
            assert COLUMNS[reveal["position"]] == reveal["name"]
            folded[reveal["name"]] = reveal["value"]
        assert {name: None if value == "[MISSING]" else value for name, value in folded.items()} == sample["output"]
        assert list(sample["output"]) == COLUMNS
        assert sample["logprob"] == pytest.approx(sum(reveal["logprob"] for reveal in sample["reveals"]))


def test_null_and_absent_columns_are_hidden_alike(server: Running) -> None:
    absent = _samples(server.generate(prompt={"age": 39}, seed=3))
    null = _samples(server.generate(prompt={"age": 39, "income": None, "hours": None}, seed=3))
    assert absent == null


def test_each_sample_has_its_own_seed_which_given_alone_reproduces_it(server: Running) -> None:
    samples = _samples(server.generate(prompt=[{"age": 20}, {"hours": 2}], num_samples=3, seed=11))
    assert [(s["prompt_index"], s["sample_index"]) for s in samples] == [(p, i) for p in (0, 1) for i in (0, 1, 2)]
    assert [s["seed"] for s in samples] == [derive_seed(11, s["prompt_index"], s["sample_index"]) for s in samples]
    assert samples[0]["seed"] == 11
    for sample in samples:
        prompt = [{"age": 20}, {"hours": 2}][sample["prompt_index"]]
        (alone,) = _samples(server.generate(prompt=prompt, seed=sample["seed"]))
        for key in ("output", "reveals", "logprob", "seed"):
            assert alone[key] == sample[key]


def test_a_seed_that_is_not_given_is_drawn_fits_javascript_and_is_echoed(server: Running) -> None:
    seeds = [_samples(server.generate(prompt={}))[0]["seed"] for _ in range(4)]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_the_largest_seed_comes_back_digit_by_digit(server: Running) -> None:
    assert _samples(server.generate(prompt={}, seed=2**63 - 1))[0]["seed"] == 2**63 - 1


def test_a_row_that_is_all_known_comes_back_unchanged_with_no_step(server: Running) -> None:
    prompt = {"age": 39, "workclass": "class 1", "income": ">50K", "hours": 3, "rate": 0.5}
    reply = server.generate(prompt=prompt, num_samples=2).json()
    for sample in reply["samples"]:
        assert sample["output"] == prompt
        assert sample["reveals"] == []
        assert sample["logprob"] == 0
    assert reply["usage"] == {"prompt_tokens": 5, "generated_tokens": 0, "denoising_steps": 0}
    assert reply["timings"]["first_reveal_seconds"] is None


def test_without_logprobs_no_field_speaks_of_them(server: Running) -> None:
    with_them = server.generate(prompt={}, seed=5).json()
    without = server.generate(prompt={}, seed=5, logprobs=False).json()
    assert "logprob" not in json.dumps(without)
    for sample in with_them["samples"]:
        del sample["logprob"]
        for reveal in sample["reveals"]:
            del reveal["logprob"], reveal["order_logprob"]
    assert without["samples"] == with_them["samples"]


@pytest.mark.parametrize(
    "order", ["left_to_right", "right_to_left", "confidence", "margin", "entropy", [4, 2, 3, 1, 0]]
)
def test_a_deterministic_order_has_no_order_logprob(server: Running, order: Any) -> None:
    (sample,) = _samples(server.generate(prompt={}, order=order, seed=1))
    assert [reveal["order_logprob"] for reveal in sample["reveals"]] == [None] * 5
    positions = [reveal["position"] for reveal in sample["reveals"]]
    assert sorted(positions) == list(range(5))
    expected = {"left_to_right": [0, 1, 2, 3, 4], "right_to_left": [4, 3, 2, 1, 0]}
    assert positions == (order if isinstance(order, list) else expected.get(order, positions))


# Every parameter must reach the sampler: a default that wins silently is the classic fault of such servers.
_PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"order": "uniform"}, {"order": "uniform"}),
    ({"order": [1, 0, 2, 4, 3]}, {"order": "explicit", "explicit_order": (1, 0, 2, 4, 3)}),
    ({"order_temperature": 0.5}, {"order_temperature": 0.5}),
    ({"order_temperature": 0}, {"order_temperature": 0.0}),
    ({"order_temperature": None}, {"order_temperature": 1.0}),
    ({"tokens_per_step": 3}, {"tokens_per_step": 3}),
    ({"steps": 2}, {"steps": 2}),
    ({"threshold": 0.9}, {"threshold": 0.9}),
    ({"order": "entropy", "threshold": 2.5}, {"order": "entropy", "threshold": 2.5}),
    ({"temperature": 0.0}, {"temperature": 0.0}),
    ({"temperature": 2}, {"temperature": 2.0}),
    ({"top_k": 2}, {"top_k": 2}),
    ({"top_p": 0.25}, {"top_p": 0.25}),
]


@pytest.mark.parametrize(("fields", "expected"), _PARAMETERS, ids=lambda value: str(value)[:40])
def test_every_sampling_parameter_reaches_the_engine(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    seen: list[Canvas] = []
    gate = Gate()
    with run_toy(gate=gate) as server:
        gate.open()
        server.generate(prompt={}, seed=1, **fields).raise_for_status()
        seen += gate.wait()
    params = seen[0].params
    assert {name: getattr(params, name) for name in expected} == expected


def test_steps_and_tokens_per_step_count_forwards_in_usage(server: Running) -> None:
    usage = server.generate(prompt={}, seed=1, num_samples=2, tokens_per_step=2).json()["usage"]
    assert usage == {"prompt_tokens": 0, "generated_tokens": 10, "denoising_steps": 6}


def test_numbers_beyond_all_bounds_mean_no_bound(server: Running) -> None:
    expected = _samples(server.generate(prompt={}, seed=1))
    assert _samples(server.generate(prompt={}, seed=1, top_k=10**30)) == expected
    assert len(_samples(server.generate(prompt={}, seed=1, tokens_per_step=10**30))) == 1


def test_as_many_steps_as_hidden_positions_are_taken_whatever_their_number() -> None:
    with run_toy(model=toy_model(tokenizer=text_tokenizer(length=1100))) as server:
        prompt = "[MASK:1001]"
        assert server.generate(prompt=prompt, steps=1001, order="left_to_right").status_code == 200
        assert server.error(server.generate(prompt=prompt, steps=1002)) == (422, "invalid_request", "steps")


def test_text_takes_holes_or_a_length_and_the_output_is_the_text() -> None:
    with run_toy(model=toy_model(tokenizer=text_tokenizer())) as server:
        (sample,) = _samples(server.generate(prompt="ab[MASK:3]c[MASK]", seed=2))
        assert sample["output"] == sample["text"]
        assert sample["output"][:2] == "ab"
        assert sample["output"][5] == "c"
        assert len(sample["output"]) == 7
        assert sorted(reveal["position"] for reveal in sample["reveals"]) == [2, 3, 4, 6]
        assert all(reveal["name"] is None for reveal in sample["reveals"])
        assert len(_samples(server.generate(prompt="ab", length=4))[0]["output"]) == 6
        assert len(_samples(server.generate(prompt="ab"))[0]["output"]) == 2 + 8


def test_a_large_body_is_planned_aside_and_gives_the_same(server: Running) -> None:
    prompts = [{"age": 39, "workclass": "class 1"}] * 200
    padded = json.dumps({"prompt": prompts, "seed": 5}) + " " * 20_000
    response = server.client.post("/generate", content=padded)
    assert _samples(response) == _samples(server.generate(prompt=prompts, seed=5))


def test_the_wrong_content_type_of_curl_is_no_obstacle(server: Running) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = server.client.post("/generate", content=b'{"prompt": {}}', headers=headers)
    assert response.status_code == 200


def test_order_gives_each_hidden_position_its_probability_likeliest_first(server: Running) -> None:
    response = server.client.post("/order", json={"prompt": {"age": 39}})
    assert response.status_code == 200
    positions = response.json()["positions"]
    assert sorted(entry["name"] for entry in positions) == sorted(COLUMNS[1:])
    probabilities = [entry["probability"] for entry in positions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)


def test_the_order_of_a_full_row_is_empty(server: Running) -> None:
    prompt = {"age": 39, "workclass": "class 1", "income": ">50K", "hours": 3, "rate": 0.5}
    assert server.client.post("/order", json={"prompt": prompt}).json()["positions"] == []


def test_models_are_listed_with_what_a_client_needs(server: Running) -> None:
    reply = server.client.get("/v1/models").json()
    assert reply["object"] == "list"
    (model,) = reply["data"]
    assert {"id", "object", "domain", "length", "default_length", "order", "weights", "deterministic"} <= set(model)
    assert [column["name"] for column in model["columns"]] == COLUMNS
    assert server.generate(prompt=model["example_prompt"]).status_code == 200


def test_an_incoming_request_id_is_kept_if_it_looks_like_one_and_else_replaced(server: Running) -> None:
    kept = server.client.get("/health", headers={"x-request-id": "trace-1.a_b:c"})
    assert kept.headers["x-request-id"] == "trace-1.a_b:c"
    for strange in ("x" * 200, "a b", ""):
        made = server.client.get("/health", headers={"x-request-id": strange}).headers["x-request-id"]
        assert made.startswith("req-")


def test_a_message_holds_nothing_but_what_the_engine_needs() -> None:
    command = Generate("r", "toy", "v", (canvas(),))
    assert "prompt" not in repr(command)
