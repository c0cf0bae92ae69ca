"""Work in a process of its own: what it imports does not stay in the memory of the test's."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


def apart(work: Callable[..., Any], *arguments: Any, **choices: Any) -> Any:
    """What a module's function gives."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments, **choices).result()
