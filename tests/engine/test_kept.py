"""What an engine keeps of canvases along their order goes with them: finished, failed, cancelled or left alone."""

import queue
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch

from tests.model.along.networks import canvas, denoiser
from unveil.api import load
from unveil.engine.messages import (
    Cancel,
    Command,
    Event,
    Failed,
    Finished,
    Generate,
    Loaded,
    Rank,
    Revealed,
    Score,
    Scored,
    Stop,
)
from unveil.engine.runner import Runner
from unveil.engine.worker import MAX_FAILED_STEPS, Worker
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.decoding.canvas import Canvas, Reveal, SamplingParams
from unveil.model.decoding.sampler import StepResult, decode
from unveil.model.decoding.scoring_chain import Chain

MOSES = Path(__file__).parents[2] / "checkpoints" / "moses"
WAYS = (
    SamplingParams(),
    SamplingParams(order="confidence"),
    SamplingParams(order="uniform", tokens_per_step=2),
    SamplingParams(order="left_to_right", temperature=0),
)
Told = Callable[[Event], Command | None]


class Falling(Runner):
    """A real runner that fails at canvases of these seeds, after it has stepped those of their batch."""

    def __init__(self, served: AlongDenoiser, *, fails: Callable[[Canvas], bool] = lambda own: False) -> None:
        super().__init__(served, weights_version="v", device=torch.device("cpu"))
        self.fails = fails

    def step(self, canvases: Sequence[Canvas]) -> list[StepResult]:
        if any(map(self.fails, canvases)):
            raise RuntimeError("no")
        return super().step(canvases)


def _run(runner: Runner, commands: Sequence[Command], told: Told, *, max_batch: int = 8, ends: int = 0) -> list[Event]:
    """A worker's events, to the end of as many requests as there are, or `ends`. `told` may answer with a command."""
    inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
    left, found = ends or len(commands), list[Event]()

    def emit(events: Sequence[Event]) -> None:
        nonlocal left
        for event in events:
            found.append(event)
            left -= isinstance(event, Finished | Failed)
            command = told(event)
            if command is not None:
                inbox.put(command)
        if left == 0:
            inbox.put(Stop())

    for command in commands:
        inbox.put(command)
    loaded = Loaded("net", "v", "cpu", True)
    Worker([(loaded, runner)], inbox=inbox, emit=emit, max_batch=max_batch, heartbeat_seconds=1.0).run()
    return found


def _reveals(events: Sequence[Event], request_id: str) -> list[list[Reveal]]:
    """By sample."""
    found: dict[int, list[Reveal]] = {}
    for event in events:
        if isinstance(event, Revealed) and event.request_id == request_id:
            found.setdefault(event.index, []).extend(event.reveals)
    return [found[index] for index in sorted(found)]


def _request(name: str, seed: int, *, num: int = 3, request_id: str = "") -> Generate:
    canvases = [canvas(name, seed=10 * seed + i, num_known=i, params=WAYS[(seed + i) % len(WAYS)]) for i in range(num)]
    return Generate(request_id or str(seed), "net", "v", tuple(canvases))


def _alone(name: str, request: Generate) -> list[list[Reveal]]:
    return [list(next(iter(decode(denoiser(name), [own]))).reveals) for own in request.canvases]


def _nothing(event: Event) -> None:
    del event


@pytest.mark.parametrize("max_rows", [2, 3, 8])
@pytest.mark.parametrize("name", ["relative bias", "contextual", "ends"])
def test_requests_in_turns_are_as_alone_and_leave_nothing(name: str, max_rows: int) -> None:
    served = denoiser(name, max_rows=max_rows)
    requests = [_request(name, seed) for seed in range(4)]
    events = _run(Falling(served), requests, _nothing)
    for request in requests:
        assert _reveals(events, request.request_id) == _alone(name, request)
    assert len(served.rows) == 0


