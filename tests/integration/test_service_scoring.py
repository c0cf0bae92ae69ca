"""Scores of real networks through real servers: the oracle's values, the same bits in any company, now and later.

Real networks with random weights. Compared to the last bit, as JSON prints it, where the promise is sameness.
"""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.artifacts import table_tokenizer, text_tokenizer, write_artifact
from tests.service.servers import Running, as_prompt, run_artifacts
from unveil.model.artifact.folder import load_artifact
from unveil.model.denoiser import cross_entropy
from unveil.model.oracle.exact import exact_nelbo, order_nelbo, subset_table

WHOLE = {"age": 39, "workclass": "class 1", "income": ">50K", "hours": 3, "rate": 0.5}
REQUESTS: dict[str, dict[str, Any]] = {
    "a row": {"prompt": WHOLE},
    "some of a row": {"prompt": {"age": 39, "income": ">50K"}},
    "rows": {"prompt": [WHOLE, {"age": 20}, {"hours": 2, "rate": 0.5}], "num_orders": 3},
    "uniform": {"prompt": WHOLE, "order": "uniform", "num_orders": 5},
    "the likeliest order": {"prompt": WHOLE, "order_temperature": 0},
    "confidence": {"prompt": WHOLE, "order": "confidence"},
    "margin": {"prompt": {"age": 39, "hours": 3, "rate": 0.5}, "order": "margin"},
    "entropy": {"prompt": WHOLE, "order": "entropy"},
    "left to right": {"prompt": WHOLE, "order": "left_to_right"},
    "explicit": {"prompt": {"age": 39, "hours": 3, "rate": 0.5}, "order": [4, 0, 3]},
    "a text": {"model": "words", "prompt": "abc def", "num_orders": 4},
    "a text with holes": {"model": "words", "prompt": "ab[MASK:3]c[MASK:20]de", "order": "entropy"},
    "a long text": {"model": "words", "prompt": "ab no mm. " * 4, "order": "right_to_left"},
    "texts of many lengths": {"model": "words", "prompt": ["a", "abc[MASK:17]", "no" * 19], "num_orders": 2},
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
    """Each request's scores when nobody else is served."""
    return {name: _scores(server, request) for name, request in REQUESTS.items()}


def _scores(server: Running, request: dict[str, Any], *, seed: int = 7) -> list[dict[str, Any]]:
    response = server.client.post("/score", json={**request, "seed": seed})
    assert response.status_code == 200, response.text
    scores: list[dict[str, Any]] = response.json()["scores"]
    return scores


def test_all_at_once_in_random_company_is_the_same_as_alone(server: Running, alone: dict[str, Any]) -> None:
    names = [name for name in REQUESTS for _ in range(4)]
    random.Random(0).shuffle(names)
    generations = [{"prompt": {}, "num_samples": 9}, {"model": "words", "prompt": "ab[MASK:9]", "num_samples": 5}] * 6
    with ThreadPoolExecutor(16) as pool:
        others = [pool.submit(server.generate, **fields) for fields in generations]
        together = list(pool.map(lambda name: _scores(server, REQUESTS[name]), names))
        assert all(other.result().status_code == 200 for other in others)
    for name, scores in zip(names, together, strict=True):
        assert scores == alone[name], name


def test_a_list_gives_what_each_prompt_gives_alone(server: Running, alone: dict[str, Any]) -> None:
    for name in ("rows", "texts of many lengths"):
        for index, prompt in enumerate(REQUESTS[name]["prompt"]):
            (single,) = _scores(server, {**REQUESTS[name], "prompt": prompt})
            assert {**single, "prompt_index": index} == alone[name][index]


def test_after_a_restart_everything_is_the_same(artifacts: Path, alone: dict[str, Any]) -> None:
    with _serve(artifacts) as again:
        assert {name: _scores(again, REQUESTS[name]) for name in REQUESTS} == alone


def _table(artifacts: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """CE(i | S) of the whole row, [2**5, 5], and the learned log w."""
    artifact = load_artifact(artifacts / "rows")
    tokens = torch.tensor([artifact.tokenizer.encode(WHOLE).tokens])

    @torch.inference_mode()
    def costs(x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        prediction = artifact.denoiser(x.masked_fill(hidden, 0), hidden, torch.full((len(x),), 5))
        return cross_entropy(prediction.token_logits, x)

    hidden = torch.ones(1, 5, dtype=torch.bool)
    with torch.inference_mode():
        log_w = artifact.denoiser(torch.zeros_like(tokens), hidden, torch.tensor([5])).order_logits[0]
    return subset_table(costs, tokens)[0], log_w


def test_a_fixed_order_has_the_oracles_likelihood(server: Running, artifacts: Path) -> None:
    ce, log_w = _table(artifacts)
    by_weight = log_w.argsort(descending=True).tolist()
    orders = {"left_to_right": [0, 1, 2, 3, 4], "right_to_left": [4, 3, 2, 1, 0], "learned": by_weight}
    for name, sigma in orders.items():
        request = {"prompt": WHOLE, "order": name, **({"order_temperature": 0} if name == "learned" else {})}
        (found,) = _scores(server, request)
        assert found["log_likelihood"] == pytest.approx(-float(order_nelbo(ce, torch.tensor(sigma))), abs=1e-4)
    (found,) = _scores(server, {"prompt": WHOLE, "order": [3, 1, 4, 0, 2]})
    assert found["log_likelihood"] == pytest.approx(-float(order_nelbo(ce, torch.tensor([3, 1, 4, 0, 2]))), abs=1e-4)


def test_drawn_orders_have_the_oracles_bound_within_the_standard_error_that_is_told(
    server: Running, artifacts: Path
) -> None:
    ce, log_w = _table(artifacts)
    for order, weights in (("learned", log_w), ("uniform", torch.zeros(5))):
        (found,) = _scores(server, {"prompt": WHOLE, "order": order, "num_orders": 256})
        assert 0 < found["standard_error"] < 1
        assert abs(found["nelbo"] - float(exact_nelbo(weights, ce))) < 4 * found["standard_error"]


def test_a_generated_row_scored_with_its_own_seed_costs_what_its_reveals_said(server: Running) -> None:
    for order in ("learned", "uniform", "confidence", "left_to_right"):
        for sample in server.generate(prompt={}, order=order, num_samples=3, seed=5).json()["samples"]:
            request = {"prompt": as_prompt(sample["output"]), "order": order, "num_orders": 1}
            (found,) = _scores(server, request, seed=sample["seed"])
            said = {r["position"]: (r["step"], -r["logprob"]) for r in sample["reveals"]}
            assert {t["position"]: (t["mean_step"], t["nats"]) for t in found["terms"]} == said
