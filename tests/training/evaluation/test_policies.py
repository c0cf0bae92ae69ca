"""Scoring along context-dependent orders, against the exact oracle on worlds small enough to enumerate."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from tests.model.contextual import TableDenoiser, random_denoiser
from unveil.model.confidence import confidence_of
from unveil.model.denoiser import Prediction
from unveil.model.oracle.exact import subset_masks, table_nelbo
from unveil.training.evaluation.likelihood import (
    Policy,
    Rows,
    known_sets,
    log_likelihood,
    nelbo,
    policy_log_likelihood,
    policy_nelbo,
    policy_walk,
)

HEURISTICS: tuple[Policy, ...] = ("confidence", "margin", "entropy")
KNOWN = torch.tensor([False, True, False, False])


def _world(*, seed: int, L: int = 4) -> TableDenoiser:
    return random_denoiser(L=L, seed=seed, spread=2.0)


def _rows(denoiser: TableDenoiser, *, copies: int = 1, length: int | None = None) -> Rows:
    x = denoiser.world.x.repeat(copies, 1)
    return Rows(x, torch.full((len(x),), length or x.shape[1]))


def _likeliest(order_logprob: Tensor) -> Tensor:
    """The law that always takes the likeliest position, the lowest of equals: [..., 2**L, L] -> the same."""
    best = torch.nn.functional.one_hot(order_logprob.argmax(-1), order_logprob.shape[-1])
    return best.double().log().where(order_logprob > -torch.inf, -torch.inf)


def _given(order_logprob: Tensor, ce: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The same tables when `known` [L] comes first and for free."""
    is_missing = known & ~subset_masks(len(known))  # [2**L, L]
    first = torch.nn.functional.one_hot(is_missing.long().argmax(-1), len(known)).double().log()
    forced = torch.where(is_missing.any(-1, keepdim=True), first, order_logprob)
    return forced, ce.masked_fill(known, 0.0)


def _sure(denoiser: TableDenoiser, policy: Policy) -> TableDenoiser:
    """A heuristic as if it were learned."""
    found = getattr(confidence_of(denoiser.world.logits), policy)
    return TableDenoiser(denoiser.world, -found if policy == "entropy" else found)


def _assert_unbiased(values: Tensor, expected: Tensor) -> None:
    """Means over copies [copies, N] against [N], pooled: a chi-square statistic within six deviations of its mean."""
    spread = values.std(0).clamp(min=1e-9) / len(values) ** 0.5
    z = (values.mean(0) - expected) / spread
    assert float(z.square().sum()) < len(expected) + 6 * (2 * len(expected)) ** 0.5


def test_the_nelbo_of_a_policy_is_the_oracles_for_every_row() -> None:
    denoiser, copies = _world(seed=1), 4000
    values = policy_nelbo(denoiser, _rows(denoiser, copies=copies), seed=0).view(copies, -1)
    law, ce = denoiser.order_table(), denoiser.world.tables()
    expected = table_nelbo(law, ce)
    _assert_unbiased(values, expected)
    for other in (law.new_zeros(()).expand(law.shape), -law):  # so that the statistic tells laws apart
        law_of_another = other.masked_fill(law == -torch.inf, -torch.inf).log_softmax(-1).nan_to_num(-torch.inf)
        with pytest.raises(AssertionError):
            _assert_unbiased(values, table_nelbo(law_of_another, ce))


def test_noise_kept_by_position_would_be_biased_and_would_be_noticed() -> None:
    denoiser, copies = _world(seed=1), 4000
    rows = _rows(denoiser, copies=copies)

    class WithOwnNoise:
        """The race of a row decided once for all, which the policy must not do."""

        def __init__(self) -> None:
            generator = torch.Generator().manual_seed(0)
            self.noise = -torch.rand(rows.x.shape, generator=generator, dtype=torch.float64).log().neg().log()
            self.start = 0

        def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
            if bool(hidden.all()) and self.start < len(rows):
                self.now = self.noise[self.start : self.start + len(tokens)]
                self.start += len(tokens)
            logits, order = denoiser(tokens, hidden, lengths)
            return Prediction(logits, order + self.now)

    values = policy_walk(WithOwnNoise(), rows, "learned").nats.view(copies, -1)
    with pytest.raises(AssertionError):
        _assert_unbiased(values, table_nelbo(denoiser.order_table(), denoiser.world.tables()))


def test_the_likeliest_order_gives_the_exact_log_likelihood() -> None:
    denoiser = _world(seed=2)
    values = policy_log_likelihood(denoiser, _rows(denoiser), "learned")
    expected = -table_nelbo(_likeliest(denoiser.order_table()), denoiser.world.tables())
    torch.testing.assert_close(values, expected)


def test_a_deterministic_policy_is_a_distribution_over_rows() -> None:
    denoiser = _world(seed=3)
    for policy in ("learned", *HEURISTICS):
        total = policy_log_likelihood(denoiser, _rows(denoiser), policy).exp().sum()
        assert float(total) == pytest.approx(1.0, abs=1e-6)  # losses are float32


