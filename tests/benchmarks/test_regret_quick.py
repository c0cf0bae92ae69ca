"""The quick variant of benchmarks/regret.py prints what it says it prints, and its figures fit together."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.regret import ADULT_COLUMNS, FULL, cut
from model.errors import DataError
from tests.benchmarks.quick import run_one_seed, run_watched
from tests.training.small import small_dataset, write_csv
from training.data.config import AdultData, NetworkData
from training.data.load import load_dataset
from unveil.training_commands import cache_folder


def check(result: dict[str, Any]) -> None:
    """What holds of every problem, however little was trained."""
    orders, losses, reference = (result[key] for key in ("orders", "retrained", "reference"))
    assert all(sorted(order) == sorted(orders["learned"]) for order in orders.values())
    assert orders["reversed"] == orders["learned"][::-1]
    by_weight = sorted(result["log_w"], key=lambda name: -result["log_w"][name])
    assert [result["log_w"][name] for name in by_weight] == [result["log_w"][name] for name in orders["learned"]]
    assert sum(result["log_w"].values()) == pytest.approx(0, abs=1e-4)
    assert set(losses) == {"learned", "best", "reversed", "uniform", "uniform_nelbo"}
    assert losses["uniform"]["mean"] <= losses["uniform_nelbo"]["mean"]  # the NELBO is a bound
    for name, difference in result["learned_minus"].items():
        assert difference["mean"] == pytest.approx(losses["learned"]["mean"] - losses[name]["mean"], abs=1e-6)
    assert result["headroom"] == pytest.approx(reference["uniform"] - reference["best"])
    assert result["has_headroom"] == (result["regret"] is not None)
    if result["regret"] is not None:
        assert result["regret"] == pytest.approx((reference["law"] - reference["best"]) / result["headroom"])


@pytest.fixture
def _data() -> None:
    """Asia and Adult, or the test is skipped."""
    try:
        for data in (NetworkData(name="asia"), AdultData()):
            load_dataset(data, cache=cache_folder())
    except DataError as error:
        pytest.skip(f"the data cannot be had here: {error}")


@pytest.mark.usefixtures("_data")
def test_networks_and_tables_are_measured_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "own.csv")
    arguments = ("--seeds", "1", "--work", str(tmp_path / "work"), "--table", str(table))
    report, progress = run_watched("regret", *arguments)
    assert [result["name"] for result in report["networks"]] == ["cancer", "asia"]
    assert [result["name"] for result in report["tables"]] == ["adult", "own"]
    for result in [*report["networks"], *report["tables"]]:
        check(result)
    ratios = [r["regret"] for r in [*report["networks"], *report["tables"]] if r["regret"] is not None]
    assert report["regret_max"] == max(ratios, default=None)
    for result in report["networks"]:
        for name, above in result["above_truth"].items():
            expected = result["retrained"][name]["mean"] - result["true_nats"]["mean"]
            assert above["mean"] == pytest.approx(expected, abs=1e-6)
        shares = result["parents_first"]
        assert shares["learned"] + shares["reversed"] == pytest.approx(1.0)
    assert "training learner" in progress
    again, progress = run_watched("regret", *arguments)
    assert again == report
    assert "training" not in progress
    assert not list((tmp_path / "work").glob("*/*.run"))


def test_a_table_is_cut_to_the_columns_asked_for_in_their_order() -> None:
    whole = small_dataset()
    part = cut(whole, ("d", "b"))
    assert part.names == ("d", "b")
    assert part.tokenizer.vocabulary_sizes == tuple(whole.tokenizer.vocabulary_sizes[i] for i in (3, 1))
    assert (part.test == whole.test[:, [3, 1]]).all()


def test_the_full_run_has_the_five_networks_and_at_most_ten_columns_of_a_table() -> None:
    assert FULL.networks == ("cancer", "earthquake", "survey", "asia", "sachs")
    assert len(ADULT_COLUMNS) <= 10


@pytest.mark.usefixtures("_data")
def test_a_regime_says_how_far_the_best_order_of_one_net_is_from_that_of_the_next(tmp_path: Path) -> None:
    found = run_one_seed("regret_regimes", tmp_path)["regimes"]
    assert [one["problem"] for one in found] == ["asia", "adult"]
    for one in found:
        assert len(one["headroom"]) == len(one["uniform"]) == 3
        assert len(one["transferred"]) == 6
        assert len(set(one["headroom"])) == 3  # nets of three seeds
