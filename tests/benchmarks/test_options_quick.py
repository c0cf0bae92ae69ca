"""What single options of training earn: both sides of each, and their differences over the same seeds."""

import pytest

from tests.benchmarks.quick import run
from unveil.benchmarks.orders import pair_bias, spread


def test_a_network_with_and_without_pair_bias_is_trained_and_scored() -> None:
    report = run("pair_bias", "--seeds", "1")
    sides = {arm["side"]: arm for arm in report["arms"]}
    assert [sides[side]["model"]["pair_bias"] for side in pair_bias.SIDES] == [True, False]
    assert len({arm["parameters"] for arm in report["arms"]}) == 2
    first, second = (sides[side]["greedy"]["mean"] for side in pair_bias.SIDES)
    assert report["with minus without"]["mean"] == pytest.approx(first - second)


def test_spread_is_compared_on_the_same_seeds() -> None:
    means = {(0.5, 0): 2.0, (0.0, 0): 3.0, (0.5, 1): 5.0, (0.0, 1): 5.5}
    results = [
        {"spread": side, "seed": seed, "nats": {name: {"mean": mean} for name in (spread.GREEDY, spread.UNIFORM)}}
        for (side, seed), mean in means.items()
    ]
    report = spread.report(results)
    assert report["nats"][spread.GREEDY]["0.5"]["mean"] == pytest.approx(3.5)
    assert report["spread minus none"][spread.GREEDY]["mean"] == pytest.approx(-0.75)
    assert "| -0.7500 [" in spread.as_text(report)
