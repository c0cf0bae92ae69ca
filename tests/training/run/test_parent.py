"""No process outlives the one that started it, even where that one is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.ended import is_running, see_ended, until
from unveil.training.run.parent import bound


@pytest.fixture
def parents() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Processes to be ended whatever becomes of the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize(("kind", "num_workers"), [("pool", 2), ("command", 1)])
def test_workers_end_when_a_benchmark_is_killed(
    kind: str, num_workers: int, tmp_path: Path, parents: list["subprocess.Popen[bytes]"]
) -> None:
    command = [sys.executable, "-m", "tests.training.endless", kind, str(tmp_path)]
    parents.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    until(lambda: len(list(tmp_path.glob("*.pid"))) == num_workers or parents[0].poll() is not None)
    workers = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert len(workers) == num_workers
    assert all(map(is_running, workers))
    parents[0].kill()
    parents[0].wait()
    see_ended(workers)


def test_a_bound_command_is_the_command_itself() -> None:
    code = "import os, sys; print(os.getpid(), sys.argv[1:]); sys.exit(3)"
    with subprocess.Popen(bound([sys.executable, "-c", code, "a", "-b"]), stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate()
    assert out == f"{process.pid} ['a', '-b']\n"
    assert process.returncode == 3


@pytest.mark.skipif(sys.platform != "linux", reason="the signal is Linux's")
def test_a_command_whose_parent_is_gone_already_does_not_begin() -> None:
    program, isolated, script, _, *rest = bound([sys.executable, "-c", "print('begun')"])
    another = str(os.getpid() + 1)
    ended = subprocess.run([program, isolated, script, another, *rest], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
