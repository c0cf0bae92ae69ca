"""Processes that end with the one that started them, killed or not: workers, and commands.

Nobody is left to end what a killed process has started, and a worker in the middle of a long task would not even look.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

_POLL_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_FAILED = 1


def end_with_parent() -> None:
    """To be called by a worker when it begins: from then on a thread looks whether its parent is still there.

    Looking is what every system can do. (The kernel's own signal would go by the thread that made the worker.)
    """
    known = multiprocessing.parent_process()  # it may be gone already
    parent = os.getppid() if known is None or known.pid is None else known.pid
    threading.Thread(target=_look, args=[parent], name="parent", daemon=True).start()


def _look(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(_FAILED)  # whatever the other threads are at


def bound(command: Sequence[str]) -> list[str]:
    """The command to start in place of this one, so that Linux sends it SIGTERM when the thread that starts it ends.

    Elsewhere it is the command itself. Its process id, its output and its exit code are the command's own.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-P", __file__, str(os.getpid()), *command]


def _become(parent: int, command: Sequence[str]) -> None:
    """Asks for the signal, which outlasts the change of program, and becomes the command."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        sys.exit(_FAILED)  # it ended before it could be asked for
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
