"""Prepares the process as `unveil serve` does, before any test imports torch, and keeps the servers in it quiet.

Property tests have no deadline, nor does drawing their examples: time says something of the machine's load, not of the
code. No module's tests may take this process over the limit of `tests/memory.py`.
"""

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.memory import watched
from unveil.engine import environment

environment.prepare()
settings.register_profile("no deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no deadline")


def _quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


_quiet()


@pytest.fixture(scope="module", autouse=True)
def _memory(request: pytest.FixtureRequest) -> Iterator[None]:
    yield from watched(request.node.nodeid)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Whatever draws without a generator of its own draws the same behind any other tests, in any worker."""
    import torch

    torch.manual_seed(0)


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
