"""A step that fails is repeated one by one, and leaves nothing behind."""

import gc
import weakref
from collections.abc import Sequence

from unveil.engine.checks import Failure, step_all


class Activations:
    """What a forward holds while it runs, and what an exception's frames would hold after it."""


def _accept(items: Sequence[int], results: Sequence[int]) -> None:
    pass


def test_when_a_batch_is_repeated_nothing_of_the_failed_forward_is_in_memory() -> None:
    alive: list[weakref.ref[Activations]] = []

    def step(items: Sequence[int]) -> list[int]:
        assert all(reference() is None for reference in alive)
        activations = Activations()
        alive.append(weakref.ref(activations))
        if len(items) > 1 or items[0] == 2:
            raise MemoryError
        return list(items)

    gc.disable()  # a cycle that only the collector finds would hold a device's memory for as long
    try:
        results, retried = step_all(step, [0, 1, 2, 3], _accept)
    finally:
        gc.enable()
    failure = Failure("MemoryError:", is_out_of_memory=True)
    assert results == [0, 1, failure, 3]
    assert retried == failure
    assert len(alive) == 5
