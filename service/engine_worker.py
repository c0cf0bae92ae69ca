"""The batch loop: takes commands, steps whatever the scheduler picks, says what happened. One thread runs it.

Knows no HTTP and no clock but the one that times a step; holds every canvas in its hands as a plain value. A step that
fails is repeated canvas by canvas (noise is keyed by the canvas, so nothing changes), and only the culprit's request
fails. Cancelled requests are gone before the next step.
"""

import math
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from model.canvas import Canvas
from model.sampler import StepResult
from service.messages import (
    Beat,
    Cancel,
    Command,
    Event,
    Failed,
    Finished,
    Generate,
    Rank,
    Ranked,
    Revealed,
    SampleDone,
    Started,
    Stepped,
    Stop,
)
from service.scheduler import Kind, Lane, Scheduler, Seat

Emit = Callable[[Sequence[Event]], None]


class Runner(Protocol):
    """One model, ready to step. `num_positions` grows by what its forward passes compute, padding included."""

    weights_version: str

    @property
    def num_positions(self) -> int: ...
    def bucket(self, length: int) -> int: ...
    def step(self, canvases: Sequence[Canvas]) -> list[StepResult]: ...
    def rank(self, canvas: Canvas) -> list[tuple[int, float]]: ...


@dataclass(slots=True)
class _Job:
    """A request in the worker's hands. `canvases` are its latest states."""

    command: Generate | Rank
    canvases: list[Canvas]
    num_unfinished: int
    has_started: bool = False

    @property
    def ids(self) -> tuple[str, str]:
        return self.command.request_id, self.command.weights_version


class BadStepError(RuntimeError):
    """A runner's answer that is not a step forward of the canvas it was given."""


