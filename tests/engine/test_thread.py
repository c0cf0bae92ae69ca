"""The engine answers everybody: requests join and leave at every step, fail alone, and are cancelled within one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.service.mocks import (
    VERSION,
    WAIT_SECONDS,
    Gate,
    MockRunner,
    Recorder,
    canvas,
    chain,
    mock_denoiser,
    toy_engine,
)
from unveil.engine.jobs import DecodeJob
from unveil.engine.messages import (
    BatchRetried,
    Cancel,
    Died,
    Event,
    Failed,
    Finished,
    Generate,
    Heartbeat,
    Loaded,
    Rank,
    Ranked,
    Ready,
    Revealed,
    SampleDone,
    Score,
    Started,
    StepStats,
    Stop,
)
from unveil.engine.thread import Engine
from unveil.engine.worker import MAX_FAILED_STEPS
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.sampler import StepResult, step
from unveil.model.errors import ArtifactError

SIZES = (4, 3, 5, 2, 6)


class Lab:
    """An engine with one mock model, and a record of what it says."""

    def __init__(self, runner: MockRunner, *, max_batch: int = 64) -> None:
        self.runner = runner
        self.said = Recorder()
        self.engine = toy_engine({"toy": runner}, max_batch=max_batch)
        self.engine.start(self.said)
        self.said.until(lambda event: isinstance(event, Ready))

    def generate(self, request_id: str, *canvases: Canvas, version: str = VERSION) -> None:
        self.engine.send(Generate(request_id, "toy", version, canvases))

    def until_end(self, request_id: str) -> Event:
        return self.said.until(lambda e: isinstance(e, Finished | Failed | Ranked) and e.request_id == request_id)

    def of(self, request_id: str) -> list[Event]:
        return [event for event in self.said.events if getattr(event, "request_id", None) == request_id]

    def stop(self) -> None:
        self.engine.send(Stop())
        self.engine.join(WAIT_SECONDS)
        assert not self.engine.is_alive()


@pytest.fixture
def runner() -> MockRunner:
    return MockRunner(SIZES)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def lab(runner: MockRunner) -> Iterator[Lab]:
    lab = Lab(runner)
    yield lab
    lab.stop()


@pytest.fixture
def gated(gate: Gate) -> Iterator[Lab]:
    lab = Lab(MockRunner(SIZES, on_step=gate))
    yield lab
    gate.open()
    lab.stop()


def _alone(start: Canvas) -> list[tuple[int, int]]:
    """(position, token) of each reveal of a canvas stepped by nobody but itself."""
    found: list[tuple[int, int]] = []
    while not start.is_complete:
        (result,) = step(mock_denoiser(SIZES), [start])
        found += [(reveal.position, reveal.token_id) for reveal in result.reveals]
        start = result.canvas
    return found


def _revealed(events: Sequence[Event], index: int = 0) -> list[tuple[int, int]]:
    return [
        (reveal.position, reveal.token_id)
        for event in events
        if isinstance(event, Revealed) and event.index == index
        for reveal in event.reveals
    ]


def test_a_request_is_started_revealed_step_by_step_and_finished(lab: Lab) -> None:
    lab.generate("r", canvas(seed=3))
    lab.until_end("r")
    events = lab.of("r")
    assert [type(event) for event in events] == [Started, *[Revealed] * 5, SampleDone, Finished]
    assert _revealed(events) == _alone(canvas(seed=3))
    assert events[-2] == SampleDone("r", VERSION, 0, 5)


def test_every_event_of_a_request_names_the_weights(lab: Lab) -> None:
    lab.generate("r", canvas())
    lab.until_end("r")
    assert {getattr(event, "weights_version", None) for event in lab.of("r")} == {VERSION}


def test_what_is_already_known_finishes_without_a_step(lab: Lab) -> None:
    lab.generate("r", canvas(num_known=5), canvas(num_known=5))
    lab.until_end("r")
    assert lab.of("r") == [
        Started("r", VERSION),
        SampleDone("r", VERSION, 0, 0),
        SampleDone("r", VERSION, 1, 0),
        Finished("r", VERSION),
    ]
    assert lab.runner.batches == []


def test_known_and_unknown_canvases_of_one_request_are_all_done_once(lab: Lab) -> None:
    lab.generate("r", canvas(num_known=5), canvas(num_known=3), canvas())
    lab.until_end("r")
    done = [event for event in lab.of("r") if isinstance(event, SampleDone)]
    assert done == [SampleDone("r", VERSION, i, n) for i, n in ((0, 0), (1, 2), (2, 5))]


def test_a_request_joins_the_running_batch_at_the_next_step_and_leaves_it_when_done(gated: Lab, gate: Gate) -> None:
    gated.generate("first", canvas(seed=1))
    assert len(gate.wait()) == 1
    gated.generate("second", canvas(seed=2, num_known=4))
    gate.allow()
    assert [c.seed for c in gate.wait()] == [1, 2]
    gate.allow()
    assert [c.seed for c in gate.wait()] == [1]
    gate.open()
    gated.until_end("first")
    assert _revealed(gated.of("first")) == _alone(canvas(seed=1))
    assert _revealed(gated.of("second")) == _alone(canvas(seed=2, num_known=4))


def test_started_is_said_when_the_first_step_begins_not_when_it_ends(gated: Lab, gate: Gate) -> None:
    gated.generate("r", canvas())
    gated.said.until(lambda event: event == Started("r", VERSION))
    gate.wait()
    assert not any(isinstance(event, Revealed) for event in gated.said.events)


def test_a_cancelled_request_is_gone_within_one_step_and_nothing_more_is_said_of_it(gated: Lab, gate: Gate) -> None:
    gated.generate("stays", canvas(seed=1))
    gate.wait()
    gated.generate("goes", canvas(seed=2))
    gate.allow()
    assert [c.seed for c in gate.wait()] == [1, 2]
    gated.engine.send(Cancel("goes"))
    gate.allow()
    assert [c.seed for c in gate.wait()] == [1]
    gate.open()
    gated.until_end("stays")
    assert not any(isinstance(event, Finished | Failed) for event in gated.of("goes"))


def test_identical_requests_are_answered_alike_and_each_for_itself(gated: Lab, gate: Gate) -> None:
    for request_id in ("first", "second", "goes"):
        gated.generate(request_id, canvas(seed=1))
    gate.wait()
    gated.engine.send(Cancel("goes"))
    gate.open()
    gated.until_end("first")
    gated.until_end("second")
    assert _revealed(gated.of("first")) == _revealed(gated.of("second")) == _alone(canvas(seed=1))
    assert not any(isinstance(event, Finished) for event in gated.of("goes"))


def test_cancelling_what_is_not_there_does_nothing(lab: Lab) -> None:
    lab.engine.send(Cancel("nobody"))
    lab.generate("r", canvas())
    assert isinstance(lab.until_end("r"), Finished)


def test_a_canvas_that_breaks_its_batch_fails_its_own_request_only_and_changes_nothing_for_the_others() -> None:
    gate = Gate()

    def refuse(canvases: Sequence[Canvas]) -> None:
        gate(canvases)
        if any(c.seed == 13 and c.step == 2 for c in canvases):
            raise RuntimeError("not\nthirteen")

    lab = Lab(MockRunner(SIZES, on_step=refuse))
    lab.generate("a", canvas(seed=1), canvas(seed=2))
    gate.wait()
    lab.generate("bad", canvas(seed=5), canvas(seed=13))
    lab.generate("c", canvas(seed=3))
    gate.open()
    assert lab.until_end("bad") == Failed("bad", VERSION, "RuntimeError: not thirteen")
    lab.until_end("c")
    for request_id, index, seed in (("a", 0, 1), ("a", 1, 2), ("c", 0, 3)):
        assert _revealed(lab.of(request_id), index) == _alone(canvas(seed=seed))
        assert lab.of(request_id)[-1] == Finished(request_id, VERSION)
    lab.generate("later", canvas(seed=13, num_known=4))
    assert isinstance(lab.until_end("later"), Finished)
    lab.stop()


def _twice(results: list[StepResult]) -> list[StepResult]:
    return [*results, results[-1]]


def _none(results: list[Any]) -> list[Any]:
    return []


def _still(results: list[StepResult]) -> list[StepResult]:
    return [StepResult(result.canvas, ()) for result in results]


def _nan(results: list[StepResult]) -> list[StepResult]:
    return [StepResult(c, tuple(replace(r, logprob=float("nan")) for r in reveals)) for c, reveals in results]


def _infinite_order(results: list[StepResult]) -> list[StepResult]:
    return [StepResult(c, tuple(replace(r, order_logprob=-float("inf")) for r in reveals)) for c, reveals in results]


def _another_length(results: list[StepResult]) -> list[StepResult]:
    return [StepResult(replace(c, tokens=(*c.tokens, 0)), reveals) for c, reveals in results]


def _known_changes(results: list[StepResult]) -> list[StepResult]:
    return [StepResult(replace(c, hidden=(False,) * 5), reveals) for c, reveals in results]


@pytest.mark.parametrize("spoil", [_twice, _none, _still, _nan, _infinite_order, _another_length, _known_changes])
def test_an_answer_that_is_no_step_forward_fails_the_request_and_the_engine_goes_on(lab: Lab, spoil: object) -> None:
    lab.runner.spoil = spoil  # type: ignore[assignment]
    lab.generate("r", canvas())
    assert isinstance(lab.until_end("r"), Failed)
    lab.runner.spoil = lambda results: results
    lab.generate("next", canvas())
    assert isinstance(lab.until_end("next"), Finished)


def test_a_request_for_other_weights_or_an_unknown_model_is_failed_not_served(lab: Lab) -> None:
    lab.generate("old", canvas(), version="0" * 64)
    assert isinstance(lab.until_end("old"), Failed)
    lab.engine.send(Generate("lost", "nobody", VERSION, (canvas(),)))
    assert isinstance(lab.until_end("lost"), Failed)


def test_a_batch_is_never_larger_than_allowed_and_everybody_is_served() -> None:
    lab = Lab(MockRunner(SIZES), max_batch=3)
    lab.generate("r", *(canvas(seed=seed) for seed in range(8)))
    lab.until_end("r")
    assert max(map(len, lab.runner.batches)) == 3
    assert [_revealed(lab.of("r"), seed) for seed in range(8)] == [_alone(canvas(seed=seed)) for seed in range(8)]
    lab.stop()


def test_canvases_of_different_lengths_do_not_step_together() -> None:
    lab = Lab(MockRunner((9,)))
    lab.generate("r", canvas(3), canvas(5), canvas(3))
    lab.until_end("r")
    assert all(len({c.length for c in batch}) == 1 for batch in lab.runner.batches)
    lab.stop()


def test_ranking_gives_the_probability_of_each_hidden_position(lab: Lab) -> None:
    lab.engine.send(Rank("o", "toy", VERSION, canvas(num_known=2)))
    ranked = lab.until_end("o")
    assert isinstance(ranked, Ranked)
    assert [position for position, _ in ranked.probabilities] == [2, 3, 4]
    assert sum(p for _, p in ranked.probabilities) == pytest.approx(1)
    lab.engine.send(Rank("known", "toy", VERSION, canvas(num_known=5)))
    assert lab.until_end("known") == Ranked("known", VERSION, ())


def test_a_ranking_that_raises_fails_alone(lab: Lab) -> None:
    def refuse(canvases: Sequence[Canvas]) -> None:
        if canvases[0].seed == 13:
            raise ValueError("unlucky")

    lab.runner.on_step = refuse
    lab.engine.send(Rank("bad", "toy", VERSION, canvas(seed=13)))
    lab.engine.send(Rank("good", "toy", VERSION, canvas(seed=1)))
    assert isinstance(lab.until_end("bad"), Failed)
    assert isinstance(lab.until_end("good"), Ranked)


def test_a_step_is_counted_with_what_it_computed_and_revealed(lab: Lab) -> None:
    params = SamplingParams(tokens_per_step=2)
    lab.generate("r", canvas(seed=1, params=params), canvas(seed=2, params=params))
    lab.until_end("r")
    lab.said.until(lambda event: isinstance(event, StepStats) and event.num_revealed == 2)
    steps = [event for event in lab.said.events if isinstance(event, StepStats)]
    assert [s.num_revealed for s in steps] == [4, 4, 2]
    assert all(s.num_canvases == 2 for s in steps)
    alike_at_first = [5, 10, 10]
    assert [s.num_positions for s in steps] == [s.num_useful_positions for s in steps] == alike_at_first
    assert all(s.seconds > 0 for s in steps)


def test_an_idle_worker_gives_signs_of_life() -> None:
    said, engine = Recorder(), toy_engine({"toy": MockRunner(SIZES)}, heartbeat_seconds=0)
    engine.start(said)
    for _ in range(3):
        said.until(lambda event: isinstance(event, Heartbeat))
    engine.send(Stop())
    engine.join(WAIT_SECONDS)
    assert not engine.is_alive()


def test_a_worker_that_cannot_go_on_says_so_with_its_last_breath(lab: Lab) -> None:
    def die(canvases: Sequence[Canvas]) -> None:
        raise SystemExit("out of memory")

    lab.runner.on_step = die
    lab.generate("r", canvas())
    assert lab.said.until(lambda event: isinstance(event, Died)) == Died("SystemExit: out of memory")
    lab.engine.join(WAIT_SECONDS)
    assert not lab.engine.is_alive()


def _torch_error() -> Exception:
    """What torch raises where the host has no memory left."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    return caught.value


