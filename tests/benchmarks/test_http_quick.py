"""The HTTP benchmark measures saturation and an open loop on a real server."""

from tests.benchmarks.quick import run


def test_saturation_and_an_open_loop_are_measured_on_a_real_server() -> None:
    found = run("http")
    for side in ("plain", "streamed"):
        assert found[side]["requests_per_second"] > 0
        assert found[side]["server_cpu_seconds_a_request"] > 0
    (row,) = found["open_loop"]
    assert row["requests"] > 0
    for name in ("first_reveal_seconds", "inter_reveal_seconds", "total_seconds"):
        assert 0 <= row[name]["p50"] <= row[name]["p95"] <= row[name]["p99"]
