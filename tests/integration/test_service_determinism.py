"""The same seed gives the same result: alone, in any batch, streamed, in any company, after a restart.

Real networks with random weights, real servers. Compared to the last bit, as JSON prints it.
"""

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.model.artifacts import table_tokenizer, text_tokenizer, write_artifact
from tests.service.servers import Running, events_of, run_artifacts

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "samples.json"

REQUESTS: dict[str, dict[str, Any]] = {
    "a table, as it comes": {"prompt": {}},
    "a table with knowns": {"prompt": {"age": 39, "income": ">50K"}},
    "order at zero temperature": {"prompt": {"age": 39}, "order_temperature": 0},
    "cold tokens": {"prompt": {}, "temperature": 0},
    "top-k and top-p": {"prompt": {}, "top_k": 3, "top_p": 0.7, "temperature": 1.3},
    "uniform": {"prompt": {}, "order": "uniform"},
    "confidence": {"prompt": {}, "order": "confidence"},
    "margin": {"prompt": {"rate": 0.5}, "order": "margin"},
    "entropy": {"prompt": {}, "order": "entropy"},
    "explicit": {"prompt": {"age": 39}, "order": [4, 1, 3, 2]},
    "two a step": {"prompt": {}, "tokens_per_step": 2},
    "three time steps": {"prompt": {}, "steps": 3},
    "time steps, uniform": {"prompt": {}, "steps": 3, "order": "uniform"},
    "threshold": {"prompt": {}, "threshold": 0.3},
    "a text": {"model": "words", "prompt": "ab[MASK:3]c[MASK:20]"},
    "a short text": {"model": "words", "prompt": "ab[MASK:3]"},
    "a text of another length": {"model": "words", "prompt": "abc def[MASK:9]"},
    "a text in time steps": {"model": "words", "prompt": "no[MASK:19]", "steps": 6},
    "a text by margin": {"model": "words", "prompt": "[MASK:30]", "order": "margin", "tokens_per_step": 3},
    "a text by uniform time steps": {"model": "words", "prompt": "[MASK:26]", "order": "uniform", "steps": 7},
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    write_artifact(folder / "rows", tokenizer=table_tokenizer(), kind="global")
    write_artifact(folder / "words", tokenizer=text_tokenizer(), kind="contextual")
    return folder


def _serve(artifacts: Path) -> Any:
    return run_artifacts(checkpoints=artifacts, max_batch=32)


@pytest.fixture(scope="module")
def server(artifacts: Path) -> Iterator[Running]:
    with _serve(artifacts) as running:
        yield running


@pytest.fixture(scope="module")
def alone(server: Running) -> dict[str, Any]:
    """Each request's samples when nobody else is served."""
    return {name: _samples(server, REQUESTS[name]) for name in REQUESTS}


def _samples(server: Running, request: dict[str, Any], *, seed: int = 7, num_samples: int = 2) -> Any:
    response = server.generate(**request, seed=seed, num_samples=num_samples)
    assert response.status_code == 200, response.text
    return response.json()["samples"]


def test_the_models_say_that_they_are_deterministic(server: Running) -> None:
    models = server.client.get("/v1/models").json()["data"]
    assert [(model["id"], model["deterministic"]) for model in models] == [("rows", True), ("words", True)]


def test_the_same_again_is_the_same(server: Running, alone: dict[str, Any]) -> None:
    assert {name: _samples(server, REQUESTS[name]) for name in REQUESTS} == alone


def test_two_seeds_are_two_results(server: Running, alone: dict[str, Any]) -> None:
    other = _samples(server, REQUESTS["a table, as it comes"], seed=8)
    assert other[0]["reveals"] != alone["a table, as it comes"][0]["reveals"]


def test_all_at_once_in_random_company_is_the_same_as_alone(server: Running, alone: dict[str, Any]) -> None:
    names = [name for name in REQUESTS for _ in range(4)]
    random.Random(0).shuffle(names)
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda name: _samples(server, REQUESTS[name]), names))
    for name, samples in zip(names, together, strict=True):
        assert samples == alone[name], name


@pytest.mark.parametrize("num_samples", [1, 3, 7, 31, 40])
def test_a_sample_does_not_depend_on_how_many_are_asked_for(
    server: Running, alone: dict[str, Any], num_samples: int
) -> None:
    for name in ("a table with knowns", "three time steps", "margin", "a text", "a text in time steps"):
        samples = _samples(server, REQUESTS[name], num_samples=num_samples)
        assert samples[:2] == alone[name][:num_samples], name


def test_a_list_of_prompts_of_many_lengths_gives_what_each_prompt_gives_alone(server: Running) -> None:
    prompts = [f"{'ab' * n}[MASK:{m}]" for n, m in ((0, 5), (3, 9), (8, 14), (1, 36), (2, 2), (7, 1), (5, 22))]
    request = {"model": "words", "prompt": prompts, "steps": 5}
    for sample in _samples(server, request, num_samples=3):
        single = {"model": "words", "prompt": prompts[sample["prompt_index"]], "steps": 5}
        (again,) = _samples(server, single, seed=sample["seed"], num_samples=1)
        assert again["reveals"] == sample["reveals"]


def test_streamed_is_the_same_as_whole(server: Running, alone: dict[str, Any]) -> None:
    for name, request in REQUESTS.items():
        body = {**request, "seed": 7, "num_samples": 2, "stream": True}
        with server.client.stream("POST", "/generate", json=body) as response:
            samples = [data for kind, data in events_of(response.iter_lines()) if kind == "sample"]
        assert sorted(samples, key=lambda sample: int(sample["sample_index"])) == alone[name], name


def test_after_a_restart_everything_is_the_same(artifacts: Path, alone: dict[str, Any]) -> None:
    with _serve(artifacts) as again:
        assert {name: _samples(again, REQUESTS[name]) for name in REQUESTS} == alone


def test_the_choices_are_those_of_the_golden_file(alone: dict[str, Any]) -> None:
    """Positions, tokens and seeds. UNVEIL_WRITE_GOLDEN=1 writes the file anew, to be read and committed."""
    choices = {
        name: [{"seed": s["seed"], "reveals": [[r["position"], r["token_id"]] for r in s["reveals"]]} for s in samples]
        for name, samples in alone.items()
    }
    if "UNVEIL_WRITE_GOLDEN" in os.environ:
        GOLDEN.write_text(json.dumps(choices, separators=(",", ":")).replace('],"', '],\n"') + "\n", encoding="utf-8")
    assert choices == json.loads(GOLDEN.read_text(encoding="utf-8"))
