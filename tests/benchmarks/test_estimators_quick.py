"""The quick variant of benchmarks/orders/estimators.py prints what it says it prints; a frozen problem is looked up
right."""

from pathlib import Path

import pytest
import torch

from tests.benchmarks.quick import run_one_seed
from unveil.benchmarks.orders.problems.frozen_arms import ARMS, FORWARDS
from unveil.benchmarks.orders.problems.frozen_problem import FewLatents, Frozen
from unveil.commands.training import cache_folder
from unveil.model.errors import UnveilError
from unveil.model.oracle.exact import exact_nelbo
from unveil.model.order.plackett_luce import fix_gauge
from unveil.training.data.config import AdultData
from unveil.training.data.load import load_dataset

L, N = 4, 6


def made_up() -> Frozen:
    """Losses that no denoiser gave; the mean table is all that the exact NELBO looks at."""
    draws = torch.Generator().manual_seed(3)
    ce = torch.rand((N, 2**L, L), generator=draws, dtype=torch.float64)
    return Frozen(ce=ce, control=torch.rand((N, L), generator=draws, dtype=torch.float64))


def test_a_loss_is_that_of_its_row_its_visible_positions_and_its_position() -> None:
    problem = made_up()
    hidden = torch.tensor([[True, False, True, True], [False, False, False, True]])
    found = problem.losses(torch.tensor([2, 5]), hidden)
    assert torch.equal(found, torch.stack([problem.ce[2, 0b0010], problem.ce[5, 0b0111]]))


def test_share_closed_is_0_for_uniform_orders_and_1_for_the_best_one() -> None:
    problem = made_up()
    assert problem.share_closed(problem.uniform) == 0.0
    assert problem.share_closed(problem.best[0]) == 1.0
    assert sorted(problem.best[1]) == list(range(L))


def test_few_latents_are_enumerable() -> None:
    x = FewLatents(seed=1).sample(5000, 0)
    assert x.shape[1] == 9
    assert len({tuple(row) for row in x.tolist()}) == 81


# The paper's arm is biased by what it cuts off, and a critic by what it has not yet learned.
@pytest.mark.parametrize("arm", [arm for arm in ARMS if "paper" not in arm and arm != "critic"])
def test_an_arm_estimates_the_exact_gradient_and_takes_its_forwards(arm: str) -> None:
    problem = made_up()
    estimator = ARMS[arm](problem, torch.Generator().manual_seed(5))
    log_w = torch.tensor([0.5, 0.0, 0.2, -0.7], dtype=torch.float64, requires_grad=True)
    truth = exact_nelbo(log_w, problem.mean)
    (exact,) = torch.autograd.grad(truth, log_w)
    losses = [estimator(log_w) for _ in range(300)]
    assert all(len(loss.row_nelbos) == FORWARDS for loss in losses)
    values = torch.stack([loss.row_nelbos.mean() for loss in losses])
    gradients = torch.stack([fix_gauge(torch.autograd.grad(loss.total, log_w)[0]) for loss in losses])
    assert abs(values.mean() - truth) < 5 * values.std() / len(values) ** 0.5
    error = (gradients.mean(0) - exact).norm()
    assert error < 4 * (gradients.var(0).sum() / len(gradients)) ** 0.5


def test_every_arm_is_measured_on_both_problems_and_found_again(tmp_path: Path) -> None:
    try:
        load_dataset(AdultData(), cache=cache_folder())
    except UnveilError as error:
        pytest.skip(f"the Adult data cannot be had here: {error}")
    plot = tmp_path / "plot.png"
    report = run_one_seed("estimators", tmp_path, "--plot", str(plot))
    assert set(report["problems"]) == {"latents", "adult"}
    for problem in report["problems"].values():
        assert problem["headroom"] == [problem["uniform"][0] - problem["best"][0]]
        for arms in problem["laws"].values():
            assert set(arms) == set(ARMS)
            assert arms["eq. 8, finite gauge"]["variance_share"]["mean"] == 1.0
            for metrics in arms.values():
                assert metrics["gradient_variance"] > 0
        for arms in problem["learning"].values():
            for arm in arms.values():
                assert arm["closed_at_end"]["mean"] <= 1.0
                for level in arm["levels"].values():
                    assert (level["forwards"] is None) == (level["failed"] == 1)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert run_one_seed("estimators", tmp_path) == report
