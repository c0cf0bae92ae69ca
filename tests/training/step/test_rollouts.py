"""Learning what reveals cost, at once and by the end: walks and branches against the exact oracle, the recipe."""

import re
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.enumerable import random_world
from unveil.model.confidence import confidence_of
from unveil.model.denoiser import cross_entropy
from unveil.model.errors import UnveilError
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.build import build_network
from unveil.model.network.order_heads import SHARPNESS, CostToGoHead, NextCostHead, Reading, make_order_head
from unveil.model.oracle.exact import best_order, policy_cost, subset_table, table_nelbo
from unveil.model.order.plackett_luce import next_log_probs
from unveil.training.config import build_recipe
from unveil.training.step.cost_to_go import branch, branch_error, forwards_a_row, rollout_costs, walk_to_random_states
from unveil.training.step.rollouts import Canvases, Draws, Foresee, next_cost_error, walk_by_law, walk_to_the_end
from unveil.training.step.training_model import TrainingModule, foresee

L, V, COPIES = 4, 2, 400
NEXT_COST = OrderSpec(kind="contextual", head="next_cost")


def small_network(*, seed: int = 0, num_loops: int = 1) -> Network:
    torch.manual_seed(seed)
    architecture = Architecture(
        length=L, vocabulary_sizes=(V,), width=8, layers=1, heads=2, mlp_width=16, num_loops=num_loops
    )
    network = build_network(architecture, NEXT_COST).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network


def all_hidden(x: Tensor) -> Canvases:
    hidden = torch.ones_like(x, dtype=torch.bool)
    return Canvases(x, hidden, torch.full((len(x),), x.shape[1]))


def seen_by(network: Network) -> Foresee:
    return partial(foresee, network)


def draws_for(canvases: Canvases, *, seed: int = 0, own: slice = slice(None)) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), canvases.hidden, own=own, device=torch.device("cpu"))