@pytest.mark.parametrize("name", ["relative bias", "contextual", "ends"])
def test_a_cancelled_request_leaves_nothing_and_its_company_is_as_alone(name: str) -> None:
    served = denoiser(name)
    goes, stays = (_request(name, seed, request_id=request_id) for seed, request_id in enumerate(("goes", "stays")))
    seen, kept = 0, list[int]()

    def told(event: Event) -> Command | None:
        nonlocal seen
        if isinstance(event, Revealed) and event.request_id == "goes":
            seen += 1
            kept.append(len(served.rows))
            return Cancel("goes") if seen == 4 else None
        return None

    events = _run(Falling(served), [goes, stays], told, ends=1)
    assert max(kept) > 3, "both had rows"
    assert _reveals(events, "stays") == _alone(name, stays)
    assert not any(isinstance(event, Finished) and event.request_id == "goes" for event in events)
    assert len(served.rows) == 0


@pytest.mark.parametrize("name", ["relative bias", "contextual", "ends"])
def test_a_request_that_fails_leaves_nothing_and_its_company_is_as_alone(name: str) -> None:
    served = denoiser(name)
    bad, good = _request(name, 1, request_id="bad"), _request(name, 2, request_id="good")
    culprit = bad.canvases[1].seed
    events = _run(Falling(served, fails=lambda own: own.seed == culprit and own.step >= 3), [bad, good], _nothing)
    assert any(isinstance(event, Failed) and event.request_id == "bad" for event in events)
    assert _reveals(events, "good") == _alone(name, good)
    assert len(served.rows) == 0


def test_after_steps_that_failed_in_a_row_the_canvas_that_was_tried_leaves_nothing() -> None:
    served = denoiser("relative bias")
    requests = [_request("relative bias", seed, num=1) for seed in range(1, MAX_FAILED_STEPS + 2)]
    runner = Falling(served, fails=lambda own: own.seed > 0)
    events = _run(runner, requests, _nothing, max_batch=1)
    assert sum(isinstance(event, Failed) for event in events) == len(requests)
    assert served.counts.num_positions > 0, "a canvas of the worker's own was stepped"
    assert len(served.rows) == 0


@pytest.mark.parametrize("params", WAYS[:2], ids=["in one forward", "step by step"])
@pytest.mark.parametrize("name", ["relative bias", "contextual", "ends"])
def test_scores_and_ranks_leave_nothing_finished_or_cancelled(name: str, params: SamplingParams) -> None:
    served = denoiser(name)
    ends = [made.canvas for made in decode(denoiser(name), [canvas(name, seed=seed) for seed in range(6)])]
    chains = tuple(Chain.start(own.tokens, own.hidden, seed=own.seed, params=params) for own in ends)

    def told(event: Event) -> Command | None:
        return Cancel("goes") if isinstance(event, Scored) and event.request_id == "goes" else None

    goes, stays = Score("goes", "net", "v", chains[:3]), Score("stays", "net", "v", chains[3:])
    rank = Rank("rank", "net", "v", canvas(name, seed=9, num_known=3))
    events = _run(Falling(served), [goes, stays, rank], told, max_batch=2, ends=1)
    assert any(isinstance(event, Finished) and event.request_id == "stays" for event in events)
    assert len(served.rows) == 0


def _runner_of(model: object) -> AlongDenoiser:
    _, runner = model._engine()  # type: ignore[attr-defined]
    assert isinstance(runner.denoiser, AlongDenoiser)
    return runner.denoiser


def test_a_stream_of_the_library_that_is_closed_midway_leaves_nothing() -> None:
    model = load(MOSES)
    events = model.stream("", num_samples=3, seed=1)
    assert len(list(islice(events, 12))) == 12
    served = _runner_of(model)
    assert len(served.rows) == 3
    events.close()  # type: ignore[attr-defined]
    assert len(served.rows) == 0
    whole = model.generate("", num_samples=3, seed=1)
    assert len(served.rows) == 0
    assert whole["samples"] == load(MOSES).generate("", num_samples=3, seed=1)["samples"]


@pytest.mark.parametrize("order", ["learned", "margin"])
def test_an_answer_of_the_library_that_fails_leaves_nothing(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(MOSES)
    served, calls = _runner_of(model), 0
    original = served.logits

    def fail(states: torch.Tensor, positions: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("no")
        return original(states, positions)  # type: ignore[arg-type]

    monkeypatch.setattr(served, "logits", fail)
    with pytest.raises(RuntimeError, match="no"):
        model.generate("", num_samples=2, seed=1, order=order)
    assert len(served.rows) == 0
    calls = 2
    with pytest.raises(RuntimeError, match="no"):
        model.score("CCO", seed=1, order=order)
    assert len(served.rows) == 0
