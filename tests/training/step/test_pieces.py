"""Whole rows in pieces of like length: nothing that is said of a position changes, and what nobody asks is left out."""

import pytest
import torch

from unveil.model.loss.objective import questions_about, turns_of
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.build import build_network
from unveil.training.step import training_model
from unveil.training.step.training_model import StepLosses, TrainingModule, pieces_of

L, B, END = 9, 7, 0


def _rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(1, 5, (B, L), generator=generator)
    sizes = torch.tensor([2, 9, 5, 3, 8, 1, 4])
    x = x.masked_fill(torch.arange(L) >= sizes[:, None], END)
    ranks = torch.arange(1, L + 1).repeat(B, 1)
    ranks[1] = torch.rand(L, generator=generator).argsort() + 1
    ranks[2] = torch.tensor([1, 2, 0, 0, 3, 4, 0, 5, 6])  # a prompt that knows an end
    return x, turns_of(ranks, x, end_id=END)


def test_pieces_hold_all_that_is_read_or_asked_and_no_more() -> None:
    _, turns = _rows()
    pieces = pieces_of(turns, torch.full((B,), L))
    assert sorted(torch.cat([rows for rows, _ in pieces]).tolist()) == list(range(B))
    for rows, length in pieces:
        assert (turns[rows, length:] == L + 1).all()
        assert (turns[rows, length - 1] <= L).any()


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_losses_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch, size: int, *, asks: bool) -> None:
    torch.manual_seed(0)
    shape = {"length": L, "vocabulary_sizes": (5,), "width": 16, "layers": 2, "heads": 2, "mlp_width": 32}
    network = build_network(Architecture(**shape, query_layers=1, relative_bias=True), OrderSpec(kind="global"))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    module, (x, turns), lengths = (
        TrainingModule(network, marginals=torch.zeros(1, 5)).train(),
        _rows(),
        torch.full((B,), L),
    )
    chance = torch.rand((2, B, 6), generator=torch.Generator().manual_seed(1))
    questions = questions_about(turns, lengths, chance=chance) if asks else None
    found = []
    for piece in (size, B):
        monkeypatch.setattr(training_model, "_PIECE", piece)
        losses: StepLosses = module(x, turns > 0, lengths, ranks=turns, questions=questions)
        paid = (turns > 0) & (turns <= L)
        found.append([losses.token.masked_fill(~paid, 0.0).detach()])
        if losses.asked is not None and questions is not None:
            found[-1].append((losses.asked * questions.weights).detach())
    whole = torch.nn.functional.cross_entropy(
        network.in_turn(x, turns, lengths).flatten(0, 1), x.flatten(), reduction="none"
    ).view(B, L)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0][0], whole.detach().masked_fill(~paid, 0.0), rtol=1e-4, atol=1e-5)
