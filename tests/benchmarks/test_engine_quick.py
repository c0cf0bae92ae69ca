"""The engine's benchmark takes every path and reports the keys that are promised."""

from tests.benchmarks.quick import run
from unveil.benchmarks.speed.engine import LARGE_HOLES, LARGE_REQUESTS
from unveil.benchmarks.speed.in_process import RATIOS


def test_the_engine_is_timed_on_bundled_models_and_on_a_large_one() -> None:
    report = run("engine", "--models", "adult,moses")
    default = [row for row in report["rows"] if row["rule"] == "confidence"]
    assert {row["model"] for row in default} == {"adult", "moses"}
    for key in RATIOS:
        assert report[key] == min(row[key] for row in default) > 0
    assert all(0 < row["engine_steps"] <= row["tokens"] for row in report["rows"])
    assert {row["rule"] for row in report["large"]} == {"confidence", "random"}
    for row in report["large"]:
        assert row["tokens"] == LARGE_REQUESTS * LARGE_HOLES
        assert row["of_limit"] > 0
        assert row["of_peak"] > 0
    assert report["peak_gflops"] > 0
