"""Whether processes that a test did not start itself have ended, and waiting for it. Linux alone."""

import os
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

from tests.service.mocks import WAIT_SECONDS


def until(condition: Callable[[], bool]) -> None:
    """Waits for it; AssertionError if it does not come."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """A process that has ended and that nobody asks about any more does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def see_ended(pids: Collection[int]) -> None:
    """AssertionError unless all of them end by themselves; none is left behind."""
    try:
        until(lambda: not any(map(is_running, pids)))
    finally:
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)
