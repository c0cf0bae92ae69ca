"""The benchmark of starts times a server that answers first and is ready then, and one call of each command."""

import sys

import pytest

from tests.benchmarks.quick import run
from unveil.benchmarks.serving.start import cpu_seconds


def test_a_server_and_one_call_of_each_command_are_timed() -> None:
    report = run("start")
    serve = report["serve"]
    assert 0 < serve["first_cpu_seconds"] <= serve["all_cpu_seconds"]
    assert 0 < serve["first_seconds"] <= serve["all_seconds"]
    assert list(report["commands"]) == ["import torch", "generate adult", "score adult", "order adult", "impute adult"]
    assert all(seconds > 0 for seconds in report["commands"].values())


def test_a_command_that_fails_is_not_timed() -> None:
    with pytest.raises(RuntimeError, match="no such row"):
        cpu_seconds([sys.executable, "-c", "raise SystemExit('no such row')"])


def test_all_of_a_process_is_counted() -> None:
    work = "import time\nwhile time.process_time() < 0.3: pass"
    assert cpu_seconds([sys.executable, "-c", work]) >= 0.3
