from collections.abc import Callable
from itertools import permutations
from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.model.enumerable import random_world
from unveil.model.oracle.exact import (
    best_order,
    continuous_nelbo,
    exact_nelbo,
    log_likelihood,
    order_nelbo,
    order_table,
    prefix_probabilities,
    subset_masks,
    subset_table,
    table_nelbo,
    worst_order,
)
from unveil.model.order.plackett_luce import log_prob

Form = Callable[[Tensor, Tensor], Tensor]

ORDERS = torch.tensor(list(permutations(range(4))))
LOG_W = torch.tensor([1.0, -0.4, 0.3, -0.9], dtype=torch.float64)
PERFECT, IMPERFECT = random_world(), random_world(imperfection=1.0)

log_weights = st.lists(st.floats(-6, 6), min_size=4, max_size=4).map(lambda w: torch.tensor(w, dtype=torch.float64))


def random_table(L: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(2**L, L, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_bit_i_of_a_subset_says_that_position_i_is_revealed() -> None:
    assert subset_masks(3)[0b110].tolist() == [False, True, True]


def test_a_subset_table_asks_the_denoiser_about_every_hidden_set_and_is_zero_at_revealed_positions() -> None:
    def number_hidden(x: Tensor, hidden: Tensor) -> Tensor:
        return x + 10.0 * hidden.sum(-1, keepdim=True)

    table = subset_table(number_hidden, torch.tensor([[1, 2, 3], [4, 5, 6]]))
    assert table.shape == (2, 8, 3)
    assert table[1, 0b001].tolist() == [0.0, 25.0, 26.0]
    assert table[0, 0].tolist() == [31.0, 32.0, 33.0]
    assert table[0, 0b111].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("max_rows", [1, 7, 64])
def test_a_subset_table_does_not_depend_on_how_it_is_cut_into_forwards(max_rows: int) -> None:
    pieces = subset_table(IMPERFECT.cross_entropy, IMPERFECT.x, max_rows=max_rows)
    assert torch.allclose(pieces, IMPERFECT.tables())


@given(log_weights)
def test_prefix_probabilities_are_sums_over_permutations(log_w: Tensor) -> None:
    probabilities = log_prob(log_w, ORDERS).exp()
    prefix = prefix_probabilities(log_w)
    for S, revealed in enumerate(subset_masks(4)):
        size = int(revealed.sum())
        starts_with = torch.stack([revealed[sigma[:size]].all() for sigma in ORDERS])
        assert prefix[S].item() == pytest.approx(probabilities[starts_with].sum().item(), abs=1e-12)


def test_a_large_weight_makes_a_position_an_early_one() -> None:
    prefix = prefix_probabilities(LOG_W)
    singles = prefix[torch.tensor([1, 2, 4, 8])]
    assert torch.allclose(singles, LOG_W.softmax(0))
    assert singles.argmax() == LOG_W.argmax()


@given(log_weights, st.integers(0, 99))
def test_the_exact_nelbo_is_the_expectation_over_all_orders(log_w: Tensor, seed: int) -> None:
    ce = random_table(seed=seed)
    by_order = torch.stack([order_nelbo(ce, sigma) for sigma in ORDERS])
    expected = (log_prob(log_w, ORDERS).exp() * by_order).sum()
    assert exact_nelbo(log_w, ce).item() == pytest.approx(expected.item(), abs=1e-9)


def test_an_orders_nelbo_adds_up_its_own_path() -> None:
    ce = random_table(3)
    expected = ce[0b000, 2] + ce[0b100, 0] + ce[0b101, 1]
    assert order_nelbo(ce, torch.tensor([2, 0, 1])).item() == pytest.approx(expected.item())
    each = torch.stack([ce, 2 * ce])
    orders = torch.tensor([[2, 0, 1], [0, 1, 2]])
    assert order_nelbo(each, orders)[0].item() == pytest.approx(expected.item())


@settings(max_examples=30)
@given(st.lists(st.floats(-10, 10), min_size=4, max_size=4), st.integers(0, 99))
def test_the_continuous_form_equals_the_order_form_in_value_and_gradient(log_w: list[float], seed: int) -> None:
    ce = random_table(seed=seed)
    results = []
    for form in (exact_nelbo, continuous_nelbo):
        w = torch.tensor(log_w, dtype=torch.float64, requires_grad=True)
        value = form(w, ce)
        results.append(torch.cat([value[None], *torch.autograd.grad(value, w)]))
    assert torch.allclose(results[0], results[1], rtol=0, atol=1e-8)


def test_the_continuous_form_holds_for_rows_of_tables() -> None:
    tables = IMPERFECT.tables()
    assert torch.allclose(continuous_nelbo(LOG_W, tables), exact_nelbo(LOG_W, tables), atol=1e-9)


@pytest.mark.parametrize("form", [exact_nelbo, continuous_nelbo])
@pytest.mark.parametrize("shared", [-1.5, 0.0, 1.0])
def test_one_shared_schedule_does_not_matter_and_different_weights_do(form: Form, shared: float) -> None:
    ce = IMPERFECT.mean_table()
    uniform = torch.stack([order_nelbo(ce, sigma) for sigma in ORDERS]).mean()
    same = form(torch.full((4,), shared, dtype=torch.float64), ce)
    assert same.item() == pytest.approx(uniform.item(), abs=1e-9)
    assert abs(form(LOG_W + shared, ce).item() - uniform.item()) > 0.01


@given(log_weights)
def test_a_perfect_denoiser_is_equally_good_in_every_order(log_w: Tensor) -> None:
    assert torch.allclose(exact_nelbo(log_w, PERFECT.tables()), -PERFECT.p.log(), atol=1e-6)


@given(st.integers(0, 999), st.integers(1, 5))
def test_best_and_worst_order_are_those_of_a_search_through_all(seed: int, L: int) -> None:
    ce = random_table(L, seed)
    every = torch.tensor(list(permutations(range(L))))
    values = torch.stack([order_nelbo(ce, sigma) for sigma in every])
    for search, extreme in ((best_order, values.min()), (worst_order, values.max())):
        value, sigma = search(ce)
        assert value.item() == pytest.approx(extreme.item())
        assert order_nelbo(ce, sigma).item() == pytest.approx(extreme.item())


def test_best_orders_of_many_tables_are_found_at_once_and_ties_go_to_the_lowest_position() -> None:
    tables = torch.stack([random_table(seed=0), random_table(seed=1), torch.zeros(16, 4, dtype=torch.float64)])
    values, orders = best_order(tables)
    for table, value, sigma in zip(tables, values, orders, strict=True):
        assert torch.equal(best_order(table)[0], value)
        assert torch.equal(best_order(table)[1], sigma)
    assert orders[2].tolist() == [0, 1, 2, 3]


@given(log_weights, st.integers(0, 99))
def test_no_law_is_better_than_the_best_order_or_worse_than_the_worst(log_w: Tensor, seed: int) -> None:
    ce = random_table(seed=seed)
    nelbo = exact_nelbo(log_w, ce)
    assert best_order(ce)[0] - 1e-12 <= nelbo <= worst_order(ce)[0] + 1e-12


def test_the_infimum_over_weights_is_the_best_order() -> None:
    ce = IMPERFECT.mean_table()
    value, sigma = best_order(ce)
    toward = torch.empty(4, dtype=torch.float64).index_copy(0, sigma, -torch.arange(4.0, dtype=torch.float64))
    gaps = [(exact_nelbo(sharpness * toward, ce) - value).item() for sharpness in (1, 4, 16, 64)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.01
    assert gaps[-1] == pytest.approx(0.0, abs=1e-12)


def test_the_gradient_for_the_order_is_right_and_blind_to_the_gauge() -> None:
    ce = random_table()
    log_w = LOG_W.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: exact_nelbo(w, ce), log_w)
    (gradient,) = torch.autograd.grad(exact_nelbo(log_w, ce), log_w)
    assert gradient.norm() > 0.01
    assert abs(gradient.sum().item()) < 1e-12


@pytest.mark.parametrize("form", [exact_nelbo, continuous_nelbo])
def test_what_a_table_says_of_revealed_positions_is_never_read(form: Form) -> None:
    ce = random_table()
    spoilt = ce.masked_fill(subset_masks(4), torch.nan)
    log_w = LOG_W.clone().requires_grad_()
    clean, other = form(log_w, ce), form(log_w, spoilt)
    assert torch.equal(clean, other)
    assert torch.equal(*(torch.autograd.grad(value, log_w)[0] for value in (clean, other)))
    for search in (best_order, worst_order):
        assert torch.equal(search(ce)[0], search(spoilt)[0])
    assert torch.equal(order_nelbo(ce, ORDERS[5]), order_nelbo(spoilt, ORDERS[5]))
    assert torch.equal(log_likelihood(-ce, order_table(LOG_W)), log_likelihood(-spoilt, order_table(LOG_W)))


def random_policy(L: int, seed: int = 3) -> Tensor:
    """A context-dependent order law that no weights can express: [2**L, L]."""
    logits = torch.randn(2**L, L, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return logits.masked_fill(subset_masks(L), -torch.inf).log_softmax(-1).nan_to_num(nan=-torch.inf)


def test_the_likelihood_is_the_sum_over_all_orders() -> None:
    tokens, policy = -IMPERFECT.tables()[5], random_policy(4)
    paths = torch.stack([-order_nelbo(-tokens, sigma) - order_nelbo(-policy, sigma) for sigma in ORDERS])
    assert log_likelihood(tokens, policy).item() == pytest.approx(paths.logsumexp(0).item())


@pytest.mark.parametrize("law", [order_table(LOG_W), random_policy(4)], ids=["weights", "policy"])
def test_the_likelihood_is_normalised_is_the_truth_for_a_perfect_denoiser_and_is_above_the_bound(law: Tensor) -> None:
    loglik = log_likelihood(-IMPERFECT.tables(), law)
    assert loglik.logsumexp(0).item() == pytest.approx(0.0, abs=1e-9)
    assert (loglik > -table_nelbo(law, IMPERFECT.tables())).all()
    assert torch.allclose(log_likelihood(-PERFECT.tables(), law), PERFECT.p.log(), atol=1e-6)


def test_a_policy_that_reads_the_revealed_values_still_gives_a_normalised_likelihood() -> None:
    """One policy entry for every partial canvas: rows that agree on what is revealed agree on what comes next."""
    logits = torch.randn(3**4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    revealed = subset_masks(4)
    canvas = ((IMPERFECT.x[:, None] + 1) * revealed * 3 ** torch.arange(4)).sum(-1)  # [V**L, 2**L]
    policy = logits[canvas].masked_fill(revealed, -torch.inf).log_softmax(-1).nan_to_num(nan=-torch.inf)
    assert log_likelihood(-IMPERFECT.tables(), policy).logsumexp(0).item() == pytest.approx(0.0, abs=1e-9)


def test_an_impossible_sequence_has_minus_infinity_and_a_certain_order_no_nan() -> None:
    tokens = torch.zeros(4, 2, dtype=torch.float64)
    certain = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0], [0.0, -torch.inf], [-torch.inf] * 2])
    assert log_likelihood(tokens, certain).item() == 0.0
    assert log_likelihood(tokens - torch.inf, certain).item() == -torch.inf
    ce = random_table(2).requires_grad_()
    (gradient,) = torch.autograd.grad(table_nelbo(certain, ce), ce)
    assert gradient.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


def test_twelve_positions_are_within_reach() -> None:
    """Additive costs, so the answer is known: revealing i late or early costs the same, being after its parent less."""
    L = 12
    revealed = subset_masks(L)
    parent = torch.arange(-1, L - 1)
    has_parent = torch.where(parent >= 0, revealed[:, parent.clamp(min=0)], True)
    ce = torch.where(has_parent, 0.5, 1.0).double()
    value, sigma = best_order(ce)
    assert value.item() == 6.0
    assert sigma.tolist() == list(range(L))
    assert worst_order(ce)[0].item() == 11.5
    # Under uniform orders each of the 11 children comes after its parent half of the time.
    assert exact_nelbo(torch.zeros(L), ce).item() == pytest.approx(0.5 + 11 * 0.75)
    assert continuous_nelbo(torch.zeros(L), ce).item() == pytest.approx(0.5 + 11 * 0.75)
    assert log_likelihood(-ce, order_table(torch.zeros(L))).item() > -(0.5 + 11 * 0.75)


def test_the_enumerable_world_is_what_it_says() -> None:
    """The yardstick's yardstick: a conditional of the perfect denoiser, by hand."""
    x, p = PERFECT.x, PERFECT.p
    agrees = (x[:, 1] == 1) & (x[:, 3] == 0)
    expected = -log(float(p[agrees & (x[:, 0] == 1)].sum() / p[agrees].sum()))
    hidden = torch.tensor([[True, False, True, False]])
    for unseen in (0, 1):
        ce = PERFECT.cross_entropy(torch.tensor([[1, 1, unseen, 0]]), hidden)
        assert ce[0, 0].item() == pytest.approx(expected)