def _tables(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """log pi(i | x_S) and CE(i | x_S) of every row and subset: [N, 2**L, L] each."""

    def losses(x: Tensor, hidden: Tensor) -> Tensor:
        prediction = network(x.masked_fill(hidden, 0), hidden, torch.full((len(x),), L))
        return cross_entropy(prediction.token_logits, x)

    def choices(x: Tensor, hidden: Tensor) -> Tensor:
        prediction = network(x.masked_fill(hidden, 0), hidden, torch.full((len(x),), L))
        return next_log_probs(prediction.order_logits.double(), hidden).masked_fill(~hidden, 0.0)

    order = subset_table(choices, x)
    revealed = torch.tensor([[bool(S >> i & 1) for i in range(L)] for S in range(2**L)])
    return order.masked_fill(revealed, -torch.inf), subset_table(losses, x)


@torch.inference_mode()
def test_the_nats_of_a_walk_are_the_nelbo_of_the_law_in_the_mean() -> None:
    network, x = small_network(), random_world(L=L, V=V).x
    expected = table_nelbo(*_tables(network, x)).mean()
    rows = x.repeat(COPIES, 1)
    canvases = all_hidden(rows)
    even = torch.zeros(len(rows), dtype=torch.bool)
    values = []
    for seed in range(12):
        states = list(
            walk_to_the_end(seen_by(network), canvases, stride=1, draws=draws_for(canvases, seed=seed), is_uniform=even)
        )
        assert len(states) == L
        values.append(torch.cat([state.nats for state in states]).sum() / len(rows))
    found = torch.stack(values)
    assert abs(found.mean() - expected) < 5 * found.std() / len(found) ** 0.5 + 1e-6


@torch.inference_mode()
def test_uniform_rows_take_random_orders() -> None:
    network, x = small_network(), random_world(L=L, V=V).x
    order, losses = _tables(network, x)
    even = torch.where(order > -torch.inf, 0.0, -torch.inf).log_softmax(-1).nan_to_num(-torch.inf)
    expected = table_nelbo(even, losses).mean()
    rows = x.repeat(COPIES, 1)
    canvases = all_hidden(rows)
    values = []
    for seed in range(12):
        draws = draws_for(canvases, seed=seed)
        is_uniform = torch.ones(len(rows), dtype=torch.bool)
        states = walk_to_the_end(seen_by(network), canvases, stride=1, draws=draws, is_uniform=is_uniform)
        values.append(torch.cat([state.nats for state in states]).sum() / len(rows))
    found = torch.stack(values)
    assert abs(found.mean() - expected) < 5 * found.std() / len(found) ** 0.5 + 1e-6


def test_what_is_known_is_never_walked_and_a_stride_takes_several() -> None:
    network, x = small_network(), random_world(L=L, V=V).x
    hidden = torch.ones_like(x, dtype=torch.bool)
    hidden[:, 1] = False
    even = torch.zeros(len(x), dtype=torch.bool)
    canvases = all_hidden(x)._replace(hidden=hidden)
    states = walk_to_the_end(seen_by(network), canvases, stride=2, draws=draws_for(canvases), is_uniform=even)
    assert len(list(states)) == 2


def test_the_error_is_least_where_the_expectation_is_the_mean() -> None:
    nats = torch.tensor([0.0, 0.1, 3.0])
    log_m = nats.mean().log().requires_grad_()
    next_cost_error(log_m, nats).mean().backward()  # type: ignore[no-untyped-call]
    assert log_m.grad is not None
    assert abs(float(log_m.grad)) < 1e-6
    assert all(next_cost_error(log_m + d, nats).mean() > next_cost_error(log_m, nats).mean() for d in (-0.1, 0.1))


def test_only_the_head_learns_and_a_sure_position_goes_before_an_unsure_one() -> None:
    head = NextCostHead(Architecture(length=2, vocabulary_sizes=(3,), width=8, heads=2), NEXT_COST)
    states = torch.zeros(1, 2, 8, requires_grad=True)
    logits = torch.tensor([[[4.0, 0.0, 0.0], [1.0, 0.9, 0.0]]], requires_grad=True)
    for parameter in head.head[2].parameters():
        torch.nn.init.zeros_(parameter)
    zeros = torch.zeros(1, 2, dtype=torch.int64)
    reading = Reading(states, logits, zeros, zeros == 0, torch.tensor([2]))
    weights = head(reading)
    assert weights[0, 0] > weights[0, 1]
    entropy = confidence_of(logits.detach()).entropy.float()
    torch.testing.assert_close(head.foresee(reading).cost, entropy, rtol=1e-3, atol=1e-4)
    weights.sum().backward()
    assert states.grad is None
    assert logits.grad is None


class Trap(Network):
    """A denoiser of one row, all zeros, that costs what a table says: the cheapest first reveal is not the best one."""

    COSTS = torch.tensor(
        [[0.3, 0.4, 1.5], [0, 1.5, 1.5], [0.2, 0, 0.1], [0, 0, 1.5], [0.4, 0.4, 0], [0, 0.3, 0], [0.2, 0, 0], [0, 0, 0]]
    )

    def __init__(self, head: str) -> None:
        super().__init__()
        self.architecture = Architecture(length=3, vocabulary_sizes=(2,), width=8, layers=1, heads=2, mlp_width=16)
        self.order = OrderSpec.model_validate({"kind": "contextual", "head": head})
        self.order_head = make_order_head(self.architecture, self.order)

    def read(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Reading:
        subset = ((~hidden).long() << torch.arange(3)).sum(-1)
        costs = self.COSTS[subset].clamp(min=1e-3)  # [B, 3]
        logits = torch.stack([-costs, torch.log(-torch.expm1(-costs))], -1)
        places = torch.eye(3).expand(len(tokens), 3, 3)
        states = torch.cat([places, hidden.float()[:, None].expand(-1, 3, 3), places[..., :2]], -1)
        return Reading(states, logits, tokens, hidden, lengths)


def order_learned(head: str, *, steps: int = 200) -> list[int]:
    """The argmax order of a head that learned in the trap."""
    torch.manual_seed(0)
    network = Trap(head)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    canvases, is_uniform = all_hidden(torch.zeros(32, 3, dtype=torch.int64)), torch.arange(32) < 16
    for step in range(steps):
        draws, see = draws_for(canvases, seed=step), seen_by(network)
        if isinstance(network.order_head, CostToGoHead):
            start = walk_to_random_states(see, canvases, stride=1, draws=draws, is_uniform=is_uniform)
            tried = branch(see, start.canvases, num=2, stride=1, draws=draws)
            loss = branch_error(tried, truth=0.5).mean()
        else:
            states = list(walk_to_the_end(see, canvases, stride=1, draws=draws, is_uniform=is_uniform))
            loss = torch.cat([state.error for state in states]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    sigma: list[int] = []
    hidden, zeros = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.int64)
    while hidden.any():
        weights = network.order_head(network.read(zeros, hidden, torch.tensor([3]))).masked_fill(~hidden, -torch.inf)
        sigma.append(int(weights.argmax()))
        hidden[0, sigma[-1]] = False
    return sigma


def test_the_cost_to_go_walks_round_a_trap_that_next_cost_falls_into() -> None:
    table = Trap.COSTS.double()
    _, best = best_order(table)
    assert best.tolist() == [1, 2, 0]
    assert order_learned("cost_to_go") == best.tolist()
    assert order_learned("next_cost")[0] == 0


@torch.inference_mode()
def test_a_branch_pays_what_the_oracle_says_of_its_choice_and_the_argmax_order_after_it() -> None:
    network, x = small_network(), random_world(L=L, V=V).x
    order, losses = _tables(network, x)
    choices = order.argmax(-1)
    canvases = all_hidden(x)
    foreseen = _foreseen(network, x)
    ends = torch.stack([policy_cost(losses, choices), policy_cost(foreseen, choices)])
    torch.testing.assert_close(rollout_costs(seen_by(network), canvases, stride=1), ends, rtol=0, atol=1e-5)
    found = branch(seen_by(network), canvases, num=L, stride=1, draws=draws_for(canvases))
    torch.testing.assert_close(found.paid[:, 0], policy_cost(losses, choices), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.foreseen[:, 0], policy_cost(foreseen, choices), rtol=0, atol=1e-5)
    for truth in (0.0, 0.25, 1.0):
        expected = _expected_error(network, x, choices, losses, foreseen.lerp(losses.to(foreseen.dtype), truth))
        torch.testing.assert_close(branch_error(found, truth=truth), expected, rtol=1e-4, atol=1e-5)


def _foreseen(network: Network, x: Tensor) -> Tensor:
    """What the head expects every position to cost, of every row and subset: [N, 2**L, L]."""

    def expected(x: Tensor, hidden: Tensor) -> Tensor:
        head = network.order_head
        assert isinstance(head, NextCostHead)
        return head.foresee(network.read(x.masked_fill(hidden, 0), hidden, torch.full((len(x),), L))).log_loss.exp()

    return subset_table(expected, x)


def _expected_error(network: Network, x: Tensor, choices: Tensor, losses: Tensor, charged: Tensor) -> Tensor:
    """The head's error at empty canvases of which every choice is a branch, with tables of what reveals do cost and of
    what they are charged."""
    forced = [choices.index_fill(1, torch.tensor(0), first) for first in range(L)]
    paid = torch.stack([policy_cost(charged, choice) for choice in forced], -1)  # [N, L]
    head = network.order_head
    assert isinstance(head, NextCostHead)
    hidden, lengths = torch.ones_like(x, dtype=torch.bool), torch.full((len(x),), L)
    log_m, cost = head.foresee(network.read(torch.zeros_like(x), hidden, lengths))
    single = next_cost_error(log_m, losses[:, 0].float()).mean(-1)
    excess = paid - paid.mean(-1, keepdim=True)
    return single + (cost.double() - paid).var(-1) + ((-SHARPNESS * cost.double()).softmax(-1) * excess).sum(-1)


@torch.inference_mode()
def test_a_stride_reveals_as_many_in_every_forward_of_a_branch() -> None:
    network, x = small_network(), random_world(L=L, V=V).x
    losses = _tables(network, x)[1]
    law = _tables(network, x)[0]
    pairs = law[:, 0].topk(2).indices  # [N, 2]
    reached = (1 << pairs).sum(-1)
    first = losses[:, 0].gather(1, pairs).sum(-1)
    second = losses[torch.arange(len(x)), reached].sum(-1)
    torch.testing.assert_close(
        rollout_costs(seen_by(network), all_hidden(x), stride=2)[0], first + second, rtol=0, atol=1e-5
    )


@torch.inference_mode()
def test_rows_depart_from_every_state_that_leaves_a_choice_and_from_no_other() -> None:
    network = small_network()
    x = torch.zeros(4000, L, dtype=torch.int64)
    is_uniform = torch.arange(len(x)) % 2 == 0
    see = seen_by(network)
    start = walk_to_random_states(see, all_hidden(x), stride=1, draws=draws_for(all_hidden(x)), is_uniform=is_uniform)
    counts = start.canvases.hidden.sum(-1).bincount(minlength=L + 1)
    assert counts[:2].tolist() == [0, 0]
    assert (counts[2:].float() / len(x) - 1 / (L - 1)).abs().max() < 0.03
    assert bool((start.num_choices == L - 1).all())
    losses = _tables(network, x[:1])[1][0]
    once = start.canvases.hidden.sum(-1) == L - 1
    revealed = (~start.canvases.hidden[once]).long().argmax(-1)
    torch.testing.assert_close(start.paid[once], losses[0][revealed], rtol=0, atol=1e-5)
    shares = revealed[is_uniform[once]].bincount(minlength=L) / is_uniform[once].sum()
    assert (shares - 1 / L).abs().max() < 0.08
    one_left = all_hidden(x[:3])._replace(hidden=torch.eye(L, dtype=torch.bool)[:3])
    draws = draws_for(one_left)
    stays = walk_to_random_states(see, one_left, stride=1, draws=draws, is_uniform=is_uniform[:3])
    assert torch.equal(stays.canvases.hidden, one_left.hidden)
    alone = branch(see, stays.canvases, num=3, stride=1, draws=draws)
    assert bool(branch_error(alone, truth=0.0).isfinite().all())


@torch.inference_mode()
def test_processes_walk_their_own_rows_as_one_process_would() -> None:
    """Also where the rows of one take fewer steps than those of another."""
    network, x = small_network(), random_world(L=L, V=V).x.repeat(3, 1)
    see, is_uniform = seen_by(network), torch.arange(len(x)) % 3 == 0
    canvases = all_hidden(x)
    canvases.hidden[: len(x) // 2, :2] = False
    found = []
    for own in (slice(None), slice(0, len(x) // 2), slice(len(x) // 2, None)):
        mine, draws = Canvases(*(part[own] for part in canvases)), draws_for(canvases, own=own)
        start = walk_to_random_states(see, mine, stride=1, draws=draws, is_uniform=is_uniform[own])
        tried = branch(see, start.canvases, num=3, stride=1, draws=draws)
        walks = walk_to_the_end(see, mine, stride=1, draws=draws_for(canvases, own=own), is_uniform=is_uniform[own])
        nats = torch.cat([state.nats for state in walks]).sum()
        found.append((start.canvases.hidden, start.paid, tried.chosen, tried.paid, nats))
    whole, *halves = found
    for together, left, right in zip(whole[:-1], *(half[:-1] for half in halves), strict=True):
        torch.testing.assert_close(torch.cat([left, right]), together)
    torch.testing.assert_close(halves[0][-1] + halves[1][-1], whole[-1])


def test_the_forwards_of_a_step_are_counted() -> None:
    network, x = small_network(), torch.zeros(600, L, dtype=torch.int64)
    read, rows = network.read, []

    def counting(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Reading:
        rows.append(len(tokens))
        return read(tokens, hidden, lengths)

    network.read = counting  # type: ignore[method-assign]
    see, draws = seen_by(network), draws_for(all_hidden(x))
    even = torch.zeros(len(x), dtype=torch.bool)
    start = walk_to_random_states(see, all_hidden(x), stride=1, draws=draws, is_uniform=even)
    branch(see, start.canvases, num=3, stride=1, draws=draws)
    assert abs(sum(rows) / len(x) - forwards_a_row(L, branches=3)) < 0.2


def test_what_lies_beyond_a_canvas_does_not_change_what_it_is_expected_to_cost() -> None:
    torch.manual_seed(0)
    head = CostToGoHead(Architecture(length=5, vocabulary_sizes=(3,), width=8, heads=2), NEXT_COST)
    states, logits, tokens = torch.randn(1, 5, 8), torch.randn(1, 5, 3), torch.tensor([[0, 1, 2, 0, 0]])
    hidden = torch.tensor([[True, False, True, True, True]])
    reading = Reading(states, logits, tokens, hidden, torch.tensor([3]))
    other = Reading(states.clone(), logits.clone(), tokens.clone(), hidden.clone(), reading.lengths)
    other.states[:, 3:], other.tokens[:, 3:], other.hidden[:, 3:] = 7.0, 2, False
    assert other.token_logits is not None
    other.token_logits[:, 3:] = torch.tensor([9.0, 0.0, 0.0])
    short = Reading(states[:, :3], logits[:, :3], tokens[:, :3], hidden[:, :3], reading.lengths)
    found = head(reading)[:, :3]
    torch.testing.assert_close(found, head(other)[:, :3])
    torch.testing.assert_close(found, head(short))


@torch.inference_mode()
def test_the_cost_to_go_sees_what_is_shown_and_not_what_stands_under_a_mask() -> None:
    torch.manual_seed(0)
    head = CostToGoHead(Architecture(length=3, vocabulary_sizes=(4, 2, 3), width=8, heads=2), NEXT_COST)
    states, logits, tokens = torch.zeros(1, 3, 8), torch.zeros(1, 3, 4), torch.tensor([[1, 1, 2]])
    hidden = torch.tensor([[True, False, True]])

    def cost(tokens: Tensor) -> Tensor:
        return head.foresee(Reading(states, logits, tokens, hidden, torch.tensor([3]))).cost

    assert torch.equal(cost(tokens), cost(torch.tensor([[3, 1, 0]])))
    assert not torch.allclose(cost(tokens), cost(torch.tensor([[1, 0, 2]])))


FIELDS: dict[str, Any] = {
    "name": "puzzles",
    "data": {"kind": "sudoku"},
    "order": {"method": "next_cost"},
    "start": {"artifact": "runs/x"},
}
WRONG = [
    ("advanced.order.branches=3", 'advanced.order.branches: unknown key with method = "next_cost"'),
    ("advanced.order.warmup=0.1", 'advanced.order.warmup: unknown key with method = "next_cost"'),
    ("advanced.optimizer.backward_loops=1", "advanced.optimizer.backward_loops: is not valid with a frozen denoiser"),
    ("advanced.optimizer.matrix_rate=0.0", "advanced.optimizer.matrix_rate: is not valid with a frozen denoiser"),
    ("start.freeze_denoiser=false", 'start.freeze_denoiser: must be true with order.method = "next_cost"'),
    ("start={artifact = []}", "start.artifact: Input is not a valid path"),
]


@pytest.mark.parametrize(("override", "said"), WRONG, ids=[override for override, _ in WRONG])
def test_a_recipe_that_cannot_learn_the_next_cost_is_refused(override: str, said: str) -> None:
    with pytest.raises(UnveilError, match=re.escape(f"test: {said}")):
        build_recipe(deepcopy(FIELDS), overrides=[override], source="test")
    assert build_recipe(deepcopy(FIELDS), source="test").start.artifact == Path("runs/x")


def test_an_order_learned_on_walks_needs_an_artifact() -> None:
    fields = {key: value for key, value in FIELDS.items() if key != "start"}
    with pytest.raises(UnveilError, match=r"^test: start\.artifact: an order alone is learned for the denoiser of an"):
        build_recipe(fields, source="test")


@torch.no_grad()
def test_a_walk_asks_a_network_that_reads_ranks_in_the_order_of_its_reveals() -> None:
    torch.manual_seed(0)
    architecture = Architecture(
        length=6, vocabulary_sizes=(3,), width=16, layers=3, heads=2, mlp_width=32, query_layers=1
    )
    network = build_network(architecture, NEXT_COST)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    module = TrainingModule(network, marginals=torch.zeros(1, 3), is_frozen=True).train()
    canvases = all_hidden(torch.randint(3, (5, 6)))
    canvases.hidden[:2, 3] = False  # known from the start
    ranks, losses = torch.zeros_like(canvases.x), torch.zeros(canvases.x.shape)
    noise = draws_for(canvases).noise
    for number, step in enumerate(walk_by_law(module, canvases, canvases.hidden.clone(), stride=2, noise=noise)):
        ranks[step.rows] += step.taken * (number + 1)
        losses[step.rows] += step.seen.losses * step.taken
    expected = cross_entropy(network.in_turn(canvases.x, ranks, canvases.lengths), canvases.x)
    expected = expected.masked_fill(~canvases.hidden, 0.0)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4)
    other = cross_entropy(network.in_turn(canvases.x, ranks.clamp(max=1), canvases.lengths), canvases.x)
    assert not torch.allclose(other[canvases.hidden], expected[canvases.hidden], atol=1e-2)