OUT_OF_MEMORY = (
    MemoryError(),
    _torch_error(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:30])
def test_where_memory_runs_out_batches_of_that_length_are_halved_until_they_fit(error: Exception) -> None:
    def on_step(canvases: Sequence[Canvas]) -> None:
        if len(canvases) > 3 and canvases[0].length == 5:
            raise error

    lab = Lab(MockRunner(SIZES, on_step=on_step), max_batch=16)
    lab.generate("r", *(canvas(seed=seed) for seed in range(16)))
    lab.until_end("r")
    assert [_revealed(lab.of("r"), seed) for seed in range(16)] == [_alone(canvas(seed=seed)) for seed in range(16)]
    retried = [event for event in lab.said.events if isinstance(event, BatchRetried)]
    assert [(event.num_canvases, event.max_batch) for event in retried] == [(16, 8), (8, 4), (4, 2)]
    assert {(event.model, event.length) for event in retried} == {("toy", 5)}
    assert all(type(error).__name__ in event.cause for event in retried)
    num_batches = len(lab.runner.batches)
    lab.generate("same length", *(canvas(seed=seed) for seed in range(16)))
    lab.until_end("same length")
    assert {len(batch) for batch in lab.runner.batches[num_batches:]} == {2}
    num_batches = len(lab.runner.batches)
    lab.generate("another", *(canvas(3, seed=seed) for seed in range(16)))
    lab.until_end("another")
    assert {len(batch) for batch in lab.runner.batches[num_batches:]} == {16}
    lab.stop()


