"""An artifact whose order depends on what is revealed, served: what /order says is what /generate does."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.artifacts import random_transformer, table_tokenizer
from tests.service.servers import Running, as_prompt, run_artifacts
from unveil.model.artifact.folder import load_artifact, save_artifact

TOKENIZER = table_tokenizer()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "people"
    network = random_transformer(TOKENIZER, kind="contextual", seed=7)
    for parameter in network.order_head.parameters():
        parameter.data.mul_(3.0)  # decided, and decided otherwise for other values
    save_artifact(folder, denoiser=network, tokenizer=TOKENIZER, training={}, metrics={}, card="# People\n")
    return folder


@pytest.fixture(scope="module")
def server(artifact: Path) -> Iterator[Running]:
    with run_artifacts(checkpoints=artifact.parent, max_batch=16) as running:
        yield running


def _law(server: Running, prompt: dict[str, Any]) -> dict[str, float]:
    response = server.client.post("/order", json={"prompt": prompt})
    assert response.status_code == 200, response.text
    return {entry["name"]: entry["probability"] for entry in response.json()["positions"]}


def _samples(server: Running, **fields: Any) -> list[dict[str, Any]]:
    response = server.generate(**fields)
    assert response.status_code == 200, response.text
    samples: list[dict[str, Any]] = response.json()["samples"]
    return samples


def test_the_law_of_the_next_position_is_the_networks_own_and_follows_the_values(
    server: Running, artifact: Path
) -> None:
    denoiser = load_artifact(artifact).denoiser
    laws = []
    for prompt in ({}, {"income": ">50K"}, {"income": "<=50K"}):
        template = TOKENIZER.encode(prompt)
        tokens, hidden = torch.tensor([template.tokens]), torch.tensor([template.hidden])
        logits = denoiser(tokens, hidden, torch.tensor([5])).order_logits.double().masked_fill(~hidden, -torch.inf)
        expected = logits.softmax(-1)[0].tolist()
        law = _law(server, prompt)
        for position in hidden[0].nonzero().squeeze(-1).tolist():
            assert law[TOKENIZER.name(position)] == pytest.approx(expected[position], abs=1e-5)
        laws.append(law)
    assert sum(laws[0].values()) == pytest.approx(1.0)
    assert set(laws[1]) == set(laws[2]) == set(laws[0]) - {"income"}
    assert max(abs(laws[1][name] - laws[2][name]) for name in laws[1]) > 0.01


def test_the_first_reveals_are_drawn_from_that_law(server: Running) -> None:
    samples = _samples(server, prompt={}, num_samples=64, seed=3)
    first = Counter(sample["reveals"][0]["name"] for sample in samples)
    law = _law(server, {})
    for name, probability in law.items():
        assert abs(first[name] - 64 * probability) < 5 * (64 * probability * (1 - probability)) ** 0.5 + 1


def test_each_later_reveal_has_the_probability_that_order_gives_after_the_ones_before(server: Running) -> None:
    (sample,) = _samples(server, prompt={}, seed=11)
    known: dict[str, Any] = {}
    for reveal in sample["reveals"]:
        law = _law(server, known)
        assert reveal["order_logprob"] == pytest.approx(float(torch.tensor(law[reveal["name"]]).log()), abs=1e-4)
        known |= as_prompt({reveal["name"]: reveal["value"]})


def test_at_temperature_zero_the_likeliest_position_is_taken_every_time(server: Running) -> None:
    samples = _samples(server, prompt={}, order_temperature=0, num_samples=16, seed=5)
    assert len({tuple(reveal["name"] for reveal in sample["reveals"]) for sample in samples}) > 1
    for sample in samples[:4]:
        known: dict[str, Any] = {}
        for reveal in sample["reveals"]:
            law = _law(server, known)
            assert reveal["name"] == max(law, key=lambda name: law[name])
            known |= as_prompt({reveal["name"]: reveal["value"]})


def test_the_models_page_says_that_the_order_is_contextual(server: Running) -> None:
    (model,) = server.client.get("/v1/models").json()["data"]
    assert (model["order"], model["deterministic"]) == ("contextual", True)
