"""Where a step takes long, whoever was just answered has a moment to ask again before the next one begins."""

import queue
import time

import pytest

from service.engine_worker import Worker
from service.messages import Command, Event, Finished, Generate, Stop
from tests.service.mocks import VERSION, MockRunner, canvas

SLOW = 0.5  # seconds a step, of which the worker waits a fiftieth


class Inbox:
    """An inbox with commands that come late: only to somebody who waits for them. `waited` has every such wait."""

    def __init__(self, now: list[Command], late: list[Command]) -> None:
        self.now, self.late, self.waited = now, late, list[float]()

    def get(self, block: bool = True, timeout: float | None = None) -> Command:
        if self.now:
            return self.now.pop(0)
        if not block:
            raise queue.Empty
        assert timeout is not None
        self.waited.append(timeout)
        if not self.late:
            raise queue.Empty
        return self.late.pop(0)

    def get_nowait(self) -> Command:
        return self.get(block=False)


def request(name: str, num_hidden: int) -> Generate:
    return Generate(name, "toy", VERSION, (canvas(5, seed=ord(name), num_known=5 - num_hidden),))


def sizes(inbox: Inbox, *, seconds: float, num: int, max_batch: int = 64) -> list[int]:
    """How many canvases each step had, once `num` requests have been answered."""
    runner = MockRunner((4, 3, 5, 2, 6), on_step=lambda _: time.sleep(seconds))
    finished: list[str] = []

    def emit(events: list[Event]) -> None:
        finished.extend(event.request_id for event in events if isinstance(event, Finished))
        if len(finished) == num:
            inbox.now.append(Stop())

    worker = Worker({"toy": runner}, inbox=inbox, emit=emit, max_batch=max_batch, beat_seconds=1.0)  # type: ignore[arg-type]
    worker.run()
    assert len(finished) == num
    return [len(batch) for batch in runner.batches]


def test_a_successor_that_comes_a_moment_late_joins_the_very_next_step() -> None:
    inbox = Inbox([request("a", 1), request("b", 2)], late=[request("c", 1)])
    assert sizes(inbox, seconds=SLOW, num=3) == [2, 2]
    assert len(inbox.waited) == 1
    assert 0 < inbox.waited[0] <= 0.1 * SLOW


def test_nobody_is_waited_for_where_a_step_is_short() -> None:
    inbox = Inbox([request("a", 1), request("b", 3)], late=[])
    assert sizes(inbox, seconds=0.0, num=2) == [2, 1, 1]
    assert not inbox.waited


def test_nobody_is_waited_for_where_nobody_has_left_or_the_next_step_is_full() -> None:
    inbox = Inbox([request("a", 2)], late=[])
    assert sizes(inbox, seconds=0.1, num=1) == [1, 1]
    assert not inbox.waited
    inbox = Inbox([request("a", 1), request("b", 1)], late=[])
    assert sizes(inbox, seconds=0.1, num=2, max_batch=1) == [1, 1]
    assert not inbox.waited


def test_a_wait_in_vain_ends() -> None:
    inbox = Inbox([request("a", 1), request("b", 2)], late=[])
    assert sizes(inbox, seconds=0.1, num=2) == [2, 1]
    assert len(inbox.waited) == 1


@pytest.mark.parametrize("when", ["now", "late"])
def test_a_stop_is_obeyed_while_waiting(when: str) -> None:
    inbox = Inbox([request("a", 1), request("b", 2)], late=[Stop()] if when == "late" else [])
    runner = MockRunner((4, 3, 5, 2, 6), on_step=lambda _: time.sleep(0.1))

    def emit(events: list[Event]) -> None:
        if when == "now" and any(isinstance(event, Finished) for event in events):
            inbox.now.append(Stop())

    Worker({"toy": runner}, inbox=inbox, emit=emit, max_batch=64, beat_seconds=1.0).run()  # type: ignore[arg-type]
    assert len(runner.batches) == 1
