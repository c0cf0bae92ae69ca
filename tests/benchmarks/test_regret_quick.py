"""The quick variant of benchmarks/orders/regret.py prints what it says it prints, and its figures fit together."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.quick import call, run_watched
from tests.training.small import small_dataset, write_csv
from unveil.benchmarks.orders.problems.decided import LEARNED, decided_orders, percentile
from unveil.benchmarks.orders.problems.frozen_learner import learned_law
from unveil.benchmarks.orders.problems.frozen_problem import Frozen
from unveil.benchmarks.orders.problems.network import NetworkSource, load_network
from unveil.benchmarks.orders.problems.short_rows import ADULT_COLUMNS, Problem, cut
from unveil.benchmarks.orders.regret import FULL, compared, problem_summary
from unveil.commands.training import cache_folder
from unveil.model.errors import UnveilError
from unveil.model.oracle.exact import best_order, exact_nelbo
from unveil.training.data.config import AdultData
from unveil.training.data.load import load_dataset
from unveil.training.data.rows import evenly_spaced


def check(result: dict[str, Any]) -> None:
    """What holds of every problem, however little was trained."""
    orders, losses, frozen = (result[key] for key in ("orders", "retrained", "frozen"))
    assert all(sorted(order) == sorted(orders["learned"]) for order in orders.values())
    assert orders["learned, reversed"] == orders["learned"][::-1]
    assert set(losses) == {*orders, "uniform", "uniform, NELBO"}
    assert losses["uniform"]["mean"] <= losses["uniform, NELBO"]["mean"]  # the NELBO is a bound
    for name in set(losses) - {"learned"}:
        expected = losses["learned"]["mean"] - losses[name]["mean"]
        assert result["learned_minus"][name]["mean"] == pytest.approx(expected, abs=1e-6)
    others = [losses[name]["mean"] for name in orders if name != "learned"]
    assert result["percentile"] == pytest.approx(
        sum((losses["learned"]["mean"] < other) + 0.5 * (losses["learned"]["mean"] == other) for other in others)
        / len(others)
    )
    nats = frozen["nats"]
    assert frozen["headroom"] == pytest.approx(nats["uniform"] - nats["best"])
    if frozen["law"] is not None:
        assert frozen["law"] == pytest.approx((nats["law"] - nats["best"]) / frozen["headroom"])
        assert frozen["greedy"] == pytest.approx((nats["greedy"] - nats["best"]) / frozen["headroom"])


@pytest.fixture
def _data() -> None:
    """Asia and Adult, or the test is skipped."""
    try:
        load_network(NetworkSource("asia"), cache=cache_folder())
        load_dataset(AdultData(), cache=cache_folder())
    except UnveilError as error:
        pytest.skip(f"the data cannot be had here: {error}")


@pytest.mark.usefixtures("_data")
def test_networks_and_tables_are_measured_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "own.csv")
    arguments = ("--seeds", "1", "--work", str(tmp_path / "work"), "--table", str(table))
    report, progress = run_watched("regret", *arguments)
    assert list(report["problems"]) == ["asia", "adult", "own"]
    for result in report["results"]:
        check(result)
    assert report["all"]["percentile"]["seeds"] == 3
    assert "done: asia-0" in progress
    again, progress = run_watched("regret", *arguments)
    assert again == report
    assert not progress
    assert not list((tmp_path / "work" / "runs").glob("*"))


def test_a_table_that_is_not_there_is_one_line_and_no_result(tmp_path: Path) -> None:
    refused = call("regret", "--quick", "--table", str(tmp_path / "none.csv"))
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.strip().count("\n") == 0


def test_a_table_is_cut_to_the_columns_asked_for_in_their_order() -> None:
    whole = small_dataset()
    part = cut(whole, ("d", "b"))
    assert part.names == ("d", "b")
    assert part.tokenizer.vocabulary_sizes == tuple(whole.tokenizer.vocabulary_sizes[i] for i in (3, 1))
    assert (part.test == whole.test[:, [3, 1]]).all()


def test_rows_of_a_split_are_evenly_spaced_and_no_head() -> None:
    problem = Problem(small_dataset(), num_rows=7)
    found, test = problem.rows("test").numpy(), problem.dataset.test
    assert (found == test[evenly_spaced(len(test), 7)]).all()
    assert not (found == test[:7]).all()


def test_the_full_run_has_problems_with_headroom_and_at_most_ten_columns_of_a_table() -> None:
    assert FULL["networks"] == ("asia", "sachs")
    assert len(ADULT_COLUMNS) <= 10


@pytest.mark.parametrize(
    ("learned", "others", "expected"),
    [
        (1.0, [2.0, 3.0, 4.0, 5.0], 1.0),  # fewest nats: it beats all
        (6.0, [2.0, 3.0, 4.0, 5.0], 0.0),
        (2.5, [2.0, 3.0, 4.0, 5.0], 0.75),  # one is better
        (3.0, [2.0, 3.0, 4.0, 5.0], 0.625),  # one better, one alike, two worse
        (3.0, [3.0, 3.0], 0.5),
    ],
)
def test_the_percentile_is_the_share_of_others_that_cost_more_nats(
    learned: float, others: list[float], expected: float
) -> None:
    nats = {"learned": learned} | {f"random {n}": value for n, value in enumerate(others, 1)}
    assert percentile(nats) == expected


def test_percentiles_of_all_orders_are_a_half_on_average() -> None:
    nats = {"a": 1.0, "b": 5.0, "c": 2.0, "d": 2.0, "e": 0.5}
    assert sum(percentile(nats, of=name) for name in nats) / len(nats) == pytest.approx(0.5)


def test_random_orders_change_with_the_seed_and_never_with_the_learned_order() -> None:
    one, other = (decided_orders([2, 0, 1, 3, 4], best, num_random=6, seed=3) for best in ([0, 1, 2, 3, 4], [4] * 5))
    assert [one[f"random {n}"] for n in range(1, 7)] == [other[f"random {n}"] for n in range(1, 7)]
    assert len(one) == 10
    assert one["learned, reversed"] == [4, 3, 1, 0, 2]
    assert decided_orders([2, 0, 1, 3, 4], [0] * 5, num_random=6, seed=4)["random 1"] != one["random 1"]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in one.values())


def test_the_learned_order_is_compared_with_the_mean_of_the_random_ones_and_with_uniform_orders() -> None:
    orders = {name: [0, 1] for name in (LEARNED, "left to right", "random 1", "random 2")}
    losses = {
        LEARNED: torch.tensor([1.0, 2.0]),
        "left to right": torch.tensor([1.0, 1.0]),
        "random 1": torch.tensor([2.0, 2.0]),
        "random 2": torch.tensor([4.0, 4.0]),
        "uniform": torch.tensor([5.0, 7.0]),
    }
    found = compared(losses, orders)
    assert found["learned_minus"]["mean of random"]["mean"] == -1.5
    assert found["learned_minus"]["uniform"]["mean"] == -4.5
    assert found["random_minus_uniform"]["mean"] == -3.0
    assert found["percentile"] == pytest.approx(2 / 3)  # uniform orders are not decided, and do not count


def test_regret_is_a_mean_over_the_seeds_that_have_headroom() -> None:
    seeds = [
        {
            "frozen": {"law": law, "greedy": law, "headroom": 0.2},
            "percentile": 0.5,
            "learned_minus": {"uniform": {"mean": -0.1}},
            "random_minus_uniform": {"mean": 0.0},
        }
        for law in (0.1, None, 0.3)
    ]
    found = problem_summary(seeds)
    assert found["num_with_headroom"] == 2
    assert found["frozen_regret"]["law"]["mean"] == pytest.approx(0.2)
    assert problem_summary(seeds[1:2])["frozen_regret"]["law"] is None


def test_an_order_is_learned_from_the_losses_of_a_frozen_net_alone() -> None:
    draws = torch.Generator().manual_seed(4)
    ce = torch.rand((40, 2**4, 4), generator=draws, dtype=torch.float64)
    ce[:, 1:, 3] -= 0.9 * (torch.arange(1, 16) % 2).double()  # position 3 is cheap once position 0 is visible
    problem = Frozen(ce=ce, control=torch.zeros(40, 4))
    log_w = learned_law(problem, forwards=256 * 120, rate=0.1, seed=0)
    assert log_w.sum() == pytest.approx(0.0, abs=1e-6)
    assert float(exact_nelbo(log_w, problem.mean)) < problem.uniform - 0.5 * (
        problem.uniform - float(best_order(problem.mean)[0])
    )
    assert log_w[0] > log_w[3]
    assert torch.equal(log_w, learned_law(problem, forwards=256 * 120, rate=0.1, seed=0))
