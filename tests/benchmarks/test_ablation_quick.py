"""The quick variant of benchmarks/ablation.py runs every arm and prints what it says it prints."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.ablation import ARMS, FIRST_SEED

ROOT = Path(__file__).parents[2]


def test_every_arm_is_scored_on_the_same_problem_and_drawn(tmp_path: Path) -> None:
    options = ["--quick", "--json", "--seeds", "1", "--work", str(tmp_path), "--plot", str(tmp_path / "curves.png")]
    command = [sys.executable, "-m", "benchmarks.ablation", *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [arm["arm"] for arm in report["arms"]] == list(ARMS)
    for arm in report["arms"]:
        assert arm["seed"] == FIRST_SEED
        assert arm["nelbo"]["mean"] > arm["entropy"]
        assert arm["curve"][-1][0] == report["optimizer"]["steps"]
    assert len({arm["nelbo"]["mean"] for arm in report["arms"]}) > 1  # the arms are not one and the same
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
