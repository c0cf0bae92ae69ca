"""What the server may take after its drain is over, from its own numbers."""

import inspect

from unveil.service import server
from unveil.service.dispatcher import Dispatcher


def end_seconds() -> float:
    """Replies still being written, then the engine's last step."""
    engine_seconds = inspect.signature(Dispatcher.stop).parameters["timeout_seconds"].default
    return float(server._CLOSE_SECONDS + engine_seconds)
