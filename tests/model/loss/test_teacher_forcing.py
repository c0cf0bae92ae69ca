"""Whole orders in one forward: two streams that never see an answer, and a loss that estimates the NELBO."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.enumerable import World, random_world
from unveil.model.loss.objective import teacher_forced
from unveil.model.loss.prefixes import Prefixes, prefix_draws
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.attention import attend_streams, stream_bias, visible_bias
from unveil.model.network.transformer import Transformer
from unveil.model.oracle.exact import exact_nelbo, subset_table

L = 6
RANKS = torch.tensor([[2, 0, 1, 4, 3, 0], [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 1, 0]])
TOKENS = torch.tensor([[1, 2, 3, 4, 0, 1], [4, 3, 2, 1, 0, 0], [0, 1, 0, 1, 0, 1]])
LENGTHS = torch.tensor([6, 6, 5])
BIASES: list[dict[str, Any]] = [{}, {"relative_bias": True}, {"pair_bias": True}]


def _network(*, layers: int = 2, sizes: tuple[int, ...] = (5,), **fields: Any) -> Transformer:
    torch.manual_seed(1)
    shape = {"length": L, "vocabulary_sizes": sizes, "width": 32, "layers": layers, "heads": 4, "mlp_width": 64}
    network = Transformer(Architecture(**shape, attends="visible", **fields), OrderSpec(kind="global")).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@torch.inference_mode()
def _one_by_one(network: Transformer) -> Tensor:
    """What a forward for each turn says of the position whose turn it is: [B, L, V]."""
    V = network.architecture.vocabulary_sizes[0]
    logits = torch.zeros(*TOKENS.shape, V)
    for rank in range(1, L + 1):
        own = rank == RANKS
        logits[own] = network(TOKENS, rank <= RANKS, LENGTHS).token_logits[own]
    return logits


@pytest.mark.parametrize("bias", BIASES, ids=["none", "relative", "pair"])
@torch.inference_mode()
def test_one_forward_is_exact_for_what_comes_next_and_with_one_layer_for_all_that_follows(bias: dict[str, Any]) -> None:
    for layers, turns in ((1, RANKS > 0), (3, RANKS == 1)):
        network = _network(layers=layers, **bias)
        found = network.in_turn(TOKENS, RANKS, LENGTHS)
        torch.testing.assert_close(found[turns], _one_by_one(network)[turns], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_tables_columns_are_asked_in_turn_too() -> None:
    sizes = (5, 6, 7, 5, 8, 5)
    network = _network(layers=1, sizes=sizes)
    lengths = torch.full((3,), L)
    found = network.in_turn(TOKENS, RANKS, lengths)
    for rank in range(1, L + 1):
        own = rank == RANKS
        expected = network(TOKENS, rank <= RANKS, lengths).token_logits[own]
        torch.testing.assert_close(found[own], expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_no_answer_is_seen_before_its_turn() -> None:
    network = _network(layers=3, relative_bias=True)
    before = network.in_turn(TOKENS[:2], RANKS[:2], LENGTHS[:2])
    for position in range(L):
        tokens = TOKENS[:2].clone()
        tokens[:, position] = (tokens[:, position] + 1) % 5
        after = network.in_turn(tokens, RANKS[:2], LENGTHS[:2])
        changed = (after != before).any(-1)
        knows = RANKS[:2] > RANKS[:2, position, None]
        assert not (changed & ~knows & (RANKS[:2] > 0)).any(), position
        assert changed[knows].all(), position


@torch.inference_mode()
def test_what_is_hidden_says_nothing_of_how_much_is_hidden() -> None:
    """Positions that are hidden and positions that are not there are the same to all others."""
    network = _network(relative_bias=True)
    hidden = torch.tensor([[False, True, False, True, True, True]])
    whole = network(TOKENS[:1], hidden, torch.tensor([6])).token_logits
    for length in (3, 4, 5):
        cut = network(TOKENS[:1], hidden, torch.tensor([length])).token_logits
        torch.testing.assert_close(cut[:, :length], whole[:, :length], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_canvas_of_which_nothing_is_visible_is_answered() -> None:
    everything = torch.ones(1, L, dtype=torch.bool)
    for length in (1, 6):
        assert torch.isfinite(_network()(TOKENS[:1], everything, torch.tensor([length])).token_logits).all()
    assert torch.isfinite(_network().in_turn(TOKENS[:1], torch.arange(L)[None] + 1, torch.tensor([6]))).all()


def test_who_may_read_whom() -> None:
    ranks, lengths = torch.tensor([[0, 1, 2, 0]]), torch.tensor([3])
    contents, questions = stream_bias(ranks, lengths, torch.float32)[:, 0].isfinite().int().tolist()
    assert contents == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]
    assert questions == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    seen = visible_bias(ranks > 0, lengths, torch.float32)[0, 0].isfinite().int().tolist()
    assert seen == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
def test_two_streams_attend_as_one_row_of_twice_the_length_would(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    B, H, E = 3, 2, 8
    q, k, v = (torch.randn(2 * B, H, L, E, generator=generator, dtype=torch.float64) for _ in range(3))
    bias = stream_bias(RANKS, LENGTHS, torch.float64)
    contents, questions = bias[:B], bias[B:]
    itself = torch.full((B, 1, L, L), -torch.inf, dtype=torch.float64)
    itself.diagonal(dim1=-2, dim2=-1).zero_()
    others = questions.masked_fill(itself == 0, -torch.inf)  # of the contents a question does not read its own
    wide = torch.cat(
        [torch.cat([contents, torch.full_like(itself, -torch.inf)], -1), torch.cat([others, itself], -1)], -2
    )
    q2, k2, v2 = (torch.cat([x[:B], x[B:]], 2) for x in (q, k, v))
    scores = q2 @ k2.transpose(-2, -1) * E**-0.5 + wide
    expected = torch.cat(((scores.softmax(-1) @ v2)[:, :, :L], (scores.softmax(-1) @ v2)[:, :, L:]))
    found = attend_streams(q.to(dtype), k.to(dtype), v.to(dtype), bias.to(dtype))
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def _draws(log_w: Tensor, B: int, *, known: Tensor, generator: torch.Generator) -> Prefixes:
    draws = prefix_draws(known.expand(B, -1), generator=generator)
    return replace(draws, shows_little=True).under(log_w)


@pytest.mark.parametrize("known", [[], [1]], ids=["no prompt", "prompt"])
def test_the_loss_of_whole_orders_estimates_the_nelbo(known: list[int]) -> None:
    world, generator, B = random_world(L=4, seed=3, imperfection=2.0), torch.Generator().manual_seed(0), 60_000
    log_w = torch.tensor([1.0, -0.4, 0.3, -0.9], dtype=torch.float64)
    is_known = torch.zeros(4, dtype=torch.bool)
    is_known[known] = True
    prefixes = _draws(log_w, B, known=is_known, generator=generator)
    x = world.draw(B, generator)
    loss = teacher_forced(_losses_in_turn(world, x, prefixes), prefixes)
    if known:  # the rest of the order, after the prompt, by enumeration: the law of the others is the same
        truth = _exact_after(world.mean_table(), log_w, is_known)
    else:
        truth = float(exact_nelbo(log_w, world.mean_table()))
    error = float(loss.row_nelbos.std() / B**0.5)
    assert abs(float(loss.total) - truth) < 4 * error
    assert error < 0.01 * truth, "a pass means something"
    named = "conditional_nelbo" if known else "nelbo"
    assert float(loss.parts[named]) == pytest.approx(float(loss.total))
    assert int(loss.parts[f"num_{named}"]) == B


def _losses_in_turn(world: World, x: Tensor, prefixes: Prefixes) -> Tensor:
    """Each position's loss as of just before its turn: [B, L]."""
    losses = torch.zeros(x.shape, dtype=torch.float64)
    for place in range(x.shape[1]):
        position = prefixes.sigma[:, place, None]
        losses.scatter_(1, position, world.cross_entropy(x, prefixes.places >= place).gather(1, position))
    return losses


