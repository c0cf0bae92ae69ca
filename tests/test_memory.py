"""The guard of the tests' memory: it names the module that passed the limit, and nobody else."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory import peak_bytes, run_apart, watched

ROOT = Path(__file__).parent.parent


def run_between(before: int, after: int) -> None:
    """The guard with a limit of 100 bytes, of a module in which the peak went from `before` to `after`."""
    peaks = iter([before, after])
    guard: Iterator[None] = watched("test_m.py", limit=100, peak=lambda: next(peaks))
    next(guard)
    next(guard, None)


@pytest.mark.parametrize(("before", "after"), [(50, 100), (101, 200)], ids=["below", "above before"])
def test_a_module_that_does_not_pass_the_limit_is_not_blamed(before: int, after: int) -> None:
    run_between(before, after)


def test_the_module_that_passes_the_limit_is_named() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"test_m\.py took this process from 0 to 0 MiB"):
        run_between(100, 101)


def _hold_much() -> None:
    assert len(bytearray(2**29)) > 0


def _fail() -> None:
    raise KeyError("from the child")


def test_what_runs_apart_takes_no_memory_here_and_its_failure_is_raised_here() -> None:
    before = peak_bytes()
    run_apart(_hold_much)
    assert peak_bytes() < before + 2**28
    with pytest.raises(KeyError, match="from the child"):
        run_apart(_fail)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is Linux's")
def test_in_a_run_of_pytest_the_module_that_takes_the_memory_fails_and_the_next_does_not(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "from tests.memory import peak_bytes, watched\n"
        "LIMIT = peak_bytes() + 2**27\n"
        "@pytest.fixture(scope='module', autouse=True)\n"
        "def _memory(request):\n"
        "    yield from watched(request.node.nodeid, limit=LIMIT)\n"
    )
    for name, body in (("a", "pass"), ("b", "assert len(bytearray(2**28)) > 0"), ("c", "pass")):
        (tmp_path / f"test_{name}.py").write_text(f"def test_it():\n    {body}\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "3 passed, 1 error" in result.stdout
    assert "test_b.py took this process from" in result.stdout
