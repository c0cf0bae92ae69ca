"""Batches that failed as a whole and were stepped one by one: all are counted, each cause is logged once."""

import re

from unveil.engine.messages import BatchRetried
from unveil.service.logs import get_logger
from unveil.service.metrics import Metrics

_MAX_CAUSES = 100  # beyond it nothing new is logged
_DIGITS = re.compile(r"\d+")


class RetriedBatches:
    """A batch may fail at every step: a log line for each would be a flood."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._logged: set[str] = set()

    def note(self, event: BatchRetried) -> None:
        self._metrics.batches_retried.inc()
        batch = {"model": event.model, "length": event.length}
        cause = f"{event.model}: {_DIGITS.sub('0', event.cause)}"  # how many bytes were missing, say, is no new cause
        if cause not in self._logged and len(self._logged) < _MAX_CAUSES:
            self._logged.add(cause)
            get_logger().warning("batch_retried", **batch, canvases=event.num_canvases, cause=event.cause)
        if event.max_batch is not None:
            get_logger().warning("batch_halved", **batch, max_batch=event.max_batch)
