"""The dispatcher hands out each event on its own, answers all who wait, and tells each cause once."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar

import pytest
import structlog
from structlog.testing import capture_logs

from tests.service.mocks import VERSION, WAIT_SECONDS, canvas
from unveil.engine.messages import (
    BatchRetried,
    Cancel,
    Command,
    Died,
    Emit,
    Event,
    Failed,
    Finished,
    Generate,
    Loaded,
    Ranked,
    Ready,
    RequestEvent,
    Revealed,
    SampleDone,
    Scored,
    Started,
    StepStats,
)
from unveil.engine.request.errors import ServiceError
from unveil.model.decoding.canvas import Reveal
from unveil.model.decoding.scoring_chain import Term
from unveil.service import dispatcher as dispatcher_module
from unveil.service.dispatcher import Dispatcher, EngineDiedError
from unveil.service.metrics import Metrics
from unveil.service.pending import PendingRequest

Result = TypeVar("Result")
REVEALS = (Reveal(0, 0, 0, 0.0, None, 0.5),)


class Puppet:
    """An engine whose events are the test's."""

    def __init__(self) -> None:
        self.sent: list[Command] = []

    def start(self, emit: Emit) -> None:
        self._emit = emit
        emit([Loaded("toy", VERSION, "cpu", True), Ready()])

    def send(self, command: Command) -> None:
        self.sent.append(command)

    def is_alive(self) -> bool:
        return True

    def join(self, timeout_seconds: float) -> None:
        pass

    async def say(self, *events: Event) -> None:
        """Has been delivered when it returns."""
        self._emit(events)
        await asyncio.sleep(0)


class Desk:
    """A dispatcher with its engine and metrics."""

    def __init__(self) -> None:
        self.engine, self.metrics = Puppet(), Metrics()
        self.dispatcher = Dispatcher(self.engine, capacity=100, metrics=self.metrics)

    def submit(self, request_id: str, **fields: Any) -> PendingRequest:
        command = Generate(request_id, "toy", VERSION, (canvas(),))
        fields = {"arrived_at": asyncio.get_running_loop().time(), "timeout_seconds": 3600.0, **fields}
        with structlog.contextvars.bound_contextvars(request_id=f"http-{request_id}"):
            return self.dispatcher.submit(command, **fields)


def _run(test: Coroutine[Any, Any, Result]) -> Result:
    """Fails where somebody waits for ever."""
    return asyncio.run(asyncio.wait_for(test, WAIT_SECONDS))


@asynccontextmanager
async def _open() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.dispatcher.start()
    await desk.dispatcher.wait_until_ready()
    yield desk
    await desk.dispatcher.stop()


