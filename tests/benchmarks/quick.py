"""Runs a benchmark's quick variant as a user does, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.service.mocks import WAIT_SECONDS
from unveil.training.run.parent import bound

ROOT = Path(__file__).parents[2]


def call(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = bound([sys.executable, "-m", "unveil.benchmarks", name, *arguments])
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS)


def run(name: str, *arguments: str) -> Any:
    """What it printed with `--quick --json`."""
    return run_watched(name, *arguments)[0]


def run_watched(name: str, *arguments: str) -> tuple[Any, str]:
    """As `run`, and what it said of its progress."""
    result = call(name, "--quick", "--json", *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def run_one_seed(name: str, work: Path, *arguments: str) -> Any:
    """As `run`, seed 0 alone, with its results kept in `work`, in one process."""
    return run(name, "--seeds", "1", "--work", str(work), "--jobs", "0", *arguments)
