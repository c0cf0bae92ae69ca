"""Drawing against exact probabilities worked out in plain Python, and its indifference to the rows beside it."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unveil.model.decoding.batch import log_probabilities
from unveil.model.decoding.canvas import SamplingParams
from unveil.model.decoding.draw import draw, likeliest
from unveil.model.decoding.noise import Ints, reveal_noise, token_gumbel

NUM = 40_000
ROW = [0.05, 0.3, 0.0, 0.2, 0.11, 0.3, 0.04]

CASES: list[dict[str, Any]] = [
    {},
    {"temperature": 0.4},
    {"temperature": 2.5},
    {"top_k": 3},
    {"top_k": 2},  # two of the same probability
    {"top_k": 1},
    {"top_p": 0.79},
    {"top_p": 0.81},
    {"top_k": 4, "top_p": 0.9},
    {"temperature": 0.5, "top_p": 0.4},
    {"temperature": 1.7, "top_k": 5, "top_p": 0.85},
]


def _states(num: int, position: int = 3) -> Ints:
    return reveal_noise(list(range(num)), [position] * num).states


def _log_p(row: list[float], num: int) -> Tensor:
    return log_probabilities(torch.tensor(row).log()[None]).expand(num, -1)


def _drawn(row: list[float], num: int = NUM, position: int = 3, **params: Any) -> list[int]:
    ids: list[int] = draw(_log_p(row, num), _states(num, position), [SamplingParams(**params)] * num)[0].tolist()
    return ids


def _normalised(masses: list[float]) -> list[float]:
    return [mass / math.fsum(masses) for mass in masses]


def _law(row: list[float], temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0) -> list[float]:
    """The distribution from which is to be drawn."""
    tempered = _normalised([p ** (1 / temperature) for p in row])
    ranked = sorted(range(len(row)), key=lambda i: (-tempered[i], i))[:top_k]
    total, kept = math.fsum(tempered[i] for i in ranked), list[int]()
    while ranked and math.fsum(tempered[i] for i in kept) < top_p * total:
        kept.append(ranked.pop(0))
    return _normalised([p if i in kept else 0.0 for i, p in enumerate(tempered)])


def _check(counts: list[int], law: list[float]) -> None:
    """Chi-square, 6 standard deviations allowed; what has no probability is never drawn."""
    n = sum(counts)
    assert [i for i, (c, p) in enumerate(zip(counts, law, strict=True)) if c and not p] == []
    cells = [(c - n * p) ** 2 / (n * p) for c, p in zip(counts, law, strict=True) if p]
    freedom = len(cells) - 1
    assert abs(sum(cells) - freedom) <= 6 * (2 * freedom) ** 0.5, f"chi2 {sum(cells):.1f} for {freedom} cells"


def _counts(ids: list[int], num: int = len(ROW)) -> list[int]:
    found = Counter(ids)
    assert set(found) <= set(range(num))
    return [found[i] for i in range(num)]


@pytest.mark.parametrize("params", CASES, ids=str)
def test_frequencies_over_seeds_are_the_exact_probabilities(params: dict[str, Any]) -> None:
    _check(_counts(_drawn(ROW, **params)), _law(ROW, **params))


def test_the_wrong_law_fails_the_check() -> None:
    for params, wrong in (({}, {"temperature": 0.9}), ({"temperature": 0.9}, {}), ({"top_k": 4}, {"top_k": 5})):
        with pytest.raises(AssertionError):
            _check(_counts(_drawn(ROW, **params)), _law(ROW, **wrong))
    with pytest.raises(AssertionError):
        _check(_counts(_drawn(ROW)), _law(ROW, top_k=5))


def test_frequencies_over_positions_of_one_seed_are_the_exact_probabilities() -> None:
    states = reveal_noise([11] * NUM, list(range(NUM))).states
    ids, _ = draw(_log_p(ROW, NUM), states, [SamplingParams()] * NUM)
    _check(_counts(ids.tolist()), _law(ROW))


def test_a_large_vocabularys_frequencies_are_the_exact_probabilities() -> None:
    row = _normalised([1 / (1 + i % 97) for i in range(500)])
    _check(_counts(_drawn(row), 500), _law(row))


@pytest.mark.parametrize("positions", [(0, 1), (3, 4), (0, 64), (5, 1029)])
def test_two_positions_of_a_seed_are_drawn_independently(positions: tuple[int, int]) -> None:
    both = [_drawn(ROW, position=position) for position in positions]
    law = _law(ROW)
    pairs = [a * len(ROW) + b for a, b in zip(*both, strict=True)]
    _check(_counts(pairs, len(ROW) ** 2), [p * q for p in law for q in law])


def test_the_same_noise_fails_the_check_of_independence() -> None:
    ids, law = _drawn(ROW), _law(ROW)
    with pytest.raises(AssertionError):
        _check(_counts([a * len(ROW) + a for a in ids], len(ROW) ** 2), [p * q for p in law for q in law])


def test_the_largest_of_log_probability_and_noise_is_drawn() -> None:
    states, n = _states(200), 200
    noise = token_gumbel(states, len(ROW), torch.device("cpu")).tolist()
    for params in CASES:
        law = _law(ROW, **params)
        logs = [math.log(p) if p else -math.inf for p in law]
        ids, logprobs = draw(_log_p(ROW, n), states, [SamplingParams(**params)] * n)
        scores = [[a + b for a, b in zip(logs, own, strict=True)] for own in noise]
        assert ids.tolist() == [own.index(max(own)) for own in scores], params
        assert logprobs.tolist() == pytest.approx([math.log(ROW[i]) for i in ids.tolist()])  # of the unmodified model


def test_similar_rows_mostly_draw_the_same_from_the_same_noise() -> None:
    """Where p and q are drawn with the same noise they agree at least as often as (1 - d) / (1 + d), d half of their L1
    distance."""
    other = _normalised([p * (1 + 0.3 * (i % 2)) for i, p in enumerate(ROW)])
    apart = sum(abs(p - q) for p, q in zip(ROW, other, strict=True)) / 2
    same = sum(a == b for a, b in zip(_drawn(ROW), _drawn(other), strict=True)) / NUM
    assert same > (1 - apart) / (1 + apart) - 5 * (0.25 / NUM) ** 0.5


def test_top_p_keeps_the_smallest_set_of_likeliest_ids_that_reaches_it() -> None:
    row = [0.1, 0.4, 0.2, 0.3]
    kept: list[tuple[dict[str, Any], set[int]]] = [
        ({"top_p": 0.7}, {1, 3}),
        ({"top_p": 0.71}, {1, 2, 3}),
        ({"top_k": 3, "top_p": 0.5}, {1, 3}),
        ({"temperature": 0.5, "top_p": 0.5}, {1}),  # 16/30 alone is enough once it is tempered
    ]
    for params, expected in kept:
        assert set(_drawn(row, 2000, **params)) == expected, params


def test_ties_go_to_the_lowest_id() -> None:
    assert set(_drawn([0.25, 0.25, 0.25, 0.25], 2000, temperature=0.0)) == {0}
    assert set(_drawn([0.2, 0.4, 0.4], 2000, top_k=1)) == {1}
    assert set(_drawn([0.2, 0.4, 0.4], 2000, top_p=1e-9)) == {1}
    assert set(_drawn([0.2, 0.2, 0.3, 0.2, 0.1], 2000, top_k=3)) == {0, 1, 2}


@pytest.mark.parametrize("temperature", [1e-6, 1.0, 1e300])
@pytest.mark.parametrize("filters", [{}, {"top_k": 40}, {"top_p": 1.0}], ids=str)
def test_a_barred_id_is_never_drawn(temperature: float, filters: dict[str, Any]) -> None:
    row = [0.0] * 30 + [1e-9, 0.0, 1 - 1e-9, 0.0]
    assert set(_drawn(row, 3000, temperature=temperature, **filters)) <= {30, 32}


def test_a_row_goes_its_own_way_in_any_company() -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = [SamplingParams(**params) for params in [*CASES, {"temperature": 0.0}]]
    for V in (5, 32, 300):
        log_p = log_probabilities(3 * torch.randn(60, V, generator=generator))
        states = _states(60)
        together, logprobs = draw(log_p, states, [kinds[i % len(kinds)] for i in range(60)])
        for i in range(60):
            token_id, logprob = draw(log_p[i : i + 1], states[i : i + 1], [kinds[i % len(kinds)]])
            assert (int(token_id), float(logprob)) == (int(together[i]), float(logprobs[i]))
        some = np.arange(7, 23)
        alike = draw(log_p[some], states[some], [kinds[1]] * len(some))[0].tolist()
        alone = [int(draw(log_p[i : i + 1], states[i : i + 1], [kinds[1]])[0]) for i in some]
        assert alike == alone


def test_the_likeliest_are_told_in_order_ties_by_the_lowest_id_and_nothing_that_cannot_be() -> None:
    log_p = _log_p(ROW, 4)
    none, two, all_, one = likeliest(log_p, [0, 2, 20, 1])
    assert none == ()
    assert [i for i, _ in two] == [1, 5]
    assert [i for i, _ in all_] == [1, 5, 3, 4, 0, 6]  # id 2 has probability 0
    assert [p for _, p in all_] == pytest.approx([math.log(ROW[i] / sum(ROW)) for i, _ in all_], rel=1e-6)
    assert one == two[:1]