class Worker:
    """Runs until `Stop`. What it raises, it raises because it cannot go on."""

    def __init__(
        self,
        runners: Mapping[str, Runner],
        *,
        inbox: "queue.SimpleQueue[Command]",
        emit: Emit,
        max_batch: int,
        beat_seconds: float,
    ) -> None:
        self._runners = runners
        self._inbox = inbox
        self._emit = emit
        self._beat_seconds = beat_seconds
        self._scheduler = Scheduler(max_batch=max_batch)
        self._jobs: dict[str, _Job] = {}

    def run(self) -> None:
        while self._read_inbox():
            batch = self._scheduler.next_batch()
            if batch is None:
                continue
            lane, seats = batch
            try:
                self._step(lane, seats)
            except Exception as error:  # the loop outlives whatever one batch can do to it
                self._fail({seat.request_id for seat in seats}, error)

    def _read_inbox(self) -> bool:
        """Takes in all commands there are; waits for one, at most a beat, where there is nothing to do."""
        try:
            command = self._inbox.get(block=self._scheduler.is_idle, timeout=self._beat_seconds)
            while not isinstance(command, Stop):
                self._take(command)
                command = self._inbox.get_nowait()
        except queue.Empty:
            if self._scheduler.is_idle:
                self._emit([Beat()])
            return True
        return False

    def _take(self, command: Generate | Rank | Cancel) -> None:
        if isinstance(command, Cancel):
            self._forget(command.request_id)
            return
        try:
            self._admit(command)
        except Exception as error:
            self._forget(command.request_id)
            self._emit([Failed(command.request_id, command.weights_version, _one_line(error))])

    def _admit(self, command: Generate | Rank) -> None:
        runner = self._runners[command.model]
        if runner.weights_version != command.weights_version:
            raise ValueError(f"made for weights {command.weights_version}, served are {runner.weights_version}")
        canvases = list(command.canvases) if isinstance(command, Generate) else [command.canvas]
        open_seats = [i for i, canvas in enumerate(canvases) if not canvas.is_complete]
        job = _Job(command, canvases, num_unfinished=len(open_seats))
        self._jobs[command.request_id] = job
        if not open_seats:
            self._start([job])
            self._finish(job)
            return
        kind: Kind = "generate" if isinstance(command, Generate) else "rank"
        lanes = {i: Lane(command.model, runner.bucket(canvases[i].length), kind) for i in open_seats}
        self._scheduler.join(command.request_id, lanes)

    def _step(self, lane: Lane, seats: Sequence[Seat]) -> None:
        self._start([self._jobs[seat.request_id] for seat in seats])
        canvases = [self._jobs[seat.request_id].canvases[seat.index] for seat in seats]
        if lane.kind == "rank":
            self._rank(lane, seats)
            return
        runner = self._runners[lane.model]
        before, begin = runner.num_positions, time.perf_counter()
        results = _step_all(runner, canvases)
        seconds = time.perf_counter() - begin
        good = [(s, r) for s, r in zip(seats, results, strict=True) if isinstance(r, StepResult)]
        for seat, result in zip(seats, results, strict=True):
            if isinstance(result, Exception):
                self._fail({seat.request_id}, result)
        events = [event for seat, result in good for event in self._advance(lane, seat, result)]
        stepped = Stepped(
            seconds=seconds,
            num_canvases=len(canvases),
            num_positions=runner.num_positions - before,
            num_useful_positions=sum(canvas.length for canvas in canvases),
            num_revealed=sum(len(result.reveals) for _, result in good),
        )
        self._emit([*events, stepped])

    def _start(self, jobs: Sequence[_Job]) -> None:
        """Says so before the first step, so that a stream's headers leave when the step begins."""
        events: list[Event] = []
        for job in jobs:
            if not job.has_started:
                events.append(Started(*job.ids))
            if not job.has_started and isinstance(job.command, Generate):
                events += [SampleDone(*job.ids, i, 0) for i, canvas in enumerate(job.canvases) if canvas.is_complete]
            job.has_started = True
        if events:
            self._emit(events)

    def _rank(self, lane: Lane, seats: Sequence[Seat]) -> None:
        for seat in seats:
            job = self._jobs[seat.request_id]
            try:
                probabilities = tuple(self._runners[lane.model].rank(job.canvases[0]))
                if not all(math.isfinite(p) for _, p in probabilities):
                    raise BadStepError("the order's probabilities are not finite")
            except Exception as error:
                self._fail({seat.request_id}, error)
                continue
            self._forget(seat.request_id)
            self._emit([Ranked(*job.ids, probabilities)])

    def _advance(self, lane: Lane, seat: Seat, result: StepResult) -> list[Event]:
        """Puts a canvas's step on the books; the request may have failed through another of its canvases."""
        job = self._jobs.get(seat.request_id)
        if job is None:
            return []
        job.canvases[seat.index] = result.canvas
        events: list[Event] = [Revealed(*job.ids, seat.index, result.reveals)]
        if result.canvas.is_complete:
            self._scheduler.leave(seat, lane)
            job.num_unfinished -= 1
            events.append(SampleDone(*job.ids, seat.index, result.canvas.num_forwards))
            if job.num_unfinished == 0:
                del self._jobs[seat.request_id]
                events.append(Finished(*job.ids))
        return events

    def _finish(self, job: _Job) -> None:
        """Answers a request that had nothing to do."""
        self._forget(job.command.request_id)
        self._emit([Finished(*job.ids) if isinstance(job.command, Generate) else Ranked(*job.ids, ())])

    def _fail(self, request_ids: set[str], error: Exception) -> None:
        jobs = [self._jobs[request_id] for request_id in sorted(request_ids) if request_id in self._jobs]
        for job in jobs:
            self._forget(job.command.request_id)
        self._emit([Failed(*job.ids, _one_line(error)) for job in jobs])

    def _forget(self, request_id: str) -> None:
        self._scheduler.drop(request_id)
        self._jobs.pop(request_id, None)


def _step_all(runner: Runner, canvases: Sequence[Canvas]) -> list[StepResult | Exception]:
    """Steps all together, and one by one where that fails, so that a failing canvas fails alone."""
    try:
        return list(_checked_step(runner, canvases))
    except Exception as error:
        if len(canvases) == 1:
            return [error]
        return [_step_all(runner, [canvas])[0] for canvas in canvases]


def _checked_step(runner: Runner, canvases: Sequence[Canvas]) -> list[StepResult]:
    results = runner.step(canvases)
    if len(results) != len(canvases):
        raise BadStepError(f"{len(results)} results for {len(canvases)} canvases")
    for canvas, result in zip(canvases, results, strict=True):
        _check(canvas, result)
    return results


def _check(before: Canvas, result: StepResult) -> None:
    """Raises BadStepError unless exactly the revealed positions, at least one, became known."""
    after, positions = result.canvas, {reveal.position for reveal in result.reveals}
    if not positions or len(positions) != len(result.reveals) or after.length != before.length:
        raise BadStepError("a step that reveals nothing, or a position twice, or changes the length")
    if any(h != (b and i not in positions) for i, (b, h) in enumerate(zip(before.hidden, after.hidden, strict=True))):
        raise BadStepError("hidden positions do not follow from the reveals")
    if any(not before.hidden[i] for i in positions):
        raise BadStepError("a known position was revealed again")
    for reveal in result.reveals:
        if not math.isfinite(reveal.logprob) or not math.isfinite(reveal.order_logprob or 0.0):
            raise BadStepError(f"the log-probability of position {reveal.position} is not finite")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
