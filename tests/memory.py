"""How much memory this process has held at most, whose tests took it there, and how a test takes none of it."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

MAX_BYTES = 2 * 2**30
_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most that was resident at once; 0 where Linux does not say. Not `ru_maxrss`, which a child process begins
    with its parent's."""
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def run_apart(check: Callable[[], None]) -> None:
    """Runs a check, a module's function, in a process of its own, whose memory goes with it. Raises what it raises."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(check).result()


def watched(name: str, *, limit: int = MAX_BYTES, peak: Callable[[], int] = peak_bytes) -> Iterator[None]:
    """To be gone through by a fixture: fails if the peak passes the limit meanwhile, and says whose tests it was.

    Whoever comes after is not blamed for a peak that was above the limit before.
    """
    before = peak()
    yield
    if before <= limit < (after := peak()):
        pytest.fail(f"{name} took this process from {before / 2**20:,.0f} to {after / 2**20:,.0f} MiB", pytrace=False)
