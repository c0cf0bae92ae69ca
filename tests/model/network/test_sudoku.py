"""The network of digit planes: what it may see, the symmetries it keeps, its loops."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.data.sudoku.examples import pool
from unveil.model.denoiser import Prediction
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.build import build_network
from unveil.model.network.sudoku import PlaneBlock, PlaneNetwork
from unveil.training.data.sudoku.puzzles import draw_symmetries

NEXT_COST = OrderSpec(kind="contextual", head="next_cost")


def plane_network(*, num_loops: int = 3, order: OrderSpec = NEXT_COST, width: int = 8) -> Network:
    torch.manual_seed(0)
    architecture = Architecture(
        length=81, vocabulary_sizes=(9,), width=width, layers=1, mlp_width=12, num_loops=num_loops, trunk="planes"
    )
    network = build_network(architecture, order).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def _puzzles() -> tuple[Tensor, Tensor]:
    solutions, clues = pool()
    return torch.from_numpy(solutions[:4].astype(np.int64) - 1), torch.from_numpy(~clues[:4])


def _ask(network: Network, x: Tensor, hidden: Tensor) -> Prediction:
    result: Prediction = network(x, hidden, torch.full((len(x),), 81))
    return result


@torch.inference_mode()
def test_a_hidden_cell_says_nothing_of_its_digit() -> None:
    network, (x, hidden) = plane_network(), _puzzles()
    a, b = _ask(network, x, hidden), _ask(network, x.masked_fill(hidden, 0), hidden)
    assert torch.equal(a.token_logits, b.token_logits)
    assert torch.equal(a.order_logits, b.order_logits)


@torch.inference_mode()
def test_permuted_rows_and_columns_and_renamed_digits_move_the_answer_with_them() -> None:
    """Transposing does so too once rows and columns have the same weights."""
    network, (x, hidden) = plane_network(), _puzzles()
    _make_rows_like_columns(network)
    cells, digits = (torch.from_numpy(part) for part in draw_symmetries(len(x), np.random.default_rng(0)))
    moved = _ask(network, digits.gather(1, x.gather(1, cells)), hidden.gather(1, cells))
    plain = _ask(network, x, hidden)
    renamed = moved.token_logits.gather(2, digits[:, None].expand(-1, 81, -1))
    wanted = plain.token_logits.gather(1, cells[..., None].expand(-1, -1, 9))
    torch.testing.assert_close(renamed, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved.order_logits, plain.order_logits.gather(1, cells), rtol=1e-2, atol=1e-2)


def _make_rows_like_columns(network: Network) -> None:
    (block,) = network.blocks
    assert isinstance(block, PlaneBlock)
    D = block.values.in_features
    to_row, to_column = block.received[:2]
    to_column.load_state_dict(to_row.state_dict())
    block.values.weight[D : 2 * D] = block.values.weight[:D]
    block.values.bias[D : 2 * D] = block.values.bias[:D]


@torch.inference_mode()
@pytest.mark.parametrize(("num_loops", "reaches"), [(1, False), (2, True)])
def test_a_loop_is_one_round_of_messages(num_loops: int, reaches: bool) -> None:
    """A far cell is two units away: what stands there arrives in the second loop."""
    network = plane_network(num_loops=num_loops)
    hidden = torch.ones(1, 81, dtype=torch.bool)
    base = _ask(network, torch.zeros(1, 81, dtype=torch.long), hidden).token_logits
    hidden[0, 80] = False
    told = _ask(network, torch.zeros(1, 81, dtype=torch.long), hidden).token_logits
    changed = (told - base).abs().amax(-1)[0] > 1e-6
    assert changed[[8, 72, 60]].all(), "its column, its row, its box"
    assert bool(changed[0]) is reaches


@torch.inference_mode()
def test_the_last_of_all_loops_is_what_is_served() -> None:
    network, (x, hidden) = plane_network(), _puzzles()
    lengths = torch.full((len(x),), 81)
    prediction, earlier = network.depths(x, hidden, lengths)
    assert len(earlier) == 2
    assert torch.equal(prediction.token_logits, _ask(network, x, hidden).token_logits)
    shallow = plane_network(num_loops=1)
    shallow.load_state_dict(network.state_dict())
    torch.testing.assert_close(earlier[0], _ask(shallow, x, hidden).token_logits)
    states, logits, *_ = network.read(x, hidden, lengths)
    assert logits is not None
    assert states.shape == (4, 81, 8)
    assert torch.equal(logits, prediction.token_logits)


@torch.inference_mode()
def test_a_grid_goes_no_further_once_it_is_certain_whatever_stands_beside_it() -> None:
    """One hidden cell: its digit is told by a sharp score in the first stretch, and 40 loops are as good as 4."""
    network, shallow = plane_network(num_loops=40), plane_network(num_loops=4)
    assert isinstance(network, PlaneNetwork)
    network.score.weight.mul_(1e4)
    shallow.load_state_dict(network.state_dict())
    x, hidden = _puzzles()
    single = torch.zeros(1, 81, dtype=torch.bool)
    single[0, 40] = True
    alone, short = (_ask(net, x[:1], single).token_logits for net in (network, shallow))
    assert torch.equal(alone, short), "forty loops would say something else"
    assert not torch.equal(network.depths(x[:1], single, torch.tensor([81])).prediction.token_logits, short)
    network.score.weight.mul_(1e-4)  # doubtful again
    together = _ask(network, torch.cat([x, x[:1]]), torch.cat([hidden, single])).token_logits
    assert torch.equal(together[:4], _ask(network, x, hidden).token_logits)
    assert torch.equal(together[4:], _ask(network, x[:1], single).token_logits)


def test_rows_computed_one_by_one_or_together_say_the_same() -> None:
    """Together is how an accelerator takes them, and what computes gradients."""
    network, (x, hidden) = plane_network(num_loops=24), _puzzles()
    assert isinstance(network, PlaneNetwork)
    hidden[0] = False
    hidden[0, 40] = True
    with torch.no_grad():
        network.score.weight.mul_(3e3)
        alone = _ask(network, x, hidden).token_logits
    together = _ask(network, x, hidden).token_logits
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=0.1)
    longest = network.depths(x, hidden, torch.full((4,), 81)).prediction.token_logits
    assert (together[0] - longest[0]).abs().max() > 0.5, "it stopped, and that shows"


def test_gradients_end_where_a_stretch_begins_and_a_grid_that_is_learned_goes_no_further() -> None:
    """The first grid's only hidden digit is told by a sharp score: wrong, and it goes on; right, and it stops."""
    network, (x, hidden) = plane_network(num_loops=6), _puzzles()
    assert isinstance(network, PlaneNetwork)
    (block,) = network.blocks
    hidden[0] = torch.arange(81) == 40
    lengths = torch.full((len(x),), 81)
    sizes: list[int] = []
    block.register_forward_hook(lambda *told: sizes.append(len(told[2])))
    with torch.no_grad():
        network.score.weight.mul_(3e3)
        full = [*(plain := network.depths(x, hidden, lengths)).earlier, plain.prediction.token_logits]
        x[0, 40] = full[1][0, 40].argmax()
    sizes.clear()
    cut = network.depths(x, hidden, lengths, backward_loops=2)
    assert sizes == [4, 4, 3, 3, 3, 3]
    said = [*cut.earlier, cut.prediction.token_logits]
    for number, (ours, wanted) in enumerate(zip(said, full, strict=True)):
        torch.testing.assert_close(ours[1:], wanted[1:])
        torch.testing.assert_close(ours[0], full[min(number, 1)][0])
    assert [_reaches(logits, network.knowledge) for logits in said] == [True, True, False, False, False, False]
    assert [_reaches(logits[:1], network.score.weight) for logits in said] == [True, True, False, False, False, False]
    assert all(_reaches(logits[1:], network.score.weight) for logits in said)
    whole = network.depths(x, hidden, lengths).prediction.token_logits
    assert _reaches(whole, network.knowledge)
    sizes.clear()
    x[0, 40] = (x[0, 40] + 1) % 9
    network.depths(x, hidden, lengths, backward_loops=2)
    assert sizes == [4] * 6