def test_a_batch_that_failed_of_something_else_is_told_and_stays_as_large(lab: Lab) -> None:
    def on_step(canvases: Sequence[Canvas]) -> None:
        if len(canvases) > 1 and canvases[0].step < 2:
            raise RuntimeError("no\nkernel")

    lab.runner.on_step = on_step
    lab.generate("r", canvas(seed=1), canvas(seed=2))
    assert isinstance(lab.until_end("r"), Finished)
    retried = [event for event in lab.said.events if isinstance(event, BatchRetried)]
    assert retried == [BatchRetried("toy", 5, 2, "RuntimeError: no kernel", None)] * 2
    assert [len(batch) for batch in lab.runner.batches] == [2, 1, 1, 2, 1, 1, 2, 2, 2]


def test_a_single_canvas_that_fails_is_not_tried_again(lab: Lab) -> None:
    lab.runner.on_step = _raise(MemoryError())
    lab.generate("r", canvas())
    assert isinstance(lab.until_end("r"), Failed)
    lab.said.until(lambda event: isinstance(event, StepStats))
    assert len(lab.runner.batches) == 1
    assert not any(isinstance(event, BatchRetried) for event in lab.said.events)


def test_a_step_that_cannot_be_recorded_fails_its_own_request_only(
    gated: Lab, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = DecodeJob.advance

    def refuse(job: DecodeJob, index: int, result: Any) -> Any:
        if job.command.request_id == "bad":
            raise KeyError("no such slot")
        return advance(job, index, result)

    monkeypatch.setattr(DecodeJob, "advance", refuse)
    gated.generate("a", canvas(seed=1))
    gate.wait()
    gated.generate("bad", canvas(seed=2), canvas(seed=3))
    gated.generate("b", canvas(seed=4))
    gate.open()
    assert gated.until_end("bad") == Failed("bad", VERSION, "KeyError: 'no such slot'")
    assert isinstance(gated.until_end("b"), Finished)
    assert _revealed(gated.of("a")) == _alone(canvas(seed=1))
    assert _revealed(gated.of("b")) == _alone(canvas(seed=4))


def _raise(error: Exception) -> Callable[[Sequence[Canvas]], None]:
    def on_step(canvases: Sequence[Canvas]) -> None:
        raise error

    return on_step


ERRORS = (RuntimeError("CUDA error"), MemoryError(), StopIteration(), AssertionError())
BROKEN: list[tuple[str, dict[str, Any]]] = [
    *((kind, {"on_step": _raise(error)}) for kind in ("generate", "score", "rank") for error in ERRORS),
    *(("generate", {"spoil": spoil}) for spoil in (_none, _nan)),
    ("score", {"spoil_scores": _none}),
]


def _work(request_id: str, kind: str, *, seed: int = 0) -> Generate | Rank | Score:
    if kind == "generate":
        return Generate(request_id, "toy", VERSION, (canvas(seed=seed),))
    if kind == "rank":
        return Rank(request_id, "toy", VERSION, canvas(seed=seed))
    return Score(request_id, "toy", VERSION, (chain(seed=seed),))


@pytest.mark.parametrize(("kind", "broken"), BROKEN)
def test_a_runner_that_fails_at_every_step_ends_the_engine(kind: str, broken: dict[str, Any]) -> None:
    lab = Lab(MockRunner(SIZES, **broken))
    for number in range(MAX_FAILED_STEPS):
        assert lab.engine.is_alive()
        lab.engine.send(_work(str(number), kind))
        assert isinstance(lab.until_end(str(number)), Failed)
    died = lab.said.until(lambda event: isinstance(event, Died))
    assert isinstance(died, Died)
    assert died.message.startswith("16 steps in a row failed, the last one of ")
    lab.engine.join(WAIT_SECONDS)
    assert not lab.engine.is_alive()


@pytest.mark.parametrize("kind", ["generate", "score", "rank"])
def test_one_success_in_between_keeps_the_engine_alive(lab: Lab, kind: str) -> None:
    for error in (RuntimeError("CUDA error"), None) * 2:
        lab.runner.on_step = _raise(error) if error else lambda canvases: None
        for number in range(MAX_FAILED_STEPS - 1 if error else 1):
            lab.engine.send(_work(f"{error} {number}", kind))
            assert isinstance(lab.until_end(f"{error} {number}"), Failed) == (error is not None)


def test_bad_requests_in_every_batch_of_a_good_one_do_not_end_the_engine(gate: Gate) -> None:
    def refuse(canvases: Sequence[Canvas]) -> None:
        gate(canvases)
        if any(c.seed == 13 for c in canvases):
            raise RuntimeError("thirteen")

    lab, num_bad = Lab(MockRunner((2,) * 40, on_step=refuse), max_batch=2), 2 * MAX_FAILED_STEPS
    lab.generate("good", canvas(40, seed=1))
    gate.wait()
    for number in range(num_bad):
        lab.generate(str(number), canvas(40, seed=13))
    gate.open()
    assert all(isinstance(lab.until_end(str(number)), Failed) for number in range(num_bad))
    assert isinstance(lab.until_end("good"), Finished)
    lab.stop()


@pytest.mark.parametrize("kind", ["generate", "score", "rank"])
def test_a_client_who_repeats_a_request_that_fails_does_not_end_the_engine(lab: Lab, kind: str) -> None:
    def refuse(canvases: Sequence[Canvas]) -> None:
        if any(c.seed == 13 for c in canvases):
            raise RuntimeError("thirteen")

    lab.runner.on_step = refuse
    for number in range(2 * MAX_FAILED_STEPS + 1):
        lab.engine.send(_work(f"bad {number}", kind, seed=13))
        assert isinstance(lab.until_end(f"bad {number}"), Failed)
    lab.engine.send(_work("good", kind, seed=1))
    assert not isinstance(lab.until_end("good"), Failed)


def test_a_model_is_stepped_between_two_pieces_of_loading_another(runner: MockRunner) -> None:
    said = Recorder()

    def load() -> Iterator[tuple[Loaded, MockRunner] | None]:
        yield Loaded("toy", VERSION, "cpu", True), runner
        engine.send(Generate("early", "toy", VERSION, (canvas(),)))
        for _ in range(4):
            yield None
        raise ArtifactError("runs/other: truncated")

    engine = Engine(load, max_batch=1)
    engine.start(said)
    said.until(lambda event: isinstance(event, Died))
    reveals = [event for event in said.events if isinstance(event, Revealed)]
    assert len(reveals) == 3, "one step after each piece but the first, in which it was sent"
    assert said.events[-1] == Died("runs/other: truncated")
    assert not any(isinstance(event, Heartbeat | Ready) for event in said.events)


def test_what_comes_before_its_model_waits_for_it_unless_it_is_cancelled(runner: MockRunner) -> None:
    said = Recorder()

    def load() -> Iterator[tuple[Loaded, MockRunner] | None]:
        for name in ("kept", "dropped"):
            engine.send(Generate(name, "toy", VERSION, (canvas(),)))
        engine.send(Generate("unknown", "other", VERSION, (canvas(),)))
        yield None
        engine.send(Cancel("dropped"))
        yield None
        yield Loaded("toy", VERSION, "cpu", True), runner

    engine = Engine(load, max_batch=1)
    engine.start(said)
    said.until(lambda event: isinstance(event, Failed))  # it is told so when all are loaded
    said.until(lambda event: isinstance(event, Finished))
    engine.send(Stop())
    engine.join(WAIT_SECONDS)
    ended = {event.request_id for event in said.events if isinstance(event, Finished)}
    assert ended == {"kept"}
    assert [event.request_id for event in said.events if isinstance(event, Failed)] == ["unknown"]
    kinds = [type(event) for event in said.events]
    assert kinds.index(Loaded) < kinds.index(Ready) < kinds.index(Failed)


def test_a_stop_ends_the_loading(runner: MockRunner) -> None:
    def load() -> Iterator[tuple[Loaded, MockRunner] | None]:
        engine.send(Stop())
        while True:
            yield None

    engine = Engine(load, max_batch=1)
    engine.start(Recorder())
    engine.join(WAIT_SECONDS)
    assert not engine.is_alive()


def test_an_artifact_that_cannot_be_loaded_ends_the_engine_in_one_plain_line() -> None:
    def load() -> Iterable[tuple[Loaded, MockRunner]]:
        raise ArtifactError("runs/x: truncated\n or altered")

    said = Recorder()
    Engine(load, max_batch=1).start(said)
    assert said.until(lambda event: True) == Died("runs/x: truncated or altered")