@pytest.fixture
def lines() -> Iterator[Sequence[Any]]:
    """What is logged, at every level."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(0))
    with capture_logs([structlog.contextvars.merge_contextvars]) as logged:
        yield logged
    structlog.configure(wrapper_class=before)


def _of(request_id: str) -> list[RequestEvent]:
    ids = (request_id, VERSION)
    return [Started(*ids), Revealed(*ids, 0, REVEALS), SampleDone(*ids, 0, 5), Finished(*ids)]


async def _answer(pending: PendingRequest) -> list[str]:
    """The events its reader gets, and the error that ended it."""
    found: list[str] = []
    try:
        while not (found and found[-1] in ("Finished", "Ranked")):
            found += [type(event).__name__ for event in await pending.take()]
    except ServiceError as error:
        found.append(error.kind)
    return found


def _mixed(*event_lists: Sequence[RequestEvent]) -> list[Event]:
    return [event for events in zip(*event_lists, strict=True) for event in events]


def _fail(*arguments: object, **fields: object) -> NoReturn:
    raise RuntimeError("secret")


@pytest.mark.parametrize("kind", ["Started", "Revealed", "SampleDone", "Finished"])
def test_an_event_that_cannot_be_delivered_fails_its_own_request_and_the_others_get_all_of_theirs(
    kind: str, lines: Sequence[Any]
) -> None:
    async def deliver() -> tuple[list[list[str]], list[Command]]:
        async with _open() as desk:
            bad, good = desk.submit("bad"), desk.submit("good")
            put = bad.put
            bad.put = lambda event: _fail() if type(event).__name__ == kind else put(event)  # type: ignore[method-assign]
            await desk.engine.say(*_mixed(_of("bad"), _of("good")))
            assert desk.dispatcher.num_running == desk.dispatcher.num_waiting == 0
            return [await _answer(bad), await _answer(good)], desk.engine.sent[2:]

    (bad, good), sent = _run(deliver())
    before = [type(event).__name__ for event in _of("bad")]
    assert bad == [*before[: before.index(kind)], "internal"]
    assert good == before
    assert Cancel("bad") in sent
    (line,) = [line for line in lines if line["event"] == "event_failed"]
    assert (line["request_id"], line["kind"], line["exc_info"]) == ("http-bad", kind, True)


@pytest.mark.parametrize("last", [Failed("r", VERSION, "why"), Finished("r", VERSION), Ranked("r", VERSION, ())])
@pytest.mark.parametrize("broken", ["request_seconds", "step_seconds", "log"])
def test_nobody_waits_for_ever_because_a_metric_or_the_log_is_broken(
    last: RequestEvent, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deliver() -> list[list[str]]:
        async with _open() as desk:
            if broken == "log":
                monkeypatch.setattr(dispatcher_module, "get_logger", lambda: Log())
            else:
                monkeypatch.setattr(getattr(desk.metrics, broken), "observe", _fail)
            waiting = desk.submit("r"), desk.submit("next"), desk.submit("last")
            await desk.engine.say(Started("r", VERSION), StepStats(0.1, 1, 5, 5, 1), last, *_of("next"), Died("why"))
            with pytest.raises(EngineDiedError, match="why"):
                await desk.dispatcher.wait_until_dead()
            return [await _answer(pending) for pending in waiting]

    class Log:
        error = staticmethod(_fail)

        def exception(self, *arguments: object, **fields: object) -> None:
            pass

    kind = "internal" if isinstance(last, Failed) else type(last).__name__
    following = [type(event).__name__ for event in _of("next")]
    assert _run(deliver()) == [["Started", kind], following, ["internal"]]


def test_a_drain_answers_everybody_even_if_one_cannot_be_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drain() -> list[list[str]]:
        async with _open() as desk:
            monkeypatch.setattr(desk.metrics.request_seconds, "observe", _fail)
            waiting = desk.submit("a"), desk.submit("b")
            await desk.dispatcher.drain(timeout_seconds=0)
            return [await _answer(pending) for pending in waiting]

    assert _run(drain()) == [["draining"]] * 2


def test_a_deadline_counts_from_the_requests_arrival() -> None:
    async def wait() -> list[list[str]]:
        async with _open() as desk:
            now = asyncio.get_running_loop().time()
            late = desk.submit("late", arrived_at=now - 60, timeout_seconds=60)
            early = desk.submit("early", arrived_at=now - 60, timeout_seconds=3660)
            await desk.engine.say(Started("late", VERSION))
            found = await _answer(late)
            await desk.engine.say(*_of("late"), *_of("early"))
            return [found, await _answer(early)]

    assert _run(wait()) == [["Started", "timeout"], [type(event).__name__ for event in _of("early")]]


def test_batches_that_were_retried_are_all_counted_and_each_cause_is_logged_once(lines: Sequence[Any]) -> None:
    async def retry() -> float | None:
        async with _open() as desk:
            for missing in range(5):
                await desk.engine.say(BatchRetried("toy", 15, 8, f"RuntimeError: {missing} GiB missing", None))
            await desk.engine.say(BatchRetried("toy", 15, 8, "MemoryError:", 4))
            await desk.engine.say(BatchRetried("toy", 15, 4, "MemoryError:", 2))
            for number in range(1000):
                letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
                await desk.engine.say(BatchRetried("toy", 15, 8, letters, None))
            return desk.metrics.registry.get_sample_value("unveil_batches_retried_total")

    assert _run(retry()) == 1007
    retried = [line for line in lines if line["event"] == "batch_retried"]
    assert [line["cause"] for line in retried[:2]] == ["RuntimeError: 0 GiB missing", "MemoryError:"]
    assert {(line["model"], line["length"], line["canvases"]) for line in retried} == {("toy", 15, 8)}
    assert len(retried) == 100
    assert [line["max_batch"] for line in lines if line["event"] == "batch_halved"] == [4, 2]


def test_what_is_said_of_a_request_that_has_ended_is_left_alone(lines: Sequence[Any]) -> None:
    async def late() -> list[str]:
        async with _open() as desk:
            pending = desk.submit("r")
            await desk.engine.say(*_of("r"), *_of("r"), Scored("nobody", VERSION, 0, Term(0, 0, 0.0)))
            return await _answer(pending)

    assert _run(late()) == [type(event).__name__ for event in _of("r")]
    assert not [line for line in lines if line["event"] == "event_failed"]