def test_a_critic_is_asked_what_each_position_costs_after_the_very_set_that_was_known_at_its_turn() -> None:
    world, generator, B = random_world(L=4, seed=3, imperfection=2.0), torch.Generator().manual_seed(0), 200_000
    prefixes = _draws(torch.zeros(4), B, known=torch.zeros(4, dtype=torch.bool), generator=generator)
    losses = _losses_in_turn(world, world.draw(B, generator), prefixes)
    asked, hidden = prefixes.some_turns(8)
    assert asked.shape == (B, 4), "no more turns than positions"
    known = ((~hidden).long() << torch.arange(4)).sum(-1)
    cell, paid = (known * 4 + asked).flatten(), losses.gather(1, asked).flatten()
    counts = torch.bincount(cell, minlength=64)
    means = torch.bincount(cell, weights=paid, minlength=64) / counts.clamp(min=1)
    squares = torch.bincount(cell, weights=paid**2, minlength=64) / counts.clamp(min=1)
    errors = ((squares - means**2).clamp(min=0) / counts.clamp(min=1)).sqrt()
    truth, is_met = world.mean_table().flatten(), counts > 0
    assert int(is_met.sum()) == 32, "every position after every set without it"
    assert ((means - truth).abs() < 5 * errors + 1e-9)[is_met].all()
    assert float(errors[is_met].max()) < 0.05


