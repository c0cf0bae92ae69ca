"""Late queries: what is asked sees what was revealed before its turn, all of it, and nothing else."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from unveil.model.denoiser import cross_entropy
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.build import build_network
from unveil.model.network.late import LateQueries
from unveil.training.evaluation.conditionals import ask_in_turn

L = 6
RANKS = torch.tensor([[2, 0, 1, 4, 3, 0], [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 1, 0]])
TOKENS = torch.tensor([[1, 2, 3, 4, 0, 1], [4, 3, 2, 1, 0, 0], [0, 1, 0, 1, 0, 1]])
LENGTHS = torch.tensor([6, 6, 5])
KINDS: dict[str, dict[str, Any]] = {
    "no bias": {},
    "relative bias": {"relative_bias": True},
    "pair bias": {"pair_bias": True},
    "two query layers": {"query_layers": 2, "relative_bias": True},
    "columns": {"vocabulary_sizes": (5, 6, 7, 5, 8, 5), "pair_bias": True},
}


def _network(*, length: int = L, **fields: Any) -> LateQueries:
    torch.manual_seed(1)
    shape = {"length": length, "vocabulary_sizes": (5,), "width": 32, "layers": 2, "heads": 4, "mlp_width": 64}
    architecture = Architecture(**{**shape, "query_layers": 1, **fields})
    network = build_network(architecture, OrderSpec(kind="global")).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert isinstance(network, LateQueries)
    return network


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_all_turns_in_one_forward_are_what_a_forward_for_each_turn_says(kind: str) -> None:
    network = _network(**KINDS[kind])
    found = network.in_turn(TOKENS, RANKS, LENGTHS)
    for rank in range(1, L + 1):
        own, later = rank == RANKS, rank <= RANKS
        ranks = RANKS.masked_fill(later, rank)
        alone = network.predict_now(TOKENS, later, LENGTHS, ranks).token_logits
        torch.testing.assert_close(found[own], alone[own], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_whatever_is_asked_before_whichever_turn_is_what_that_state_says_of_it(kind: str) -> None:
    network = _network(**KINDS[kind])
    positions, turns = torch.tensor([[3, 4, 3, 0], [5, 5, 3, 0], [4, 4, 4, 4]]), torch.tensor([[1], [4], [1]])
    turns = torch.cat([turns, turns, torch.full((3, 2), 1)], 1)
    in_turn, asked = network.answers(TOKENS, RANKS, LENGTHS, positions, turns)
    assert torch.equal(in_turn, network.in_turn(TOKENS, RANKS, LENGTHS))
    for row, column in product(range(3), range(4)):
        turn, later = turns[row, column], RANKS[row : row + 1] >= turns[row, column]
        ranks = RANKS[row : row + 1].masked_fill(later, int(turn))
        alone = network.predict_now(TOKENS[row : row + 1], later, LENGTHS[row : row + 1], ranks).token_logits
        expected = alone[0, positions[row, column]]
        torch.testing.assert_close(asked[row, column], expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_no_answer_is_seen_before_its_turn_and_every_one_after_it() -> None:
    network = _network(relative_bias=True)
    before = network.in_turn(TOKENS[:2], RANKS[:2], LENGTHS[:2])
    for position in range(L):
        tokens = TOKENS[:2].clone()
        tokens[:, position] = (tokens[:, position] + 1) % 5
        changed = (network.in_turn(tokens, RANKS[:2], LENGTHS[:2]) != before).any(-1)
        knows = RANKS[:2] > RANKS[:2, position, None]
        assert not (changed & ~knows & (RANKS[:2] > 0)).any(), position
        assert changed[knows].all(), position


@torch.inference_mode()
def test_the_order_of_the_past_matters_and_that_of_a_prompt_does_not() -> None:
    network = _network()
    ranks = torch.tensor([[1, 2, 3, 4, 5, 6]])
    other = torch.tensor([[2, 1, 3, 4, 5, 6]])
    first, second = (network.in_turn(TOKENS[:1], own, LENGTHS[:1])[:, 2:] for own in (ranks, other))
    assert not torch.allclose(first, second, atol=1e-4)
    hidden = torch.tensor([[False, False, True, True, True, True]])
    known = network(TOKENS[:1], hidden, LENGTHS[:1]).token_logits[:, 2:]
    torch.testing.assert_close(
        network.in_turn(TOKENS[:1], ranks.masked_fill(~hidden, 0), LENGTHS[:1])[:, 2], known[:, 0]
    )


@torch.inference_mode()
def test_what_is_hidden_or_past_the_end_says_nothing() -> None:
    network = _network(relative_bias=True)
    hidden = torch.tensor([[False, True, False, True, True, True]])
    whole = network(TOKENS[:1], hidden, torch.tensor([6])).token_logits
    for length in (3, 4, 5):
        cut = network(TOKENS[:1], hidden, torch.tensor([length])).token_logits
        torch.testing.assert_close(cut[:, :length], whole[:, :length], rtol=1e-5, atol=1e-5)
    everything = torch.ones(1, L, dtype=torch.bool)
    assert torch.isfinite(network(TOKENS[:1], everything, torch.tensor([1])).token_logits).all()


@pytest.mark.parametrize("end_id", [None, 0])
@torch.inference_mode()
def test_the_likelihoods_of_all_rows_sum_to_one_along_any_order(end_id: int | None) -> None:
    """With an end, of the rows in which nothing else stands behind one; ends that it decides cost nothing."""
    network = _network(length=4, vocabulary_sizes=(3,))
    rows = torch.tensor(list(product(range(3), repeat=4)))
    if end_id is not None:
        is_end = rows == end_id
        rows = rows[(is_end.cumsum(-1).clamp(max=1) == is_end.long()).all(-1)]
        assert len(rows) == 1 + 2 + 4 + 8 + 16
    lengths = torch.full((len(rows),), 4)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        ranks = torch.empty(4, dtype=torch.long)
        ranks[order] = torch.arange(1, 5)
        turns = _turns(ranks.expand(rows.shape), rows, end_id)
        nats = cross_entropy(ask_in_turn(network, rows, turns, lengths, end_id=end_id).token_logits, rows).double()
        total = (-(nats * (turns <= 4)).sum(-1)).exp().sum()
        assert float(total) == pytest.approx(1.0, abs=1e-5), order


def _turns(ranks: Tensor, x: Tensor, end_id: int | None) -> Tensor:
    """Of each position in a loop: the ends that one in front decides are read by nobody."""
    turns = ranks.clone()
    for row, i in product(range(len(x)), range(x.shape[1])):
        in_front = [int(ranks[row, j]) for j in range(i) if x[row, j] == end_id]
        if x[row, i] == end_id and any(rank < int(ranks[row, i]) for rank in in_front):
            turns[row, i] = x.shape[1] + 1
    return turns


def test_what_is_known_has_a_finite_gradient_in_bf16_too() -> None:
    """No query stands for it; one that read nothing would be NaN, and spoil all gradients though nobody pays it."""
    network = _network(relative_bias=True).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network.in_turn(TOKENS, RANKS, LENGTHS)
    assert torch.isfinite(logits).all()
    logits[RANKS > 0].float().square().mean().backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
