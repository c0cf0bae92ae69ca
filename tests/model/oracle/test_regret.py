import pytest
import torch

from tests.model.enumerable import World, random_world
from unveil.model.oracle.exact import best_order, exact_nelbo, order_table, worst_order
from unveil.model.oracle.regret import Regret, regret

L = 4


def rows(world: World, *, seed: int, N: int = 2000) -> torch.Tensor:
    index = torch.multinomial(world.p, N, replacement=True, generator=torch.Generator().manual_seed(seed))
    return world.tables()[index]


IMPERFECT = random_world(seed=1, imperfection=2.0)
VALIDATION, TEST = rows(IMPERFECT, seed=1), rows(IMPERFECT, seed=2)


def law_of(sigma: torch.Tensor) -> torch.Tensor:
    return order_table(torch.empty(L).index_copy(0, sigma, -64.0 * torch.arange(L)))


def test_the_best_validation_order_has_regret_zero_and_a_uniform_law_one() -> None:
    _, sigma = best_order(VALIDATION.mean(0))
    best = regret(law_of(sigma), validation=VALIDATION, test=TEST)
    uniform = regret(order_table(torch.zeros(L)), validation=VALIDATION, test=TEST)
    assert best.best_sigma == tuple(sigma.tolist())
    assert best.ratio == pytest.approx(0.0, abs=1e-9)
    assert uniform.ratio == pytest.approx(1.0)
    assert uniform.ratio_standard_error == pytest.approx(0.0, abs=1e-12)


def test_the_worst_order_is_worse_than_random() -> None:
    _, sigma = worst_order(VALIDATION.mean(0))
    worst = regret(law_of(sigma), validation=VALIDATION, test=TEST)
    assert worst.ratio is not None
    assert worst.ratio > 1 + 4 * worst.ratio_standard_error > 1


def test_the_best_order_is_chosen_on_validation_and_scored_on_test() -> None:
    other = rows(random_world(seed=2, imperfection=2.0), seed=0)
    found = regret(order_table(torch.zeros(L)), validation=other, test=TEST)
    assert found.best_sigma == tuple(best_order(other.mean(0))[1].tolist())
    assert found.best > float(best_order(TEST.mean(0))[0]) + 1e-6


def test_a_perfect_denoiser_leaves_no_headroom_and_gets_no_ratio() -> None:
    perfect = rows(random_world(), seed=1)
    found = regret(order_table(torch.zeros(L)), validation=perfect, test=perfect)
    assert not found.has_headroom
    assert found.ratio is None
    assert str(found).startswith("no headroom")


@pytest.mark.parametrize(
    ("uniform", "standard_error", "has_headroom"), [(1.09, 0.001, False), (1.2, 0.03, False), (1.2, 0.01, True)]
)
def test_headroom_means_a_tenth_of_a_nat_and_ten_standard_errors(
    uniform: float, standard_error: float, has_headroom: bool
) -> None:
    found = Regret(
        nelbo=1.05,
        best=1.0,
        uniform=uniform,
        best_sigma=(0,),
        headroom_standard_error=standard_error,
        ratio_standard_error=0.01,
    )
    assert found.has_headroom == has_headroom
    assert (found.ratio is not None) == has_headroom


def test_the_standard_error_of_the_ratio_is_that_of_repeated_tests() -> None:
    law = order_table(torch.tensor([0.5, -1.0, 0.0, 0.2]))
    found = [regret(law, validation=VALIDATION, test=rows(IMPERFECT, seed=seed)) for seed in range(10, 60)]
    ratios = torch.tensor([one.ratio for one in found])
    claimed = torch.tensor([one.ratio_standard_error for one in found]).mean()
    assert 0.7 < ratios.std() / claimed < 1.4
    truth = exact_nelbo(torch.tensor([0.5, -1.0, 0.0, 0.2]), IMPERFECT.mean_table())
    nelbos = torch.tensor([one.nelbo for one in found])
    assert abs(nelbos.mean() - truth) < 4 * nelbos.std() / 50**0.5