def _exact_after(table: Tensor, log_w: Tensor, known: Tensor) -> float:
    """The NELBO of what a prompt leaves, by recursion over the sets that contain it."""

    def rest(revealed: Tensor) -> float:
        hidden = (~revealed).nonzero()[:, 0].tolist()
        index = int((revealed.long() << torch.arange(4)).sum())
        q = log_w[hidden].softmax(0).tolist()
        total = 0.0
        for position, chance in zip(hidden, q, strict=True):
            after = revealed.clone()
            after[position] = True
            total += chance * (float(table[index, position]) + rest(after))
        return total

    return rest(known)


def test_every_step_is_trained_and_what_is_visible_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    known = torch.zeros(L, dtype=torch.bool)
    known[2] = True
    prefixes = _draws(torch.zeros(L), 64, known=known, generator=generator)
    losses = torch.rand(64, L, generator=generator).masked_fill(~prefixes.hidden, torch.inf).requires_grad_()
    (gradient,) = torch.autograd.grad(teacher_forced(losses, prefixes).total, losses)
    assert torch.equal(gradient != 0, prefixes.hidden)
    assert torch.isfinite(gradient).all()
    assert (prefixes.num_revealed == 0).sum() >= 32, "half of the rows begin at the beginning"


def test_ranks_and_turns_follow_the_order() -> None:
    prefixes = _draws(
        torch.zeros(L), 32, known=torch.zeros(L, dtype=torch.bool), generator=torch.Generator().manual_seed(1)
    )
    for row in range(32):
        k = int(prefixes.num_revealed[row])
        order = prefixes.sigma[row].tolist()
        assert [int(prefixes.ranks[row, i]) for i in order] == [0] * k + list(range(1, L - k + 1))
        assert [int(prefixes.history[row, i]) for i in order] == [*range(1, k + 1), *[k + 1] * (L - k)]
    asked, hidden = prefixes.some_turns(4)
    assert asked.shape == (32, 4)
    for row in range(32):
        for turn in range(4):
            position = int(asked[row, turn])
            place = prefixes.sigma[row].tolist().index(position)
            assert place >= int(prefixes.num_revealed[row])
            assert torch.equal(hidden[row, turn], prefixes.places[row] >= place)


def test_every_turn_is_looked_at_equally_often_among_those_that_a_row_does_not_show() -> None:
    length, B = 48, 20_000
    known = torch.zeros(length, dtype=torch.bool)
    prefixes = _draws(torch.zeros(length), B, known=known, generator=torch.Generator().manual_seed(2))
    asked, _ = prefixes.some_turns(8)
    places = prefixes.places.gather(1, asked)
    whole = prefixes.num_revealed == 0
    counts = torch.bincount(places[whole].flatten(), minlength=length).double()
    assert counts.min() > 0.85 * counts.mean(), "of whole orders every place alike"
    assert (torch.bincount(places[~whole].flatten(), minlength=length)[1:] > 0).all()


def test_a_table_of_the_network_is_a_function_of_sets() -> None:
    """The oracle reads it as any other network: nothing depends on the order in which a set came about."""
    network = _network(layers=2)
    x = TOKENS[:1]

    @torch.inference_mode()
    def cross_entropy(rows: Tensor, hidden: Tensor) -> Tensor:
        logits = network(rows, hidden, torch.full((len(rows),), L)).token_logits
        nats: Tensor = -logits.log_softmax(-1).gather(-1, rows[..., None]).squeeze(-1)
        return nats

    table = subset_table(cross_entropy, x)
    assert table.shape == (1, 2**L, L)
    assert torch.isfinite(table).all()
    assert float(exact_nelbo(torch.zeros(L), table)[0]) > 0


def test_a_prompt_is_the_beginning_of_every_history() -> None:
    known = torch.tensor([False, True, False, False, True, False])
    prefixes = _draws(torch.zeros(L), 32, known=known, generator=torch.Generator().manual_seed(1))
    assert not prefixes.history[:, known].any()
    assert (prefixes.history[:, ~known] > 0).all()
    assert torch.equal(prefixes.history == prefixes.num_revealed[:, None] + 1, prefixes.hidden)
