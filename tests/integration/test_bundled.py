"""The bundled models as a stranger meets them: `unveil serve` and nothing else, the README's requests, its refusals."""

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.processes import serving
from tests.service.mocks import WAIT_SECONDS
from unveil.model.artifact.folder import load_artifact
from unveil.model.tokenizers.grid import is_solution

ROOT = Path(__file__).parents[2]
PROMPT = {"age": 39, "sex": "Female", "income": ">50K"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A client of a real `unveil serve` process; the process must end with 0 on SIGTERM."""
    with serving([sys.executable, "-m", "unveil.cli", "serve", "--port", "0"]) as (process, url):
        with httpx.Client(base_url=url, timeout=WAIT_SECONDS) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=WAIT_SECONDS) == 0


def _events(client: httpx.Client, body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    with client.stream("POST", "/generate", json={**body, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    return [(name, json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)]


def test_four_complete_plausible_rows_and_twice_the_same(client: httpx.Client) -> None:
    body = {"prompt": PROMPT, "num_samples": 4, "seed": 7}
    first, second = (client.post("/generate", json=body).json() for _ in range(2))
    assert first["model"] == "adult"
    assert first["samples"] == second["samples"]
    assert len(first["samples"]) == 4
    tokenizer = load_artifact(ROOT / "checkpoints" / "adult").tokenizer
    for sample in first["samples"]:
        assert PROMPT.items() <= sample["output"].items()
        assert not any(tokenizer.encode(sample["output"]).hidden), "every value is one that the model takes"
        assert sorted(r["name"] for r in sample["reveals"]) == sorted(set(sample["output"]) - set(PROMPT))
        assert sample["output"]["relationship"] != "Husband", "she is a woman"
        assert sample["logprob"] == pytest.approx(sum(r["logprob"] for r in sample["reveals"]))


def test_the_stream_folds_to_the_same_rows(client: httpx.Client) -> None:
    body = {"prompt": PROMPT, "num_samples": 4, "seed": 7}
    whole = client.post("/generate", json=body).json()["samples"]
    events = _events(client, body)
    assert [name for name, _ in events][:1] == ["start"]
    assert [name for name, _ in events].count("done") == 1
    assert events[-1][0] == "done"
    names = events[0][1]["names"]
    for index, sample in enumerate(whole):
        row = dict(zip(names, events[0][1]["samples"][index]["canvas"], strict=True))
        for kind, data in events:
            if kind == "reveal" and data["sample_index"] == index:
                assert row[data["name"]] is None, "revealed once"
                row[data["name"]] = data["value"]
        assert row == sample["output"]


REFUSED: list[tuple[Any, int, str | None]] = [
    ({"prompt": {"age": "old"}}, 422, "prompt.age"),
    ({"prompt": {"agee": 39}}, 422, "prompt.agee"),
    ({"prompt": [{}, {"sex": "female"}]}, 422, "prompt.1.sex"),
    ({"prompt": {}, "order": "best"}, 422, "order"),
    ({"prompt": {}, "temprature": 1}, 422, "temprature"),
    (b" " * 10_000_000, 413, None),
    (b'{"prompt": {', 400, None),
    ({"prompt": {}, "model": "adlut"}, 404, "model"),
]


@pytest.mark.parametrize(("body", "code", "param"), REFUSED, ids=[str(case[1:]) for case in REFUSED])
def test_a_mistake_gets_its_one_line_and_the_service_goes_on(
    client: httpx.Client, body: Any, code: int, param: str | None
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post("/generate", content=content, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (code, param)
    assert error["message"]
    assert "\n" not in error["message"]
    assert client.post("/generate", json={"prompt": PROMPT, "seed": 1}).status_code == 200


def test_what_the_models_page_says_of_adult_is_true(client: httpx.Client) -> None:
    adult, *_ = client.get("/v1/models").json()["data"]
    assert (adult["id"], adult["order"], adult["length"], adult["deterministic"]) == ("adult", "global", 15, True)
    reply = client.post("/generate", json={"prompt": adult["example_prompt"]})
    assert reply.status_code == 200
    law = client.post("/order", json={"prompt": {}}).json()["positions"]
    assert sum(position["probability"] for position in law) == pytest.approx(1.0)
    assert len(law) == 15


def _model(client: httpx.Client, name: str) -> dict[str, Any]:
    models: list[dict[str, Any]] = client.get("/v1/models").json()["data"]
    (model,) = [model for model in models if model["id"] == name]
    return model


def test_the_bundled_models_are_these_and_the_table_is_the_one_that_answers_unasked(client: httpx.Client) -> None:
    models = [(model["id"], model["domain"]) for model in client.get("/v1/models").json()["data"]]
    assert models == [("adult", "table"), ("moses", "smiles"), ("sudoku", "grid"), ("text", "text")]


def test_the_molecule_model_keeps_a_scaffold_and_decides_where_the_molecule_ends(client: httpx.Client) -> None:
    prompt = "[MASK:3]c1ccc([MASK:2])cc1"
    body = {"model": "moses", "prompt": prompt, "seed": 7, "num_samples": 4}
    samples = client.post("/generate", json=body).json()["samples"]
    assert all("c1ccc(" in sample["output"] and ")cc1" in sample["output"] for sample in samples)
    assert all(len(sample["reveals"]) >= 5 for sample in samples)
    free = client.post("/generate", json={"model": "moses", "prompt": "", "seed": 7, "num_samples": 8}).json()
    assert len({len(sample["output"]) for sample in free["samples"]}) > 1, "lengths are drawn, not given"
    scored = client.post("/score", json={"model": "moses", "prompt": "CCO", "order": "left_to_right"})
    assert scored.status_code == 200


def test_a_molecule_of_unknown_tokens_is_refused_and_the_place_is_named(client: httpx.Client) -> None:
    response = client.post("/generate", json={"model": "moses", "prompt": "CC[Zn]C"})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (422, "prompt")
    assert "[Zn]" in error["message"]
    assert "\n" not in error["message"]


def test_the_sudoku_model_solves_its_example_and_says_so(client: httpx.Client) -> None:
    sudoku = _model(client, "sudoku")
    assert (sudoku["id"], sudoku["domain"], sudoku["order"], sudoku["length"]) == ("sudoku", "grid", "contextual", 81)
    prompt = sudoku["example_prompt"]
    body = {"model": "sudoku", "prompt": prompt, "order_temperature": 0, "temperature": 0, "seed": 7}
    whole = client.post("/generate", json=body).json()["samples"][0]
    assert is_solution(whole["output"], prompt)
    assert len(whole["text"].splitlines()) == 9
    assert len(whole["reveals"]) == prompt.count(".")
    reveals = [data for kind, data in _events(client, body) if kind == "reveal"]
    cells = list(prompt)
    for reveal in reveals:
        assert cells[reveal["position"]] == "."
        cells[reveal["position"]] = reveal["value"]
    assert "".join(cells) == whole["output"]
    law = client.post("/order", json={"model": "sudoku", "prompt": prompt}).json()["positions"]
    assert len(law) == prompt.count(".")
    assert sum(position["probability"] for position in law) == pytest.approx(1.0)


HARD = "000300004420500001008000050000000000009080610005160900060030000001000080903004002"  # 24 clues


def test_a_sudoku_is_taken_back_where_it_contradicts_itself_and_the_stream_says_so(client: httpx.Client) -> None:
    body = {"model": "sudoku", "prompt": HARD, "order_temperature": 0, "temperature": 0, "seed": 7, "backtrack": 300}
    whole = client.post("/generate", json=body).json()["samples"][0]
    assert (whole["finish_reason"], is_solution(whole["output"], HARD)) == ("complete", True)
    assert whole["num_unrevealed"] > 0
    assert whole["num_forwards"] > len(whole["reveals"]) == HARD.count("0")
    cells, num_unrevealed = list(HARD), 0
    for kind, data in _events(client, body):
        if kind == "reveal":
            assert cells[data["position"]] == "0"
            cells[data["position"]] = data["value"]
        elif kind == "unreveal":
            num_unrevealed += len(data["positions"])
            for position in data["positions"]:
                assert HARD[position] == "0"
                assert cells[position] != "0"
                cells[position] = "0"
    assert ("".join(cells), num_unrevealed) == (whole["output"], whole["num_unrevealed"])
    plain = client.post("/generate", json={**body, "backtrack": None}).json()["samples"][0]
    assert not is_solution(plain["output"], HARD)
    assert "num_unrevealed" not in plain


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"model": "adult", "prompt": {}}, "backtrack is only valid with a grid"),
        ({"model": "sudoku", "prompt": HARD, "steps": 9}, "backtrack"),
    ],
)
def test_where_nothing_can_be_taken_back_that_is_said(client: httpx.Client, body: Any, message: str) -> None:
    response = client.post("/generate", json={**body, "backtrack": 5})
    assert response.status_code == 422
    assert message in response.json()["error"]["message"]


def test_a_sudoku_that_contradicts_itself_is_refused_and_the_cells_are_named(client: httpx.Client) -> None:
    prompt = "5" + "." * 7 + "5" + "." * 72
    response = client.post("/generate", json={"model": "sudoku", "prompt": prompt})
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["param"] == "prompt"
    assert error["message"] == "5 stands twice in one row: at row 1 column 1 (cell 0) and at row 1 column 9 (cell 8)"


TEXT_PROMPTS = {
    "prefix": "And the LORD spake unto Moses, [MASK:16]",
    "suffix": "[MASK:16] and he died.",
    "many holes": "And the [MASK:3] of Israel [MASK:4] the LORD [MASK:5].\nAnd [MASK:2]",
}


@pytest.mark.parametrize("prompt", TEXT_PROMPTS.values(), ids=TEXT_PROMPTS)
def test_the_text_model_fills_a_prompt_and_keeps_what_it_knows(client: httpx.Client, prompt: str) -> None:
    body = {"model": "text", "prompt": prompt, "seed": 7}
    sample = client.post("/generate", json=body).json()["samples"][0]
    parts = [re.escape(part) for part in re.split(r"\[MASK:\d+\]", prompt)]
    assert re.fullmatch("(?s:.+)".join(parts), sample["output"])
    assert sample["text"] == sample["output"]
    assert len(sample["reveals"]) == sum(map(int, re.findall(r"\[MASK:(\d+)\]", prompt)))


def test_what_the_models_page_says_of_text_is_true(client: httpx.Client) -> None:
    text = _model(client, "text")
    assert (text["id"], text["domain"], text["order"], text["length"]) == ("text", "text", "global", 128)
    assert client.post("/generate", json={"model": "text", "prompt": text["example_prompt"]}).status_code == 200
    whole = client.post("/generate", json={"model": "text", "prompt": "In the ", "seed": 1}).json()["samples"][0]
    assert len(whole["reveals"]) == text["default_length"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("In 7 days", 'the model does not know "7" (character 4 of the prompt)'),
        ("Amen.[MASK:128]", "4 known and 128 hidden tokens are 132, the model takes at most 128"),
    ],
)
def test_a_text_that_the_model_cannot_take_is_refused_in_one_line(
    client: httpx.Client, prompt: str, message: str
) -> None:
    response = client.post("/generate", json={"model": "text", "prompt": prompt})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["message"]) == (422, "prompt", message)


def test_the_readme_shows_the_real_answer(client: httpx.Client) -> None:
    shown = re.search(r'"output": (\{.*?\}),\n', (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert shown is not None
    reply = client.post("/generate", json={"prompt": PROMPT, "seed": 7}).json()
    assert json.loads(shown[1]) == reply["samples"][0]["output"]


def test_the_readme_shows_the_real_score(client: httpx.Client) -> None:
    text = (ROOT / "README.md").read_text()
    shown = re.search(r'"scores": (\[.*?\]\}\]),\n "usage": (\{.*?\})', text, flags=re.DOTALL)
    assert shown is not None
    (expected,) = json.loads(shown[1])
    reply = client.post("/score", json={"prompt": PROMPT, "seed": 7}).json()
    (found,) = reply["scores"]
    for key in ("nelbo", "standard_error"):
        assert found[key] == pytest.approx(expected[key], abs=1e-3)
    for term, expected_term in zip(found["terms"], expected["terms"], strict=True):
        numbers = {key: pytest.approx(expected_term[key], abs=1e-3) for key in ("nats", "standard_error", "mean_step")}
        assert term == {**expected_term, **numbers}
    assert json.loads(shown[2]) == reply["usage"]
    exact = re.search(r'exact `"log_likelihood"`, here (-[0-9.]+)\.', text)
    assert exact is not None
    for order in ("left_to_right", [0, 9, 14]):
        (found,) = client.post("/score", json={"prompt": PROMPT, "order": order}).json()["scores"]
        assert found["log_likelihood"] == pytest.approx(float(exact[1]), abs=1e-3)
