"""The made-up problems are what they say: their laws, their best orders, and what a result is found again by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unveil.benchmarks.common.runs import interval, run_all
from unveil.benchmarks.orders.problems.latent import LatentProblem, kendall_tau
from unveil.benchmarks.orders.problems.switch import SelectorProblem


@pytest.mark.parametrize("scale", [1, 3])
def test_observations_follow_from_their_own_latents_and_from_nothing_else(scale: int) -> None:
    problem = LatentProblem(seed=3, scale=scale)
    x = problem.sample(500, stream=0)
    latents = x[:, problem.places[: problem.num_latents]]
    for k in range(problem.num_observations):
        parents = latents[:, problem.parents[k]]
        expected = problem.functions[k][tuple(parents.T)]
        assert (x[:, problem.places[problem.num_latents + k]] == expected).all()
    assert np.abs(np.stack([(latents == v).mean(0) for v in range(3)]) - 1 / 3).max() < 0.12
    assert not np.array_equal(x, problem.sample(500, stream=1))


def test_latents_first_puts_every_parent_before_its_observation() -> None:
    problem = LatentProblem(seed=1)
    assert sorted(problem.best_order) == list(range(20))
    assert len(problem.pairs) == 36
    assert kendall_tau(problem.best_order, problem.pairs) == 1.0
    assert kendall_tau(problem.best_order[::-1], problem.pairs) == -1.0


def test_the_selector_says_which_group_is_free() -> None:
    problem, group = SelectorProblem(seed=2, group=4), 4
    x = problem.support[:, problem.places]  # selector, group A, group B
    assert len(np.unique(x, axis=0)) == len(x) == 162
    for selector, free in ((0, slice(1, 1 + group)), (1, slice(1 + group, 1 + 2 * group))):
        half = x[x[:, 0] == selector]
        assert np.array_equal(half, x[problem.halves[selector]])
        assert len(np.unique(half[:, free], axis=0)) == len(half) == 81
    assert problem.entropy == pytest.approx(np.log(162))


def double(task: dict[str, Any]) -> dict[str, Any]:
    return {"value": 2 * task["value"], "pid": __import__("os").getpid()}


def test_a_result_is_kept_and_found_again_by_all_that_it_depends_on(tmp_path: Path) -> None:
    tasks = [{"problem": "p", "seed": seed, "value": seed} for seed in range(3)]
    first = run_all(double, tasks, folder=tmp_path, jobs=1)
    assert [result["value"] for result in first] == [0, 2, 4]
    assert run_all(double, tasks, folder=tmp_path, jobs=1) == first
    other = run_all(double, [{**tasks[1], "value": 7}], folder=tmp_path, jobs=1)
    assert other[0]["value"] == 14


def test_an_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["high"] - found["mean"] == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert interval([1.0])["low"] is None
