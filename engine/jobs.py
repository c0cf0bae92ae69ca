"""Requests in the worker: their latest states, and what of them still needs a step.

A job numbers its slots. To generate, a slot is a canvas. To score, a slot is a chain; where a model says so (`Links`),
of a chain whose order is known ahead it is a single link: its steps do not wait for one another and can share a batch.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from unveil.engine.messages import Event, Finished, Generate, Rank, Ranked, SampleDone, Score, Scored, step_events
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.sampler import StepResult
from unveil.model.decoding.scoring import Links, ScoreResult
from unveil.model.decoding.scoring_chain import Chain

Result = StepResult | ScoreResult


class DecodeJob:
    """A `Generate`, or a `Rank` of one canvas."""

    def __init__(self, command: Generate | Rank) -> None:
        self.command = command
        self.canvases = list(command.canvases) if isinstance(command, Generate) else [command.canvas]
        self.has_started = False
        self._num_open = len(self.open_slots())

    @property
    def ids(self) -> tuple[str, str]:
        return self.command.request_id, self.command.weights_version

    @property
    def is_finished(self) -> bool:
        return self._num_open == 0

    def open_slots(self) -> dict[int, int]:
        """Each slot that needs a step, with its canvas's length."""
        return {i: canvas.length for i, canvas in enumerate(self.canvases) if not canvas.is_complete}

    def held(self) -> Sequence[Canvas]:
        """The canvases of which a model may keep something."""
        return self.canvases

    def already_done(self) -> list[Event]:
        """The events, before the first step, of canvases that need none."""
        if isinstance(self.command, Rank):
            return []
        return [SampleDone(*self.ids, i, 0) for i, canvas in enumerate(self.canvases) if canvas.is_complete]

    def last_event(self) -> Event:
        return Finished(*self.ids) if isinstance(self.command, Generate) else Ranked(*self.ids, ())

    def advance(self, index: int, result: Result) -> tuple[list[Event], bool]:
        """Records a canvas's step; gives the events to emit, and whether the canvas is complete."""
        assert isinstance(result, StepResult)
        events = step_events(self.ids, index, self.canvases[index], *result)
        self.canvases[index] = result.canvas
        self._num_open -= result.canvas.is_complete
        return [*events], result.canvas.is_complete


class ScoreJob:
    """A `Score`."""

    def __init__(self, command: Score, links: Links) -> None:
        self.command = command
        self.has_started = False
        self._chains = list(command.chains)
        self._orders = [links(chain) for chain in command.chains]
        sizes = [1 if order is None else len(order) for order in self._orders]
        self._first_slots = list(accumulate(sizes, initial=0))
        self._num_open = len(self.open_slots())

    @property
    def ids(self) -> tuple[str, str]:
        return self.command.request_id, self.command.weights_version

    @property
    def is_finished(self) -> bool:
        return self._num_open == 0

    def open_slots(self) -> dict[int, int]:
        """Each slot that needs a step, with its canvas's length."""
        lengths = {}
        for index, chain in enumerate(self._chains):
            if not chain.is_complete:
                slots = range(self._first_slots[index], self._first_slots[index + 1])
                lengths.update(dict.fromkeys(slots, chain.canvas.length))
        return lengths

    def held(self) -> Sequence[Canvas]:
        """The canvases of which a model may keep something."""
        return [chain.canvas for chain in self._chains]

    def already_done(self) -> list[Event]:
        return []

    def last_event(self) -> Event:
        return Finished(*self.ids)

    def chain(self, slot: int) -> Chain:
        """What this slot steps next."""
        index = self._index(slot)
        order = self._orders[index]
        chain = self._chains[index]
        return chain if order is None else chain.link(order, slot - self._first_slots[index])

    def advance(self, slot: int, result: Result) -> tuple[list[Event], bool]:
        """Records a step; gives the events to emit, and whether the slot is complete."""
        assert isinstance(result, ScoreResult)
        index = self._index(slot)
        if self._orders[index] is None:
            self._chains[index] = result.chain
        self._num_open -= result.chain.is_complete
        return [Scored(*self.ids, index, term) for term in result.terms], result.chain.is_complete

    def _index(self, slot: int) -> int:
        return bisect_right(self._first_slots, slot) - 1


Job = DecodeJob | ScoreJob
