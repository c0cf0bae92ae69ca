"""A step that fails is repeated one by one, and leaves nothing behind; what is taken back had been revealed."""

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace

import pytest

from unveil.engine.checks import BadStepError, Failure, check_steps, step_all
from unveil.model.decoding.attempts.search import advance
from unveil.model.decoding.canvas import Canvas, Reveal, SamplingParams
from unveil.model.decoding.sampler import StepResult


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


def test_a_step_back_is_taken_and_one_that_hides_what_was_known_or_hides_too_much_is_not() -> None:
    first, second, other = (
        Reveal(1, 0, 0, -0.1, None, 0.5),
        Reveal(2, 1, 1, -0.2, None, 0.5),
        Reveal(1, 3, 0, -3, None, 0.5),
    )

    def wrong(tokens: Sequence[int], hidden: Sequence[bool]) -> str | None:
        return "wrong" if tokens[2] == 1 else None

    params = SamplingParams(backtrack=5)
    start = Canvas.start((4, 0, 0, 0), (False, True, True, True), seed=0, params=params)
    before, _ = advance(start, [(first, (other,))], wrong)
    after, reveals = advance(before, [(second, ())], wrong)
    assert [(reveal.position, reveal.token_id) for reveal in reveals] == [(1, 3)]
    check_steps([before], [StepResult(after, reveals)])
    with pytest.raises(BadStepError, match="do not follow"):
        check_steps([before], [StepResult(replace(after, hidden=(True,) * 4), reveals)])
    given = replace(before, ranks=(0,) * 4)
    with pytest.raises(BadStepError, match="had not been revealed"):
        check_steps([given], [StepResult(after, reveals)])
