"""Everything that is refused, word by word (`tests/golden/errors.json`), and the service goes on."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.model.artifacts import text_tokenizer
from tests.service.mocks import toy_model
from tests.service.servers import Running, run_toy

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "errors.json"
OK: dict[str, Any] = {"prompt": {}}

BODIES: dict[str, bytes | dict[str, Any] | list[Any] | str | None] = {
    "broken JSON": b'{"prompt": {',
    "empty body": b"",
    "not UTF-8": b'{"prompt": "\xff"}',
    "UTF-16": '{"prompt": {}}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "trailing comma": b'{"prompt": {},}',
    "two values": b'{"prompt": {}} {}',
    "NaN": b'{"prompt": {}, "temperature": NaN}',
    "infinity": b'{"prompt": {}, "temperature": -Infinity}',
    "number out of range": b'{"prompt": {}, "temperature": 1e999}',
    "integer of 5000 digits": b'{"prompt": {}, "seed": ' + b"9" * 5000 + b"}",
    "nested too deeply": b'{"prompt": ' + b"[" * 100_000,
    "duplicate name": b'{"prompt": {"age": 39, "age": 40}}',
    "list of bodies": [{"prompt": {}}],
    "half a surrogate pair": b'{"prompt": {"\\ud800": 1}}',
    "a list": [],
    "null": None,
    "a string": "x",
    "no prompt": {},
    "misspelt parameter": {**OK, "temprature": 0.5},
    "misspelt prompt": {"promt": {}},
    "unknown parameter": {**OK, "zzz": 1},
    "unknown model": {**OK, "model": "toi"},
    "unknown model, nothing close": {**OK, "model": "x" * 300},
    "model not a string": {**OK, "model": 3},
    "unknown order": {**OK, "order": "sideways"},
    "the internal name of an order": {**OK, "order": "explicit"},
    "order of another type": {**OK, "order": 3},
    "order of negative positions": {**OK, "order": [-1]},
    "order of strings": {**OK, "order": ["age"]},
    "order misses positions": {**OK, "order": [0, 1]},
    "order repeats a position": {**OK, "order": [0, 1, 2, 3, 3]},
    "order names a known position": {"prompt": {"age": 39}, "order": [0, 1, 2, 3, 4]},
    "order temperature without learned": {**OK, "order": "uniform", "order_temperature": 1.0},
    "tokens_per_step and steps": {**OK, "tokens_per_step": 1, "steps": 2},
    "steps and threshold": {**OK, "threshold": 0.5, "steps": 2},
    "tokens_per_step of zero": {**OK, "tokens_per_step": 0},
    "steps of zero": {**OK, "steps": 0},
    "steps beyond what one forward can pass over": {**OK, "steps": 1001},
    "threshold above one": {**OK, "order": "margin", "threshold": 1.5},
    "threshold below zero": {**OK, "threshold": -0.5},
    "temperature below zero": {**OK, "temperature": -1},
    "temperature too small to divide by": {**OK, "temperature": 1e-300},
    "temperature a string": {**OK, "temperature": "hot"},
    "temperature true": {**OK, "temperature": True},
    "temperature null": {**OK, "temperature": None},
    "top_k of zero": {**OK, "top_k": 0},
    "top_k a fraction": {**OK, "top_k": 1.5},
    "top_p of zero": {**OK, "top_p": 0},
    "top_p above one": {**OK, "top_p": 1.1},
    "backtrack for a table": {**OK, "backtrack": 100},
    "backtrack below zero": {**OK, "backtrack": -1},
    "backtrack too large": {**OK, "backtrack": 10_001},
    "backtrack and steps": {**OK, "backtrack": 100, "steps": 2},
    "seed below zero": {**OK, "seed": -1},
    "seed too large": {**OK, "seed": 2**63},
    "seed a float": {**OK, "seed": 1.0},
    "num_samples of zero": {**OK, "num_samples": 0},
    "num_samples too many": {**OK, "num_samples": 17},
    "more canvases than the server holds": {"prompt": [{}] * 8, "num_samples": 8},
    "too many prompts": {"prompt": [{}] * 17},
    "no prompts": {"prompt": []},
    "stream a number": {**OK, "stream": 1},
    "timeout of zero": {**OK, "timeout_seconds": 0},
    "timeout too long": {**OK, "timeout_seconds": 601},
    "length for a table": {**OK, "length": 3},
    "length of zero": {**OK, "length": 0},
    "prompt null": {"prompt": None},
    "prompt a string for a table": {"prompt": "53..7"},
    "unknown column": {"prompt": {"agee": 39}},
    "unknown column, nothing close": {"prompt": {"zzz": 39}},
    "a word for a number": {"prompt": {"age": "old"}},
    "a number out of range": {"prompt": {"age": 10**6}},
    "an unseen level": {"prompt": {"workclass": "class 9"}},
    "the second prompt of a list": {"prompt": [{}, {"age": "old"}]},
    "a list inside a list": {"prompt": [[]]},
    "markup in a column's name": {"prompt": {"<script>alert(1)</script>\n": 39}},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with run_toy(max_num_samples=16, max_prompts=16, queue_capacity=32) as running:
        yield running


def _answer(server: Running, body: object) -> dict[str, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = server.client.post("/generate", content=content)
    server.error(response)
    return {"status": response.status_code, **response.json()["error"]}


@pytest.mark.parametrize("case", BODIES)
def test_what_is_refused_gets_its_one_line(server: Running, case: str) -> None:
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert _answer(server, BODIES[case]) == expected[case]


def test_the_golden_file_holds_exactly_these_cases() -> None:
    assert set(json.loads(GOLDEN.read_text(encoding="utf-8"))) == set(BODIES)


@pytest.mark.skipif("UNVEIL_WRITE_GOLDEN" not in os.environ, reason="writes the golden file, to be read and committed")
def test_write_the_golden_file(server: Running) -> None:
    answers = {case: _answer(server, body) for case, body in BODIES.items()}
    GOLDEN.write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def test_nothing_that_was_refused_hurts_the_next_request(server: Running) -> None:
    for body in BODIES.values():
        _answer(server, body)
        assert server.generate(prompt={}).status_code == 200


def test_refusals_are_counted_as_validation_and_admit_nothing(server: Running) -> None:
    before = server.metric("unveil_request_failures_total", {"reason": "validation"})
    steps = server.metric("unveil_denoising_steps_total")
    _answer(server, {"prompt": [{}, {"age": "old"}]})
    server.wait_for("unveil_request_failures_total", before + 1, {"reason": "validation"})
    server.wait_for("unveil_denoising_steps_total", steps)


def test_a_hint_names_only_a_field_that_is_close(server: Running) -> None:
    message = server.client.post("/order", json={"prompt": {}, "order": "learned"}).json()["error"]["message"]
    assert message == 'unknown field "order"; known are model, prompt, length, timeout_seconds'


def test_a_stream_that_is_refused_is_a_plain_http_error(server: Running) -> None:
    response = server.generate(prompt={"age": "old"}, stream=True)
    assert server.error(response) == (422, "invalid_request", "prompt.age")
    assert response.headers["content-type"] == "application/json"


def test_order_refuses_in_the_same_way(server: Running) -> None:
    for body, expected in (
        ({"prompt": {"agee": 1}}, (422, "invalid_request", "prompt.agee")),
        ({"prompt": {}, "seed": 1}, (422, "invalid_request", "seed")),
        ({"prompt": {}, "model": "x"}, (404, "model_not_found", "model")),
        ({"prompt": [{}]}, (422, "invalid_request", "prompt")),
    ):
        assert server.error(server.client.post("/order", json=body)) == expected


def test_parameters_in_the_address_are_refused_not_ignored(server: Running) -> None:
    for path in ("/generate", "/order", "/score"):
        refused = server.client.post(f"{path}?stream=true", json=OK)
        assert server.error(refused) == (422, "invalid_request", "stream")


def test_a_path_that_is_not_there_and_a_method_that_is_not_taken_have_the_same_shape(server: Running) -> None:
    assert server.error(server.client.get("/nowhere")) == (404, "not_found", None)
    assert server.error(server.client.post("/generate/", json={})) == (404, "not_found", None)
    assert len(server.client.get("/" + "x" * 3000).json()["error"]["message"]) < 300
    wrong = server.client.get("/generate")
    assert server.error(wrong) == (405, "method_not_allowed", None)
    assert wrong.headers["allow"] == "POST"


def test_a_text_says_which_character_it_does_not_know_and_where_a_length_is_wrong() -> None:
    with run_toy(model=toy_model(tokenizer=text_tokenizer())) as server:
        assert server.error(server.generate(prompt="aXb")) == (422, "invalid_request", "prompt")
        assert server.error(server.generate(prompt="a" * 41)) == (422, "invalid_request", "prompt")
        assert server.error(server.generate(prompt="a", length=41)) == (422, "invalid_request", "length")
        assert server.error(server.generate(prompt="a[MASK]", length=4)) == (422, "invalid_request", "length")
        assert server.error(server.generate(prompt=["a", {"b": 1}])) == (422, "invalid_request", "prompt.1")
