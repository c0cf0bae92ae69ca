"""The batch loop: takes commands, steps what the scheduler picks, emits events. One thread runs it.

Knows no HTTP and no clock but the one that times a step. Holds every canvas as a plain value. A step that fails is
repeated canvas by canvas (noise is keyed by the canvas, so nothing changes), and only the culprit's request fails.
Where step after step fails for everybody, and for a canvas of the worker's own too, the worker ends. Cancelled requests
are gone before the next step. While models are still being loaded, steps of those that are there and pieces of that
work take turns.
"""

import math
import queue
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from unveil.engine.checks import BadStepError, Failure, check_scores, check_steps, step_all
from unveil.engine.jobs import DecodeJob, Job, Result, ScoreJob
from unveil.engine.messages import (
    BatchRetried,
    Cancel,
    Command,
    Emit,
    Event,
    Failed,
    Generate,
    Heartbeat,
    Loaded,
    Rank,
    Ranked,
    Ready,
    Score,
    Started,
    StepStats,
    Stop,
    Unrevealed,
    Work,
)
from unveil.engine.scheduler import BatchKey, Kind, Scheduler, Slot
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.sampler import StepResult
from unveil.model.decoding.scoring import ScoreResult
from unveil.model.decoding.scoring_chain import Chain
from unveil.model.denoiser import Counts

MAX_FAILED_STEPS = 16  # in a row, without a success in any batch: then the worker tries a canvas of its own, or ends
OneJob = TypeVar("OneJob", DecodeJob, ScoreJob)
_KINDS: Mapping[type[Work], Kind] = {Generate: "generate", Rank: "rank", Score: "score"}


class StepsFailedError(RuntimeError):
    """Too many steps in a row failed for all that they stepped."""


class Runner(Protocol):
    """One model, ready to step."""

    weights_version: str

    def counts(self) -> Counts:
        """What has been computed so far."""
        ...

    def bucket(self, length: int) -> int: ...
    def largest(self, bucket: int, kind: Kind) -> int:
        """How many canvases of this padded length a step of this kind takes."""
        ...

    def links(self, chain: Chain) -> Sequence[int] | None:
        """The order of a chain whose steps are to be taken apart; None for one that is stepped as a whole."""
        ...

    def release(self, canvases: Sequence[Canvas]) -> None:
        """Drops what is kept of these canvases."""
        ...

    def step(self, canvases: Sequence[Canvas]) -> list[StepResult]: ...
    def rank(self, canvas: Canvas) -> list[tuple[int, float]]: ...
    def score(self, chains: Sequence[Chain]) -> list[ScoreResult]: ...


# What loads models piece by piece: each one as it is ready to step, and None after other pieces of the work.
Loading = Iterable[tuple[Loaded, Runner] | None]


