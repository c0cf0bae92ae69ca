"""Scores of every domain through a real server, beside the exact oracle: all subsets and all orders of few positions.

Real networks with random weights. The oracle asks the network itself, one subset of what is scored after the other, on
canvases without padding; what a prompt hides stays hidden in all of them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.artifacts import table_tokenizer, text_tokenizer, write_artifact
from tests.model.network.test_sudoku import plane_network
from tests.service.servers import Running, run_artifacts
from unveil.model.artifact.folder import load_artifact, save_artifact
from unveil.model.denoiser import cross_entropy
from unveil.model.network.base import Network
from unveil.model.oracle.exact import exact_nelbo, order_nelbo, subset_masks, subset_table, table_nelbo
from unveil.model.order.plackett_luce import next_log_probs
from unveil.model.tokenizers.grid import GridTokenizer
from unveil.model.tokenizers.smiles import SmilesTokenizer

NATS = 2e-5  # of float32, in fewer operations than the oracle's network takes
CELLS = {0: "5", 4: "3", 10: "7", 40: "5"}  # of a grid: a row, a box and a column join them; all others are hidden
PROMPTS: dict[str, tuple[str, Any]] = {  # what is scored: the model, and the prompt
    "a molecule and its end": ("atoms", "CO"),
    "a molecule that fills its canvas": ("atoms", "C=CO"),
    "a molecule with a hole": ("atoms", "C[MASK]O"),
    "a text": ("words", "abca"),
    "a text with holes": ("words", "ab[MASK:2]c[MASK]a"),
    "cells of a grid": ("cells", "".join(CELLS.get(i, ".") for i in range(81))),
    "some of a row": ("rows", {"age": 39, "income": ">50K", "rate": 0.5}),
}


@dataclass(frozen=True)
class Oracle:
    """Of the scored positions C in their order: `ce` and `log_pi` [2**C, C], CE(i | S) and the learned law."""

    positions: list[int]
    ce: Tensor
    log_pi: Tensor

    @property
    def orders(self) -> list[tuple[int, ...]]:
        return list(permutations(range(len(self.positions))))

    def cost(self, sigma: tuple[int, ...]) -> float:
        return float(order_nelbo(self.ce, torch.tensor(sigma)))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    write_artifact(folder / "atoms", tokenizer=SmilesTokenizer(["C", "O", "="], length=4), kind="contextual")
    write_artifact(folder / "rows", tokenizer=table_tokenizer(), kind="global")
    write_artifact(folder / "words", tokenizer=text_tokenizer(), kind="contextual")
    save_artifact(folder / "cells", denoiser=_grids(), tokenizer=GridTokenizer(), training={}, metrics={}, card="")
    return folder


def _grids() -> Network:
    """Weights large enough that four clues of a grid say something of each other."""
    network = plane_network(num_loops=4, width=16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=1.0)
    torch.nn.init.normal_(network.get_parameter("score.weight"), std=30.0)
    return network


@pytest.fixture(scope="module")
def server(artifacts: Path) -> Iterator[Running]:
    with run_artifacts(checkpoints=artifacts, max_batch=32, max_prompts=128) as running:
        yield running


def _scores(server: Running, model: str, prompt: Any, **fields: Any) -> list[dict[str, Any]]:
    response = server.client.post("/score", json={"model": model, "prompt": prompt, "seed": 7, **fields})
    assert response.status_code == 200, response.text
    scores: list[dict[str, Any]] = response.json()["scores"]
    return scores


@torch.inference_mode()
def _oracle(artifacts: Path, name: str) -> Oracle:
    model, prompt = PROMPTS[name]
    artifact = load_artifact(artifacts / model)
    template = artifact.tokenizer.encode(prompt, append=False)
    x = torch.tensor(template.tokens)
    positions = [i for i, is_hidden in enumerate(template.hidden) if not is_hidden]

    def ask(pending: Tensor) -> Any:
        """The network's answer with these of C hidden, [N, C], and with all that the prompt hides."""
        hidden = torch.tensor(template.hidden).expand(len(pending), -1).clone()
        hidden[:, positions] = pending
        lengths = torch.full((len(pending),), len(x))
        return artifact.denoiser(x.expand_as(hidden).masked_fill(hidden, 0), hidden, lengths)

    end_id, truth = artifact.tokenizer.end_id, x[positions]
    is_end = truth == (-1 if end_id is None else end_id)

    def costs(_: Tensor, pending: Tensor) -> Tensor:
        left = _undecided(pending, is_end)
        logits = ask(left).token_logits[:, positions]
        if end_id is not None:  # none stands before a token that is known
            logits[..., end_id].masked_fill_(_later(~left & ~is_end), -torch.inf)
        return cross_entropy(logits, truth.expand(len(left), -1)).masked_fill(pending & ~left, 0.0)

    pending = ~subset_masks(len(positions))
    left = _undecided(pending, is_end)
    log_pi = next_log_probs(ask(left).order_logits[:, positions], left)
    decided = pending & ~left  # comes at once, for nothing, the first of it first
    first = decided & (decided.cumsum(1) == 1)
    log_pi = torch.where(decided.any(1, keepdim=True), torch.where(first, 0.0, -torch.inf), log_pi)
    return Oracle(positions, subset_table(costs, x[None, positions])[0], log_pi)


