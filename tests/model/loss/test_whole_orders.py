"""Whole orders in one forward: a loss that is each row's own, turns that ends decide, and questions besides."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from tests.model.enumerable import World, random_world
from unveil.model.loss.critic import undecided
from unveil.model.loss.objective import questions_about, turns_of, whole_orders
from unveil.model.loss.prefixes import Prefixes, prefix_draws
from unveil.model.oracle.exact import exact_nelbo

L = 6
NOBODY = L + 1


def _draws(log_w: Tensor, B: int, *, known: Tensor, generator: torch.Generator) -> Prefixes:
    return prefix_draws(known.expand(B, -1), generator=generator).whole().under(log_w)


@pytest.mark.parametrize("known", [[], [1]], ids=["no prompt", "prompt"])
def test_the_loss_of_whole_orders_estimates_the_nelbo(known: list[int]) -> None:
    world, generator, B = random_world(L=4, seed=3, imperfection=2.0), torch.Generator().manual_seed(0), 30_000
    log_w = torch.tensor([1.0, -0.4, 0.3, -0.9], dtype=torch.float64)
    is_known = torch.zeros(4, dtype=torch.bool)
    is_known[known] = True
    prefixes = _draws(log_w, B, known=is_known, generator=generator)
    x = world.draw(B, generator)
    loss = whole_orders(_losses_in_turn(world, x, prefixes), prefixes, paid=prefixes.ranks > 0)
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


def test_every_turn_is_trained_once_and_what_is_known_is_not() -> None:
    generator, known = torch.Generator().manual_seed(0), torch.tensor([False, False, True, False, False, False])
    prefixes = _draws(torch.zeros(L), 64, known=known, generator=generator)
    losses = torch.rand(64, L, generator=generator).masked_fill(prefixes.ranks == 0, torch.inf).requires_grad_()
    loss = whole_orders(losses, prefixes, paid=prefixes.ranks > 0)
    (gradient,) = torch.autograd.grad(loss.total, losses)
    torch.testing.assert_close(gradient, (prefixes.ranks > 0) / 64)


def test_rows_that_read_from_left_to_right_are_neither_of_the_law_nor_uniform() -> None:
    reading = torch.tensor([True, False, False])
    draws = prefix_draws(
        torch.zeros(3, L, dtype=torch.bool),
        generator=torch.Generator().manual_seed(0),
        uniform_rows=torch.tensor([False, True, False]),
        reading_rows=reading,
    )
    prefixes = draws.whole().under(torch.linspace(-300, 300, L))
    assert prefixes.ranks[0].tolist() == [1, 2, 3, 4, 5, 6]
    assert prefixes.ranks[2].tolist() == [6, 5, 4, 3, 2, 1]
    assert prefixes.follows_law.tolist() == [False, False, True]
    assert prefixes.uniform.tolist() == [False, True, False]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [4, 0, 2, 5, 3, 1]])
def test_an_end_decides_the_ends_behind_it_which_nobody_reads(order: list[int]) -> None:
    x = torch.tensor([[3, 2, 0, 0, 0, 0]])
    ranks = torch.empty(1, L, dtype=torch.long)
    ranks[0, order] = torch.arange(1, L + 1)
    found, revealed = turns_of(ranks, x, end_id=0)[0].tolist(), list[int]()
    for position in order:
        is_decided = x[0, position] == 0 and any(x[0, j] == 0 for j in revealed if j < position)
        assert found[position] == (NOBODY if is_decided else int(ranks[0, position]))
        if not is_decided:
            revealed.append(position)
    assert torch.equal(turns_of(ranks, x, end_id=None), ranks)


def test_an_end_that_a_prompt_knows_decides_nothing() -> None:
    x, ranks = torch.tensor([[3, 2, 0, 0, 0, 0]]), torch.tensor([[1, 2, 0, 3, 4, 5]])
    assert turns_of(ranks, x, end_id=0).tolist() == [[1, 2, 0, 3, NOBODY, NOBODY]]


TURNS = torch.tensor([[2, 0, 1, 4, 3, NOBODY], [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 1, 0]])
LENGTHS = torch.tensor([6, 6, 5])


def _mean_over_others(cost: Tensor) -> list[float]:
    """By loops: at each state of a row the mean of what is hidden and not next, `cost` [L positions, L + 2 turns]."""
    sums = []
    for row in TURNS.tolist():
        asked = sorted(turn for turn in row if 0 < turn <= L)
        total = 0.0
        for turn in asked:
            others = [float(cost[i, turn]) for i, own in enumerate(row) if turn < own <= L]
            total += sum(others) / len(others) if others else 0.0
        sums.append(total)
    return sums


def test_drawn_questions_are_as_many_as_wanted_and_right_on_average() -> None:
    cost = torch.rand(L, L + 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    steps = (torch.arange(60) + 0.5) / 60
    grid = torch.cartesian_prod(steps, steps).T  # a fine grid of chances
    found = questions_about(TURNS, LENGTHS, chance=grid[:, None].expand(2, 3, -1))
    assert found.positions.shape == (3, 3600)
    nats = (cost[found.positions, found.turns] * found.weights).sum(-1)
    torch.testing.assert_close(nats, torch.tensor(_mean_over_others(cost), dtype=torch.float64))
    asked = TURNS.gather(1, found.positions) > found.turns
    assert asked[:2].all(), "never the next one itself, nor what is known or decided"


def test_the_reported_loss_knows_nothing_of_questions_and_the_token_head_learns_of_both() -> None:
    prefixes = _draws(torch.zeros(L), 3, known=torch.zeros(L, dtype=torch.bool), generator=torch.Generator())
    turns = prefixes.ranks
    chance = torch.rand((2, 3, 4), generator=torch.Generator().manual_seed(0))
    questions = questions_about(turns, torch.full((3,), L), chance=chance)
    own, asked = torch.rand(3, L).requires_grad_(), torch.rand(questions.positions.shape).requires_grad_()
    loss = whole_orders(own, prefixes, paid=turns > 0, asked=asked, questions=questions, spread=0.3)
    assert float(loss.total.detach()) == pytest.approx(float(own.detach().sum(-1).mean()))
    of_own, of_asked = torch.autograd.grad(loss.total, (own, asked))
    torch.testing.assert_close(of_own, torch.full((3, L), 0.7 / 3))
    torch.testing.assert_close(of_asked.double(), 0.3 / 3 * questions.weights)


@pytest.mark.parametrize("order", list(permutations(range(3)))[:4])
def test_what_a_turn_finds_is_what_the_critic_is_asked_about(order: tuple[int, ...]) -> None:
    x = torch.tensor([[1, 0, 0, 2]])
    ranks = torch.zeros(1, 4, dtype=torch.long)
    ranks[0, list(order)] = torch.arange(1, 4)
    is_absent = torch.arange(4)[None] >= 3
    turns = turns_of(ranks, x, end_id=0)
    for turn, position in enumerate(order, start=1):
        if int(turns[0, position]) != turn:
            continue
        found = undecided(turns >= turn, is_absent, (x == 0) & ~is_absent)
        revealed = [i for i in order[: turn - 1] if turns[0, i] <= 4]
        first = min([i for i in revealed if x[0, i] == 0], default=4)
        assert found[1][0].nonzero()[:, 0].tolist() == sorted({*range(first + 1, 4), 3})
        assert found[0][0].nonzero()[:, 0].tolist() == [i for i in range(3) if i not in revealed and i < first]