class Worker:
    """Runs until `Stop`. What it raises, it raises because it cannot go on."""

    def __init__(
        self,
        loading: Loading,
        *,
        inbox: "queue.SimpleQueue[Command]",
        emit: Emit,
        max_batch: int,
        heartbeat_seconds: float,
    ) -> None:
        self._runners: dict[str, Runner] = {}
        self._early: list[Work] = []  # what has come for models that are not loaded yet
        self._loading: Iterator[tuple[Loaded, Runner] | None] | None = iter(loading)
        self._inbox = inbox
        self._emit = emit
        self._heartbeat_seconds = heartbeat_seconds
        self._scheduler = Scheduler(max_batch=max_batch)
        self._jobs: dict[str, Job] = {}
        self._num_failed_steps = 0  # in a row

    def run(self) -> None:
        """Raises StepsFailedError when MAX_FAILED_STEPS steps in a row have failed."""
        while self._read_inbox():
            self._load_on()
            batch = self._scheduler.next_batch()
            if batch is None:
                continue
            key, slots = batch
            try:
                failure = self._step(key, slots)
            except Exception as error:  # the loop outlives whatever one batch can do to it
                failure = Failure.of(error)
                self._fail({slot.request_id for slot in slots}, failure)
            self._num_failed_steps = 0 if failure is None else self._num_failed_steps + 1
            if failure is not None and self._num_failed_steps == MAX_FAILED_STEPS:
                if self._can_step(key):
                    self._num_failed_steps = 0
                    continue
                raise StepsFailedError(f"{MAX_FAILED_STEPS} steps in a row failed, the last one of {failure.cause}")

    def _load_on(self) -> None:
        """The next piece of what is still to be loaded. What has waited for it is taken in."""
        if self._loading is None:
            return
        try:
            found = next(self._loading)
        except StopIteration:
            self._loading = None
            self._emit([Ready()])
        else:
            if found is None:
                return
            loaded, self._runners[loaded.model] = found
            self._emit([loaded])
        early, self._early = self._early, []
        for work in early:
            self._take(work)

    def _can_step(self, key: BatchKey) -> bool:
        """Whether a canvas that nobody asked for can be stepped: then the requests were to blame, not the model or its
        device, and a client who repeats one that fails cannot end the engine."""
        runner, L, params = self._runners[key.model], key.length, SamplingParams()
        canvas = Canvas.start((0,) * L, (True,) * L, seed=0, params=params)
        kept = [canvas]
        try:
            if key.kind == "rank":
                return all(math.isfinite(p) for _, p in runner.rank(canvas))
            (result,) = results = runner.step([canvas])
            kept.append(result.canvas)
            check_steps([canvas], results)
            if key.kind == "score":  # what was drawn just now has a cost
                after = result.canvas
                chains = [Chain.start(after.tokens, after.hidden, seed=0, params=params)]
                check_scores(chains, runner.score(chains))
        except Exception:
            return False
        finally:
            runner.release(kept)
        return True

    def _read_inbox(self) -> bool:
        """Takes in all commands there are; waits for one, at most a heartbeat, where there is nothing to do."""
        is_idle = self._scheduler.is_idle and self._loading is None
        try:
            command = self._inbox.get(block=is_idle, timeout=self._heartbeat_seconds)
            while not isinstance(command, Stop):
                self._take(command)
                command = self._inbox.get_nowait()
        except queue.Empty:
            if self._scheduler.is_idle and self._loading is None:
                self._emit([Heartbeat()])
            return True
        return False

    def _take(self, command: Work | Cancel) -> None:
        if isinstance(command, Cancel):
            self._forget(command.request_id)
            return
        if command.model not in self._runners and self._loading is not None:
            self._early.append(command)
            return
        try:
            self._admit(command)
        except Exception as error:
            self._forget(command.request_id)
            self._emit([Failed(command.request_id, command.weights_version, Failure.of(error).cause)])

    def _admit(self, command: Work) -> None:
        runner = self._runners[command.model]
        if runner.weights_version != command.weights_version:
            raise ValueError(f"made for weights {command.weights_version}, served are {runner.weights_version}")
        job = ScoreJob(command, runner.links) if isinstance(command, Score) else DecodeJob(command)
        self._jobs[command.request_id] = job
        if job.is_finished:
            self._start([job])
            self._forget(command.request_id)
            self._emit([job.last_event()])
            return
        kind = _KINDS[type(command)]
        keys = {i: self._key(command.model, length, kind) for i, length in job.open_slots().items()}
        self._scheduler.join(command.request_id, keys)

    def _key(self, model: str, length: int, kind: Kind) -> BatchKey:
        bucket = self._runners[model].bucket(length)
        return BatchKey(model, bucket, kind, self._runners[model].largest(bucket, kind))

    def _step(self, key: BatchKey, slots: Sequence[Slot]) -> Failure | None:
        """Gives why the step failed, where it failed for every slot."""
        self._start([self._jobs[slot.request_id] for slot in slots])
        if key.kind == "rank":
            return self._rank(key, slots)
        runner = self._runners[key.model]
        before, begin = runner.counts(), time.perf_counter()
        results, retried = self._run(runner, key.kind, slots)
        seconds = time.perf_counter() - begin
        failures = [(slot, result) for slot, result in zip(slots, results, strict=True) if isinstance(result, Failure)]
        for slot, failure in failures:
            self._fail({slot.request_id}, failure)
        good = [(slot, result) for slot, result in zip(slots, results, strict=True) if not isinstance(result, Failure)]
        events: list[Event] = []
        for slot, result in good:
            try:
                events += self._advance(key, slot, result)
            except Exception as error:
                failures.append((slot, Failure.of(error)))
                self._fail({slot.request_id}, failures[-1][1])
        if retried is not None:
            max_batch = self._scheduler.halve(key) if retried.is_out_of_memory else None
            events.append(BatchRetried(key.model, key.length, len(slots), retried.cause, max_batch))
        num_revealed = sum(len(result.reveals) for _, result in good if isinstance(result, StepResult))
        stats = _stats(runner, before, seconds, len(slots), num_revealed, num_unrevealed=_num_unrevealed(events))
        self._emit([*events, stats])
        return failures[-1][1] if len(failures) == len(slots) else None

    def _run(
        self, runner: Runner, kind: Kind, slots: Sequence[Slot]
    ) -> tuple[Sequence[Result | Failure], Failure | None]:
        """One step over what these slots hold; see `step_all`."""
        if kind == "score":
            chains = [self._job(slot, ScoreJob).chain(slot.index) for slot in slots]
            return step_all(runner.score, chains, check_scores)
        canvases = [self._job(slot, DecodeJob).canvases[slot.index] for slot in slots]
        return step_all(runner.step, canvases, check_steps)

    def _job(self, slot: Slot, kind: type[OneJob]) -> OneJob:
        job = self._jobs[slot.request_id]
        assert isinstance(job, kind)
        return job

    def _start(self, jobs: Sequence[Job]) -> None:
        """Says so before the first step, so that a stream's headers leave when the step begins."""
        events: list[Event] = []
        for job in jobs:
            if not job.has_started:
                events += [Started(*job.ids), *job.already_done()]
            job.has_started = True
        if events:
            self._emit(events)

    def _rank(self, key: BatchKey, slots: Sequence[Slot]) -> Failure | None:
        runner, failures = self._runners[key.model], list[Failure]()
        for slot in slots:
            job = self._job(slot, DecodeJob)
            before, begin = runner.counts(), time.perf_counter()
            try:
                probabilities = tuple(runner.rank(job.canvases[0]))
                if not all(math.isfinite(p) for _, p in probabilities):
                    raise BadStepError("the order's probabilities are not finite")
            except Exception as error:
                failures.append(Failure.of(error))
                self._fail({slot.request_id}, failures[-1])
                continue
            self._forget(slot.request_id)
            stats = _stats(runner, before, time.perf_counter() - begin, 1, 0)
            self._emit([Ranked(*job.ids, probabilities), stats])
        return failures[-1] if len(failures) == len(slots) else None

    def _advance(self, key: BatchKey, slot: Slot, result: Result) -> list[Event]:
        """Records a slot's step; gives its events. The request may have failed through another of its slots."""
        job = self._jobs.get(slot.request_id)
        if job is None:
            after = result.canvas if isinstance(result, StepResult) else result.chain.canvas
            self._runners[key.model].release([after])
            return []
        if isinstance(result, StepResult) and result.canvas.is_unmet:
            self._fail({slot.request_id}, Failure("no attempt met the condition", is_unmet=True))
            return []
        events, is_done = job.advance(slot.index, result)
        if is_done:
            self._scheduler.leave(slot, key)
        if job.is_finished:
            del self._jobs[slot.request_id]
            events.append(job.last_event())
        return events

    def _fail(self, request_ids: set[str], failure: Failure) -> None:
        jobs = [self._jobs[request_id] for request_id in sorted(request_ids) if request_id in self._jobs]
        for request_id in request_ids:
            self._forget(request_id)
        self._emit([Failed(*job.ids, failure.cause, failure.is_unmet) for job in jobs])

    def _forget(self, request_id: str) -> None:
        self._early = [work for work in self._early if work.request_id != request_id]
        self._scheduler.drop(request_id)
        job = self._jobs.pop(request_id, None)
        if job is not None:
            self._runners[job.command.model].release(job.held())


def _num_unrevealed(events: Iterable[Event]) -> int:
    return sum(len(event.positions) for event in events if isinstance(event, Unrevealed))


def _stats(
    runner: Runner,
    before: Counts,
    seconds: float,
    num_canvases: int,
    num_revealed: int,
    *,
    num_unrevealed: int = 0,
) -> StepStats:
    after = runner.counts()
    return StepStats(
        seconds=seconds,
        num_canvases=num_canvases,
        num_positions=after.num_positions - before.num_positions,
        num_useful_positions=after.num_useful - before.num_useful,
        num_revealed=num_revealed,
        num_saved=after.num_saved - before.num_saved,
        num_unrevealed=num_unrevealed,
    )
