"""Steps a batch, checks that each answer is a step forward of what was given, and says what failed."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from unveil.model.decoding.attempts.search import unrevealed
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.sampler import StepResult
from unveil.model.decoding.scoring import ScoreResult
from unveil.model.decoding.scoring_chain import Chain

Item = TypeVar("Item")
Result = TypeVar("Result")


_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)


class BadStepError(RuntimeError):
    """A runner's answer that is not a step forward of the canvas it was given."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step failed, on one line. Holds no exception: its frames would keep the step's tensors in memory."""

    cause: str
    is_out_of_memory: bool = False
    is_unmet: bool = False  # no fault: no attempt met the request's condition

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        is_known = isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None  # as torch says it
        return cls(cause, isinstance(error, MemoryError) or is_known)


def step_all(
    step: Callable[[Sequence[Item]], list[Result]],
    items: Sequence[Item],
    check: Callable[[Sequence[Item], Sequence[Result]], None],
) -> tuple[list[Result | Failure], Failure | None]:
    """Steps all together, and one by one where that fails or fails its check, so that what fails fails alone.

    Also gives why they were stepped one by one; None where they were not.
    """
    try:
        results = step(items)
        check(items, results)
        return list(results), None
    except Exception as error:
        failure = Failure.of(error)
    if len(items) == 1:
        return [failure], None
    return [step_all(step, [item], check)[0][0] for item in items], failure


def check_steps(canvases: Sequence[Canvas], results: Sequence[StepResult]) -> None:
    """Raises BadStepError unless exactly the revealed positions, at least one a canvas, became known."""
    _check_length(canvases, results)
    for canvas, result in zip(canvases, results, strict=True):
        _check_step(canvas, result)


def check_scores(chains: Sequence[Chain], results: Sequence[ScoreResult]) -> None:
    """Raises BadStepError unless each chain went on by exactly the positions that were scored, at least one."""
    _check_length(chains, results)
    for chain, (after, terms) in zip(chains, results, strict=True):
        positions, paid = [term.position for term in terms], [term for term in terms if not term.is_absorbed]
        if not all(0 <= i < len(chain.pending) and chain.pending[i] for i in positions):
            raise BadStepError("a position was scored that was not to be scored")
        is_next = [term.step - chain.canvas.step for term in paid] == list(range(len(paid))) and len(paid) > 0
        expected = chain.after([term.position for term in paid], [term.position for term in terms if term.is_absorbed])
        if not is_next or len(set(positions)) < len(terms) or after != expected:
            raise BadStepError("the chain does not follow from the positions that were scored")
        for term in terms:
            if not math.isfinite(term.nats):
                raise BadStepError(f"the cost of position {term.position} is not finite")


def _check_length(given: Sequence[object], results: Sequence[object]) -> None:
    if len(results) != len(given):
        raise BadStepError(f"{len(results)} results for {len(given)} canvases")


def _check_step(before: Canvas, result: StepResult) -> None:
    after, hidden = result.canvas, list(before.hidden)
    if after.length != before.length:
        raise BadStepError("a step that changes the length")
    if before.trials is not None and not before.trials.is_over:
        is_taken = after.trials is not None and after.trials.is_over and not after.trials.is_unmet
        if after.trials is None or bool(result.reveals) != is_taken:
            raise BadStepError("an attempt revealed something before it was taken, or nothing after")
        if not is_taken:
            return
        hidden = [rank != 0 for rank in before.ranks]
    elif not result.reveals:
        raise BadStepError("a step that reveals nothing")
    for position in unrevealed(before, after):
        if hidden[position] or before.ranks[position] == 0:
            raise BadStepError("a position was taken back that had not been revealed")
        hidden[position] = True
    for reveal in result.reveals:
        if not hidden[reveal.position]:
            raise BadStepError("a known position was revealed again, or a position twice")
        if not (math.isfinite(reveal.logprob) and math.isfinite(reveal.order_logprob or 0.0)):
            raise BadStepError(f"the log-probability of position {reveal.position} is not finite")
        hidden[reveal.position] = False
    if tuple(hidden) != after.hidden:
        raise BadStepError("hidden positions do not follow from the reveals")