@pytest.mark.parametrize("policy", HEURISTICS)
def test_the_heuristics_are_exact_too(policy: Literal["confidence", "margin", "entropy"]) -> None:
    denoiser = random_denoiser(L=4, V=3, seed=4)
    values = policy_log_likelihood(denoiser, _rows(denoiser), policy)
    expected = -table_nelbo(_likeliest(_sure(denoiser, policy).order_table()), denoiser.world.tables())
    torch.testing.assert_close(values, expected)


def test_what_is_known_is_conditioned_on_in_rollouts_and_along_the_likeliest_order() -> None:
    denoiser, copies = _world(seed=5), 3000
    rows = _rows(denoiser, copies=copies)
    known = KNOWN.expand(rows.x.shape)
    law, ce = denoiser.order_table(), denoiser.world.tables()
    values = policy_nelbo(denoiser, rows, seed=1, known=known).view(copies, -1)
    _assert_unbiased(values, table_nelbo(*_given(law, ce, KNOWN)))
    exact = policy_log_likelihood(denoiser, rows, "learned", known=known).view(copies, -1)[0]
    torch.testing.assert_close(exact, -table_nelbo(*_given(_likeliest(law), ce, KNOWN)))
    in_order = log_likelihood(denoiser, rows, [3, 1, 0, 2], known=known).view(copies, -1)[0]
    fixed = torch.tensor([1.0, 2.0, 0.0, 3.0], dtype=torch.float64).expand(law.shape)
    fixed = fixed.masked_fill(subset_masks(4), -torch.inf)
    torch.testing.assert_close(in_order, -table_nelbo(*_given(_likeliest(fixed), ce, KNOWN)))


def test_padding_is_seen_as_it_is_and_never_paid_for() -> None:
    denoiser = _world(seed=6)
    rows = _rows(denoiser, length=3)
    law, ce = denoiser.order_table(), denoiser.world.tables()
    padding = torch.tensor([False, False, False, True])
    values = policy_log_likelihood(denoiser, rows, "learned")
    torch.testing.assert_close(values, -table_nelbo(*_given(_likeliest(law), ce, padding)))
    both = policy_log_likelihood(denoiser, rows, "margin", known=KNOWN.expand(rows.x.shape))
    sure = _likeliest(_sure(denoiser, "margin").order_table())
    torch.testing.assert_close(both, -table_nelbo(*_given(sure, ce, KNOWN | padding)))
    assert (policy_walk(denoiser, rows, "learned").steps[:, 3] == -1).all()


def test_a_walk_says_which_order_each_row_took() -> None:
    denoiser = _world(seed=7)
    rows = _rows(denoiser)
    known = known_sets(rows, seed=0)
    walk = policy_walk(denoiser, rows, "learned", seed=3, known=known)
    assert len({tuple(order) for order in policy_walk(denoiser, rows, "learned").order.tolist()}) > 1
    for row, given in enumerate(known):
        order = walk.order[row][walk.order[row] >= 0].tolist()
        assert sorted(order) == (~given).nonzero().squeeze(-1).tolist()
        assert [int(walk.steps[row, position]) for position in order] == list(range(len(order)))
        again = log_likelihood(
            denoiser,
            Rows(rows.x[[row]], rows.lengths[[row]]),
            [*given.nonzero().squeeze(-1).tolist(), *order],
            known=given[None],
        )
        torch.testing.assert_close(walk.nats[[row]], -again)


def test_a_policy_without_context_is_its_plackett_luce_law() -> None:
    denoiser = _world(seed=8)
    log_w = torch.tensor([0.5, -1.0, 1.2, 0.0])
    flat = TableDenoiser(denoiser.world, log_w.expand(denoiser.order_logits.shape))
    rows = _rows(flat, copies=2000)
    of_law, of_policy = nelbo(flat, rows, log_w, seed=0), policy_nelbo(flat, rows, seed=0)
    gap = (of_law - of_policy).view(2000, -1).mean(1)
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / len(gap) ** 0.5


def test_a_rows_draw_does_not_depend_on_how_many_rows_there_are() -> None:
    denoiser = _world(seed=9)
    many, few = _rows(denoiser, copies=60), _rows(denoiser, copies=2)
    whole = policy_nelbo(denoiser, many, seed=5)  # more than one batch
    assert torch.equal(whole[: len(few)], policy_nelbo(denoiser, few, seed=5))
    assert not torch.equal(whole[: len(few)], policy_nelbo(denoiser, few, seed=6))


def test_the_denoiser_is_never_shown_what_it_has_to_guess() -> None:
    denoiser = _world(seed=10)
    rows = _rows(denoiser)

    def watched(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        assert not tokens[hidden].any()
        return denoiser(tokens, hidden, lengths)

    policy_walk(watched, rows, "learned", seed=0)
    policy_walk(watched, rows, "entropy")
    nelbo(watched, rows, torch.zeros(4), seed=0)
    log_likelihood(watched, rows, [3, 2, 1, 0])


def test_equally_sure_positions_are_taken_from_the_lowest() -> None:
    denoiser = _world(seed=11)
    flat = TableDenoiser(denoiser.world, torch.zeros_like(denoiser.order_logits))
    assert set(map(tuple, policy_walk(flat, _rows(flat), "learned").order.tolist())) == {(0, 1, 2, 3)}
