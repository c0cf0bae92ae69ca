"""The quick variant of benchmarks/orders/parallel.py prints what it says it prints; its scores know right rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.benchmarks.quick import run_one_seed
from tests.training.small import small_dataset
from unveil.benchmarks.domains.problems.tables import ADULT, load
from unveil.benchmarks.orders.parallel import SIDES, STEPS, WIDTHS, against_law, against_rows, generated
from unveil.benchmarks.orders.problems.latent import LatentProblem, V
from unveil.model.decoding.canvas import SamplingParams
from unveil.model.denoiser import Prediction
from unveil.model.errors import UnveilError


def test_true_rows_are_possible_and_one_wrong_observation_is_found() -> None:
    problem = LatentProblem(seed=4)
    rows = problem.sample(500, 0)
    score = against_law(problem)
    assert score(rows)["possible"] == score(rows)["observations_right"] == 1.0
    assert score(rows)["latent_pairs"] < 0.1
    place = problem.places[-1]
    rows[0, place] = (rows[0, place] + 1) % V
    assert score(rows)["possible"] == pytest.approx(1 - 1 / 500)
    assert score(rows)["observations_right"] == pytest.approx(1 - 1 / (500 * problem.num_observations))


def test_latents_that_hang_together_are_far_from_uniform_pairs() -> None:
    problem = LatentProblem(seed=4)
    rows = problem.sample(500, 0)
    rows[:, problem.places[: problem.num_latents]] = rows[:, problem.places[:1]]
    assert against_law(problem)(rows)["latent_pairs"] > 0.6  # two thirds: three cells of nine are met


def test_rows_are_0_from_themselves_and_shuffled_columns_lose_their_pairs() -> None:
    dataset = small_dataset()
    score = against_rows(dataset)
    assert score(dataset.test) == {"columns": 0.0, "pairs": 0.0}
    draws = np.random.default_rng(0)
    shuffled = np.stack([draws.permutation(column) for column in dataset.test.T], axis=1)
    found = score(shuffled)
    assert found["columns"] == 0.0
    assert found["pairs"] > 0.1


def test_rows_are_generated_with_as_many_forwards_as_their_pace_says() -> None:
    def denoise(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        return Prediction(torch.zeros(*tokens.shape, 2), torch.zeros(tokens.shape))

    rows, forwards = generated(denoise, SamplingParams(tokens_per_step=3), length=7, count=40, seed=0)
    assert rows.shape == (40, 7)
    assert forwards == 3.0
    assert 0.3 < rows.mean() < 0.7
    again, _ = generated(denoise, SamplingParams(tokens_per_step=3), length=7, count=20, seed=0)
    assert sorted(map(tuple, again.tolist())) == sorted(map(tuple, rows[:20].tolist()))


def test_every_side_is_measured_at_every_pace_and_found_again(tmp_path: Path) -> None:
    try:
        load(ADULT)
    except UnveilError as error:
        pytest.skip(f"the Adult data cannot be had here: {error}")
    plot = tmp_path / "plot.png"
    report = run_one_seed("parallel", tmp_path, "--plot", str(plot))
    for name, problem in report["problems"].items():
        sides = [side for side in SIDES.values() if name == "latent1" or side.arm != "best"]
        timed = sum(side.is_timed for side in sides)
        assert len(problem["points"]) == len(sides) * len(WIDTHS[name]) + timed * len(STEPS[name])
        for point in problem["points"]:
            length = 20 if name == "latent1" else 15
            expected = -(-length // point["tokens_per_step"]) if "tokens_per_step" in point else point["steps"]
            assert 1 <= point["forwards"]["mean"] <= expected
    assert report["problems"]["latent1"]["real"]["possible"]["mean"] == 1.0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert run_one_seed("parallel", tmp_path) == report
