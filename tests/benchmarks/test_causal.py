"""The causal transformer: what it reads, what its loss is, and that it learns within the seconds it is given."""

import math

import pytest
import torch
from torch import Tensor

from unveil.benchmarks.domains.problems.text.causal import (
    CausalSettings,
    CausalTransformer,
    causal_nats,
    optimizers_of,
    rotary,
    rotated,
    train_causal,
)
from unveil.model.network.architecture import Architecture

ARCHITECTURE = Architecture(length=12, vocabulary_sizes=(7,), width=16, layers=2, heads=2, mlp_width=32)


@pytest.fixture
def net() -> CausalTransformer:
    """With weights large enough that what is read matters."""
    torch.manual_seed(0)
    made = CausalTransformer(ARCHITECTURE).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def tokens(rows: int) -> Tensor:
    """Random ids, [rows, 12]."""
    return torch.randint(7, (rows, 12), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_later_tokens_do_not_change_earlier_logits_and_each_changes_the_next(net: CausalTransformer) -> None:
    before = tokens(4)
    for place in range(12):
        after = before.clone()
        after[:, place] = (after[:, place] + 1) % 7
        changed = (net(after) - net(before)).abs().amax((0, 2))  # [L]
        assert torch.equal(changed[: place + 1], torch.zeros(place + 1)), "nor the logits of the token itself"
        assert (changed[place + 1 :] > 0).all()


@torch.inference_mode()
def test_the_nats_of_all_texts_are_a_distribution(net: CausalTransformer) -> None:
    every = torch.cartesian_prod(*[torch.arange(7)] * 3)  # [343, 3]
    total = (-causal_nats(net, every).sum(1)).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-5)


def test_rotation_keeps_lengths_and_sees_distances_alone() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).expand(2, 1, 1, 12, 8)
    rotation = rotary(12, 8)
    scores = (rotated(q, rotation) @ rotated(k, rotation).transpose(-1, -2))[0, 0]  # [12, 12]
    torch.testing.assert_close(rotated(q, rotation).norm(dim=-1), q.norm(dim=-1))
    torch.testing.assert_close(scores[1:, 1:], scores[:-1, :-1], atol=1e-5, rtol=1e-5)


def test_it_learns_what_follows_what_within_its_seconds() -> None:
    starts = torch.randint(7, (64, 1), generator=torch.Generator().manual_seed(2))
    rows = (starts + torch.arange(12)) % 7
    net, num_steps = train_causal(ARCHITECTURE, rows, CausalSettings(seconds=1.0, learning_rate=1e-2, batch_size=16))
    nats = causal_nats(net, rows).mean(0)  # [L]
    assert num_steps > 1
    assert float(nats[1:].mean()) < 0.5 * math.log(7), "the first token is chance"


def test_the_learning_rate_rises_and_falls_over_its_seconds() -> None:
    settings = CausalSettings(seconds=10.0, learning_rate=0.1)
    rates = [settings.share(progress / 100) for progress in range(101)]
    assert rates[0] == 0.0
    assert rates[100] == pytest.approx(0.0)
    assert max(rates) == pytest.approx(rates[5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[:6] == sorted(rates[:6])


@pytest.mark.parametrize("matrix_rate", [0.0, 0.02])
def test_every_parameter_has_one_optimizer_and_muon_has_the_matrices_of_blocks(
    net: CausalTransformer, matrix_rate: float
) -> None:
    settings = CausalSettings(seconds=1.0, learning_rate=0.1, matrix_rate=matrix_rate)
    made = optimizers_of(net, settings)
    assert [peak for _, peak in made] == ([0.1, matrix_rate] if matrix_rate else [0.1])
    moved = [[id(own) for group in optimizer.param_groups for own in group["params"]] for optimizer, _ in made]
    assert sorted(own for each in moved for own in each) == sorted(id(own) for own in net.parameters())
    matrices = {id(own) for own in net.blocks.parameters() if own.ndim == 2}
    assert set(moved[-1]) == matrices if matrix_rate else matrices <= set(moved[0])