def _reaches(logits: Tensor, parameter: Tensor) -> bool:
    (gradient,) = torch.autograd.grad(logits.sum(), parameter, retain_graph=True, allow_unused=True)
    return gradient is not None and bool((gradient != 0).any())


def test_nothing_is_computed_once_all_grids_are_learned() -> None:
    network, (x, _) = plane_network(num_loops=6), _puzzles()
    assert isinstance(network, PlaneNetwork)
    hidden = (torch.arange(81) == 40).expand(4, -1)
    lengths = torch.full((len(x),), 81)
    with torch.no_grad():
        network.score.weight.mul_(3e3)
        x[:, 40] = network.depths(x, hidden, lengths).earlier[1][:, 40].argmax(-1)
    prediction, earlier = network.depths(x, hidden, lengths, backward_loops=2)
    assert len(earlier) == 5
    assert all(torch.equal(logits, prediction.token_logits) for logits in earlier[1:])
    assert not prediction.token_logits.requires_grad


def test_the_order_head_teaches_the_trunk_nothing() -> None:
    network, (x, hidden) = plane_network(), _puzzles()
    _ask(network, x, hidden).order_logits.sum().backward()  # type: ignore[no-untyped-call]
    taught = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert taught
    assert all(name.startswith("order_head.") for name in taught)


def test_it_is_small() -> None:
    architecture = Architecture(
        length=81, vocabulary_sizes=(9,), width=32, layers=1, mlp_width=96, num_loops=12, trunk="planes"
    )
    assert build_network(architecture, NEXT_COST).num_parameters < 30_000


@pytest.mark.parametrize(("length", "sizes"), [(16, (4,)), (81, (10,)), (81, (9,) * 81)])
def test_planes_are_for_the_nine_by_nine_grid_alone(length: int, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="trunk planes is for grids of 81 cells and 9 digits"):
        Architecture(length=length, vocabulary_sizes=sizes, width=8, trunk="planes")
