"""Prepares the process as `unveil serve` does, before any test imports torch, and keeps the servers in it quiet.

Property tests have no deadline: a time limit on an example says something of the machine's load, not of the code.
"""

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from service import environment

environment.prepare()
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def _quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


_quiet()


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A test that configures logging writes to a stream that pytest closes after it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    if root.handlers != handlers:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
        _quiet()
