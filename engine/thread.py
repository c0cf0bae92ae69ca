"""The engine as the rest of the service sees it: commands in, events out, in a thread of its own.

What passes is plain values (`engine.messages`), so the thread can become a process without a change elsewhere.
"""

import queue
import threading
from collections.abc import Callable

from unveil.engine.messages import Command, Died, Emit
from unveil.engine.worker import Loading, StepsFailedError, Worker
from unveil.model.errors import UnveilError

Load = Callable[[], Loading]


class Engine:
    """Loads its models and steps them in one worker thread. `load` runs there, too, so the event loop goes on; a model
    is stepped as soon as it is there, in turns with the loading of the others.

    `emit` is called from the worker's thread. The last thing it is given is `Died`, unless the worker was stopped.
    """

    def __init__(self, load: Load, *, max_batch: int, heartbeat_seconds: float = 1.0) -> None:
        self._load = load
        self._max_batch = max_batch
        self._heartbeat_seconds = heartbeat_seconds
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, emit: Emit) -> None:
        """Begins to load; may be called once."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._main, args=(emit,), name="unveil-engine", daemon=True)
        self._thread.start()

    def send(self, command: Command) -> None:
        """Never blocks. The request must have been admitted, which bounds the queue."""
        self._inbox.put(command)

    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout_seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _main(self, emit: Emit) -> None:
        try:
            worker = Worker(
                self._load(),
                inbox=self._inbox,
                emit=emit,
                max_batch=self._max_batch,
                heartbeat_seconds=self._heartbeat_seconds,
            )
            worker.run()
        except BaseException as error:  # whatever ends the worker, the requests that wait for it must be answered
            kind = "" if isinstance(error, UnveilError | StepsFailedError) else f"{type(error).__name__}: "
            emit([Died(" ".join(f"{kind}{error}".split()))])
