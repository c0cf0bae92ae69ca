"""The training benchmark times both sides for both kinds of order."""

from tests.benchmarks.quick import run


def test_a_step_is_timed_beside_the_bare_forward_and_backward() -> None:
    rows = run("training")["rows"]
    assert [row["order"] for row in rows] == ["uniform", "global"]
    for row in rows:
        assert row["step_over_bare"] == row["step_seconds"] / row["bare_seconds"] > 0
