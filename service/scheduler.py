"""Which canvases step together. Pure: knows no clock, no torch, no HTTP, and not what a step does.

Everything is decided anew at every step, so requests join and leave at every step. A batch holds canvases of one lane
only: one model, one length bucket, one kind of work. Lanes take turns. Inside a lane the seats go round by round, in
order of arrival: first the first unfinished canvas of every request, then the second of every request, and so on. So
the oldest request always advances (no starvation), and a request of a thousand canvases does not make the next wait
for all of them (no head-of-line blocking). A paused canvas loses nothing: it is a plain value.

Somebody watches a generation, and waits for a score as a whole: while anybody generates, a step that scores takes only
a part of a batch, so that turns come round sooner.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal

_SCORE_PART = 4  # of a batch, beside generation

Kind = Literal["generate", "rank", "score"]


@dataclass(frozen=True, slots=True)
class Lane:
    """What must agree for two canvases to step together. `length` is the padded one; one forward takes `most` canvases
    of it, so that a step's cost is bounded whatever the length."""

    model: str
    length: int
    kind: Kind
    most: int = sys.maxsize


@dataclass(frozen=True, slots=True)
class Seat:
    """Canvas `index` of a request."""

    request_id: str
    index: int


class Scheduler:
    """Holds the seats of all unfinished canvases."""

    def __init__(self, *, max_batch: int) -> None:
        assert max_batch >= 1
        self._max_batch = max_batch
        self._lanes: dict[Lane, dict[str, dict[int, None]]] = {}  # lane -> request -> its seats, both by arrival
        self._lanes_of: dict[str, set[Lane]] = {}
        self._chosen: dict[tuple[Lane, int], tuple[Seat, ...]] = {}  # by lane and limit, until its seats change

    @property
    def is_idle(self) -> bool:
        return not self._lanes

    def join(self, request_id: str, seats: Mapping[int, Lane]) -> None:
        """Adds a request, the youngest of all, with the lane of each of its canvases."""
        assert request_id not in self._lanes_of
        self._chosen.clear()
        self._lanes_of[request_id] = set(seats.values())
        for index, lane in seats.items():
            self._lanes.setdefault(lane, {}).setdefault(request_id, {})[index] = None

    def leave(self, seat: Seat, lane: Lane) -> None:
        """Frees the seat of a finished canvas."""
        self._chosen.clear()
        seats = self._lanes[lane][seat.request_id]
        del seats[seat.index]
        if not seats:
            self._forget(seat.request_id, lane)

    def drop(self, request_id: str) -> None:
        """Frees all seats of a request. A request that has none is no error: it may just have finished."""
        self._chosen.clear()
        for lane in tuple(self._lanes_of.get(request_id, ())):
            self._forget(request_id, lane)

    def next_batch(self) -> tuple[Lane, tuple[Seat, ...]] | None:
        """The seats to step now; None where there is nothing to do. Gives the lane's turn to the next one."""
        if not self._lanes:
            return None
        lane = next(iter(self._lanes))
        requests = self._lanes.pop(lane)
        self._lanes[lane] = requests
        limit = self._limit(lane)
        if (lane, limit) not in self._chosen:
            self._chosen[lane, limit] = tuple(islice(_rounds(requests), limit))
        return lane, self._chosen[lane, limit]

    def _limit(self, lane: Lane) -> int:
        most = min(self._max_batch, lane.most)
        if lane.kind == "score" and any(other.kind == "generate" for other in self._lanes):
            return max(1, most // _SCORE_PART)
        return most

    def _forget(self, request_id: str, lane: Lane) -> None:
        del self._lanes[lane][request_id]
        if not self._lanes[lane]:
            del self._lanes[lane]
        self._lanes_of[request_id].discard(lane)
        if not self._lanes_of[request_id]:
            del self._lanes_of[request_id]


def _rounds(requests: Mapping[str, Iterable[int]]) -> Iterable[Seat]:
    waiting = {request_id: iter(indices) for request_id, indices in requests.items()}
    for _ in count():
        for request_id, indices in tuple(waiting.items()):
            index = next(indices, None)
            if index is None:
                del waiting[request_id]
            else:
                yield Seat(request_id, index)
        if not waiting:
            return
