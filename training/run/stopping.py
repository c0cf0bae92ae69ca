"""When a run saves besides its steps, and when it ends early: by the clock, and by ^C or SIGTERM.

All processes of a run agree on both, since saving is a thing that they do together.
"""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self, cast

import torch
from lightning_fabric import Fabric

from unveil.model.errors import UnveilError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MOST_SHARE = 0.02  # of a run's time that saving by the clock may take


class StoppedError(UnveilError):
    """A run ended at a signal, its checkpoint written."""

    def __init__(self, message: str, *, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class Watch:
    """Says after each step what is due. A context: inside, the first ^C or SIGTERM waits for the end of a step, and a
    second one ends the process as if nobody watched."""

    def __init__(self, fabric: Fabric, *, seconds: float, agree_every: int) -> None:
        """`seconds` between two checkpoints by the clock, more where one takes long. Several processes look at one
        another's wishes every `agree_every` steps."""
        self._fabric, self._seconds, self._agree_every = fabric, seconds, agree_every
        self._signum, self._saved_at, self._cost = 0, time.monotonic(), 0.0
        self._before = dict[int, object]()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # nobody else may take signals
            self._before = {signum: signal.signal(signum, self._take) for signum in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _take(self, signum: int, _frame: FrameType | None) -> None:
        """Notes the signal, between any two instructions."""
        self._signum = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            if handler is not None:  # one that Python has not set cannot be set again
                signal.signal(signum, handler)  # type: ignore[arg-type]
        self._before = {}

    def wishes(self, step: int) -> tuple[bool, int]:
        """Whether a checkpoint is due after this step, and the signal to end at, 0 if there is none."""
        alone = self._fabric.world_size == 1
        if not alone and step % self._agree_every:
            return False, 0
        interval = max(self._seconds, self._cost / _MOST_SHARE)
        is_due, signum = time.monotonic() - self._saved_at >= interval, self._signum
        if not alone:
            own = torch.tensor([float(is_due), float(signum)], device=self._fabric.device)
            found = cast(torch.Tensor, self._fabric.all_gather(own))
            is_due, signum = bool(found[..., 0].any()), int(found[..., 1].max())
        return is_due or signum > 0, signum

    def saved(self, seconds: float) -> None:
        """A checkpoint was written, which took so long."""
        self._saved_at, self._cost = time.monotonic(), seconds
