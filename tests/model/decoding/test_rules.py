"""Rules between positions against enumeration: the law of the samples, the estimate of their probability, the order
that stays, several positions a step, attempts that run out."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product

import pytest
import torch
from torch import Tensor

from tests.model.contextual import TableDenoiser, blank, random_denoiser
from tests.model.decoding.test_sampler import _check_frequencies
from unveil.model.decoding.canvas import Condition, OrderPolicy, Part, SamplingParams, Shown, Weights
from unveil.model.decoding.loop import Decoded
from unveil.model.decoding.sampler import decode

L, V, NUM_SAMPLES = 4, 3, 6_000
AMPLE = 100_000
X = torch.tensor(list(product(range(V), repeat=L)))


@dataclass(frozen=True)
class AtMost:
    """The id at one position is at most that at another."""

    low: int
    high: int

    @property
    def positions(self) -> tuple[int, ...]:
        return self.low, self.high

    def allowed(self, position: int, known: Mapping[int, Shown]) -> tuple[Part, ...] | None:
        other = self.high if position == self.low else self.low
        if other not in known:
            return None
        limit = known[other][0]
        ids = range(limit + 1) if position == self.low else range(limit, V)
        return tuple(Part(i) for i in ids)

    def holds(self, known: Mapping[int, Shown]) -> bool:
        return known[self.low][0] <= known[self.high][0]


@dataclass(frozen=True)
class Unhelpful(AtMost):
    """The same rule, which says nothing before all is known."""

    def allowed(self, position: int, known: Mapping[int, Shown]) -> None:
        return None


RULES: tuple[AtMost, ...] = (AtMost(0, 2), AtMost(3, 2))


def _params(
    order: OrderPolicy = "left_to_right",
    *,
    rules: Sequence[AtMost] = RULES,
    parts: Mapping[int, tuple[Part, ...]] | None = None,
    attempts: int = AMPLE,
    tokens_per_step: int | None = None,
) -> SamplingParams:
    condition = Condition(parts or {}, attempts, tuple(rules))
    return SamplingParams(order=order, tokens_per_step=tokens_per_step, condition=condition)


def _along(denoiser: TableDenoiser, order: Sequence[Sequence[int]]) -> Tensor:
    """The law of whole rows along groups of positions, those of one group not reading each other: [V**L]."""
    found, known = torch.zeros(len(X), dtype=torch.float64), torch.zeros(len(X), L, dtype=torch.bool)
    for group in order:
        entry = (torch.where(known, X + 1, 0) * (V + 1) ** torch.arange(L)).sum(-1)
        for position in group:
            logits = denoiser.world.logits[entry, position]
            found += logits.log_softmax(-1).gather(-1, X[:, position : position + 1])[:, 0]
        known[:, list(group)] = True
    return found.exp()


def _under(law: Tensor, keeps: Callable[[Tensor], Tensor]) -> tuple[Tensor, float]:
    joint = law * keeps(X)
    return joint / joint.sum(), float(joint.sum())


def _kept(x: Tensor) -> Tensor:
    return (x[:, 0] <= x[:, 2]) & (x[:, 3] <= x[:, 2])


def _decoded(denoiser: TableDenoiser, params: SamplingParams, num: int = NUM_SAMPLES) -> list[Decoded]:
    return list(decode(denoiser, [blank(L, seed=seed, params=params) for seed in range(num)]))


def _check(decoded: Sequence[Decoded], expected: Tensor) -> None:
    possible = expected > 0
    _check_frequencies([canvas for canvas, _ in decoded], X[possible], expected[possible])


def _weights(decoded: Sequence[Decoded]) -> Weights:
    return reduce(Weights.and_all, [canvas.trials.weights for canvas, _ in decoded if canvas.trials is not None])


@pytest.fixture(scope="module")
def denoiser() -> TableDenoiser:
    return random_denoiser(L=L, V=V, seed=4)


@pytest.mark.parametrize("rules", [RULES, tuple(Unhelpful(rule.low, rule.high) for rule in RULES)])
def test_the_law_is_the_models_own_under_the_rules_and_its_order_stays(
    denoiser: TableDenoiser, rules: tuple[AtMost, ...]
) -> None:
    decoded = _decoded(denoiser, _params(rules=rules))
    expected, probability = _under(_along(denoiser, [[0], [1], [2], [3]]), _kept)
    _check(decoded, expected)
    weights = _weights(decoded)
    assert weights.mean == pytest.approx(probability, abs=5 * weights.standard_error)
    assert all(canvas.trials is not None and canvas.trials.is_exact for canvas, _ in decoded)
    assert all([reveal.position for reveal in reveals] == [0, 1, 2, 3] for _, reveals in decoded)


def test_without_rejection_the_law_would_be_another(denoiser: TableDenoiser) -> None:
    decoded = _decoded(denoiser, _params(attempts=1))
    expected, _ = _under(_along(denoiser, [[0], [1], [2], [3]]), _kept)
    with pytest.raises(AssertionError, match="chi2"):
        _check(decoded, expected)
    assert bool(_kept(torch.tensor([canvas.tokens for canvas, _ in decoded])).all()), "but the rules are kept"


def test_a_condition_on_single_positions_comes_first_and_the_rules_hold_beside_it(denoiser: TableDenoiser) -> None:
    parts = {2: (Part(0), Part(1, 0.0, 0.5))}
    decoded = _decoded(denoiser, _params(parts=parts))
    law = _along(denoiser, [[2], [0], [1], [3]])
    share = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    expected, probability = _under(law * share[X[:, 2]], _kept)
    _check(decoded, expected)
    assert _weights(decoded).mean == pytest.approx(probability, abs=5 * _weights(decoded).standard_error)


def test_what_is_drawn_in_one_step_is_checked_together(denoiser: TableDenoiser) -> None:
    decoded = _decoded(denoiser, _params(tokens_per_step=2))
    expected, _ = _under(_along(denoiser, [[0, 1], [2, 3]]), _kept)
    _check(decoded, expected)


def test_positions_behind_the_last_rule_are_drawn_as_without_one(denoiser: TableDenoiser) -> None:
    for canvas, reveals in _decoded(denoiser, _params(rules=[AtMost(0, 1)]), 50):
        assert canvas.trials is not None
        assert canvas.trials.is_over
        assert [reveal.step for reveal in reveals] == [0, 1, 2, 3]
        assert canvas.num_forwards == 4


def test_a_rule_that_cannot_hold_is_given_up_after_all_attempts_and_says_so(denoiser: TableDenoiser) -> None:
    @dataclass(frozen=True)
    class Never(Unhelpful):
        def holds(self, known: Mapping[int, Shown]) -> bool:
            return False

    (found,) = _decoded(denoiser, _params(rules=[Never(0, 1)], attempts=7), 1)
    assert found.canvas.is_unmet
    assert found.canvas.trials is not None
    assert (found.canvas.trials.weights.num, found.reveals) == (7, ())


def test_a_sample_does_not_depend_on_the_batch_it_is_in_and_crosses_processes(denoiser: TableDenoiser) -> None:
    canvases = [blank(L, seed=seed, params=_params("learned")) for seed in range(20)]
    canvases += [blank(L, seed=seed, params=SamplingParams(order="confidence")) for seed in range(4)]
    together = list(decode(denoiser, canvases))
    assert together == [found for canvas in canvases for found in decode(denoiser, [canvas])]
    assert pickle.loads(pickle.dumps(together[0].canvas)) == together[0].canvas
