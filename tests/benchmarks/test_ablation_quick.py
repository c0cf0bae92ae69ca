"""The quick variant of benchmarks/orders/ablation.py runs every arm and prints what it says it prints."""

from pathlib import Path

from tests.benchmarks.quick import run_one_seed
from unveil.benchmarks.orders.ablation import ARMS, FIRST_SEED


def test_every_arm_is_scored_on_the_same_problem_and_drawn(tmp_path: Path) -> None:
    report = run_one_seed("ablation", tmp_path, "--plot", str(tmp_path / "curves.png"))
    assert [arm["arm"] for arm in report["arms"]] == list(ARMS)
    for arm in report["arms"]:
        assert arm["seed"] == FIRST_SEED
        assert arm["nelbo"]["mean"] > arm["entropy"]
        assert arm["curve"][-1][0] == report["optimizer"]["steps"]
    assert len({arm["nelbo"]["mean"] for arm in report["arms"]}) > 1  # the arms are not one and the same
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