def _undecided(pending: Tensor, is_end: Tensor) -> Tensor:
    """What is left of pending positions [N, C] without those behind a known end."""
    ends = (~pending & is_end).int()
    return pending & (ends.cumsum(1) - ends == 0)


def _later(known: Tensor) -> Tensor:
    """Whether something known stands behind each position, [N, C] -> [N, C]."""
    return known.flip(1).int().cumsum(1).flip(1) - known.int() > 0


@pytest.mark.parametrize("name", PROMPTS)
def test_left_to_right_and_back_have_the_exact_likelihood(server: Running, artifacts: Path, name: str) -> None:
    oracle = _oracle(artifacts, name)
    assert len(oracle.positions) in (3, 4)
    ahead = tuple(range(len(oracle.positions)))
    assert abs(oracle.cost(ahead) - oracle.cost(ahead[::-1])) > 1e-3, "one taken for the other would be seen"
    for order, sigma in (("left_to_right", ahead), ("right_to_left", ahead[::-1])):
        (found,) = _scores(server, *PROMPTS[name], order=order)
        assert [term["position"] for term in found["terms"]] == oracle.positions
        assert found["log_likelihood"] == pytest.approx(-oracle.cost(sigma), abs=NATS)
        assert (found["nelbo"], found["standard_error"]) == (-found["log_likelihood"], 0)


@pytest.mark.parametrize("name", PROMPTS)
def test_all_orders_one_by_one_have_the_oracles_costs_and_their_mean_is_the_uniform_bound(
    server: Running, artifacts: Path, name: str
) -> None:
    oracle = _oracle(artifacts, name)
    found = []
    for sigma in oracle.orders:
        (score,) = _scores(server, *PROMPTS[name], order=[oracle.positions[i] for i in sigma])
        assert score["log_likelihood"] == pytest.approx(-oracle.cost(sigma), abs=NATS)
        found.append(score["nelbo"])
    exact = float(exact_nelbo(torch.zeros(len(oracle.positions)), oracle.ce))
    assert math.fsum(found) / len(found) == pytest.approx(exact, abs=NATS)


@pytest.mark.parametrize("name", PROMPTS)
def test_drawn_orders_have_the_exact_bound_within_four_standard_errors(
    server: Running, artifacts: Path, name: str
) -> None:
    oracle = _oracle(artifacts, name)
    uniform = float(exact_nelbo(torch.zeros(len(oracle.positions)), oracle.ce))
    learned = float(table_nelbo(oracle.log_pi, oracle.ce))
    for order, exact in (("uniform", uniform), ("learned", learned)):
        (found,) = _scores(server, *PROMPTS[name], order=order, num_orders=256)
        assert 1e-5 < found["standard_error"] < 0.1
        assert abs(found["nelbo"] - exact) < 4 * found["standard_error"]


def test_the_likelihoods_of_all_pairs_of_characters_around_a_hole_sum_to_one(server: Running, artifacts: Path) -> None:
    characters = sorted(load_artifact(artifacts / "words").tokenizer.alphabet)  # type: ignore[attr-defined]
    prompts = [f"{a}[MASK]{b}" for a, b in product(characters, repeat=2)]
    for order in ("left_to_right", "right_to_left", "entropy"):
        parts = [_scores(server, "words", prompts[i : i + 100], order=order) for i in range(0, len(prompts), 100)]
        found = [score["log_likelihood"] for part in parts for score in part]
        assert len(found) == len(characters) ** 2
        assert math.fsum(map(math.exp, found)) == pytest.approx(1, abs=NATS)


def test_the_likelihoods_of_all_digits_of_two_cells_sum_to_one(server: Running) -> None:
    grids = [f"{a}{'.' * 39}{b}{'.' * 40}" for a, b in product("123456789", repeat=2)]
    for order in ("left_to_right", "margin"):
        found = [score["log_likelihood"] for score in _scores(server, "cells", grids, order=order)]
        assert math.fsum(map(math.exp, found)) == pytest.approx(1, abs=NATS)
