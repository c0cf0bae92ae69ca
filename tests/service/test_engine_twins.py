"""Identical requests in flight are computed once, and each is told everything, in time, under its own name."""

from collections.abc import Iterator

import pytest

from model.canvas import Canvas
from service.engine import Engine
from service.messages import Cancel, Event, Failed, Finished, Generate, Revealed, Started, Stop
from tests.service.mocks import VERSION, WAIT_SECONDS, Gate, MockRunner, Recorder, canvas, toy_engine

SIZES = (3, 4, 5, 2, 6)


class Lab:
    def __init__(self, gate: Gate) -> None:
        self.gate, self.said = gate, Recorder()
        self.runner = MockRunner(SIZES, on_step=gate)
        self.engine: Engine = toy_engine({"toy": self.runner})
        self.engine.start(self.said)

    def ask(self, name: str, *canvases: Canvas) -> None:
        self.engine.send(Generate(name, "toy", VERSION, canvases))

    def end(self, name: str) -> Event:
        return self.said.until(lambda event: isinstance(event, Finished | Failed) and event.request_id == name)

    def reveals(self, name: str) -> list[Revealed]:
        return [event for event in self.said.events if isinstance(event, Revealed) and event.request_id == name]


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab(Gate())
    yield lab
    lab.gate.open()
    lab.engine.send(Stop())
    lab.engine.join(WAIT_SECONDS)


def test_the_later_one_is_told_what_was_said_and_takes_no_seat(lab: Lab) -> None:
    lab.ask("first", canvas(seed=1))
    lab.gate.wait()
    lab.gate.allow()
    lab.gate.wait()
    lab.ask("second", canvas(seed=1))
    lab.ask("other", canvas(seed=2))
    lab.gate.allow()
    assert [c.seed for c in lab.gate.wait()] == [1, 2]
    lab.gate.open()
    for name in ("first", "second", "other"):
        assert isinstance(lab.end(name), Finished)
    assert [e.reveals for e in lab.reveals("second")] == [e.reveals for e in lab.reveals("first")]
    assert len(lab.reveals("first")) == 5
    assert [event for event in lab.said.events if isinstance(event, Started)][1].request_id == "second"
    assert all(len({c.seed for c in batch}) == len(batch) for batch in lab.runner.batches)


@pytest.mark.parametrize("goes", ["first", "second"])
def test_one_that_leaves_takes_nothing_from_its_twin(lab: Lab, goes: str) -> None:
    lab.ask("first", canvas(seed=1))
    lab.gate.wait()
    lab.ask("second", canvas(seed=1))
    lab.engine.send(Cancel(goes))
    lab.gate.open()
    stays = {"first": "second", "second": "first"}[goes]
    assert isinstance(lab.end(stays), Finished)
    assert len(lab.reveals(stays)) == 5
    assert len(lab.reveals(goes)) <= 1  # of the step that it was in
    lab.ask(goes, canvas(seed=1))  # nobody is in flight any more: computed anew
    lab.end(goes)
    assert len(lab.runner.batches) == 10


def test_when_both_have_left_nothing_is_computed(lab: Lab) -> None:
    lab.ask("first", canvas(seed=1))
    lab.gate.wait()
    lab.ask("second", canvas(seed=1))
    lab.engine.send(Cancel("first"))
    lab.engine.send(Cancel("second"))
    lab.ask("third", canvas(seed=1))
    lab.gate.open()
    lab.end("third")
    assert len(lab.runner.batches) == 6


def test_a_failure_is_told_to_both(lab: Lab) -> None:
    def broken(canvases: object) -> None:
        raise RuntimeError("broken")

    lab.ask("first", canvas(seed=1))
    lab.gate.wait()
    lab.ask("second", canvas(seed=1))
    lab.runner.on_step = broken
    lab.gate.open()
    ends = {event.request_id: event for name in ("first", "second") if isinstance(event := lab.end(name), Failed)}
    assert ends.keys() == {"first", "second"}
    assert all("broken" in event.message for event in ends.values())
