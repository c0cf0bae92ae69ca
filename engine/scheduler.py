"""Which canvases step together. Pure: knows no clock, no torch, no HTTP, and not what a step does.

Everything is decided anew at every step, so requests join and leave at every step. A batch holds slots of one
`BatchKey` only: one model, one length bucket, one kind of work. Keys take turns. The slots of a key go round by round,
in order of arrival: first the first unfinished slot of every request, then the second of every request, and so on. So
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
class BatchKey:
    """What must agree for two slots to step together. `length` is the padded one; one forward takes `most` canvases of
    it, so that a step's cost is bounded whatever the length."""

    model: str
    length: int
    kind: Kind
    most: int = sys.maxsize


@dataclass(frozen=True, slots=True)
class Slot:
    """What one row of a batch steps: canvas `index` of a request, or one of a score's chains."""

    request_id: str
    index: int


class Scheduler:
    """Holds all unfinished slots."""

    def __init__(self, *, max_batch: int) -> None:
        assert max_batch >= 1
        self._max_batch = max_batch
        self._slots: dict[BatchKey, dict[str, dict[int, None]]] = {}  # key -> request -> its slots, both by arrival
        self._keys_of: dict[str, set[BatchKey]] = {}
        self._limits: dict[tuple[str, int], int] = {}  # by model and length, where batches were halved
        self._chosen: dict[tuple[BatchKey, int], tuple[Slot, ...]] = {}  # by key and limit, until its slots change

    @property
    def is_idle(self) -> bool:
        return not self._slots

    def join(self, request_id: str, slots: Mapping[int, BatchKey]) -> None:
        """Adds a request, the youngest of all, with the key of each of its slots."""
        assert request_id not in self._keys_of
        self._chosen.clear()
        self._keys_of[request_id] = set(slots.values())
        for index, key in slots.items():
            self._slots.setdefault(key, {}).setdefault(request_id, {})[index] = None

    def leave(self, slot: Slot, key: BatchKey) -> None:
        """Takes a finished slot out."""
        self._chosen.clear()
        slots = self._slots[key][slot.request_id]
        del slots[slot.index]
        if not slots:
            self._forget(slot.request_id, key)

    def drop(self, request_id: str) -> None:
        """Takes all slots of a request out. A request that has none is no error: it may just have finished."""
        self._chosen.clear()
        for key in tuple(self._keys_of.get(request_id, ())):
            self._forget(request_id, key)

    def next_batch(self) -> tuple[BatchKey, tuple[Slot, ...]] | None:
        """The slots to step now; None where there is nothing to do. The turn then goes to the next key."""
        if not self._slots:
            return None
        key = next(iter(self._slots))
        requests = self._slots.pop(key)
        self._slots[key] = requests
        limit = self._limit(key)
        if (key, limit) not in self._chosen:
            self._chosen[key, limit] = tuple(islice(_rounds(requests), limit))
        return key, self._chosen[key, limit]

    def halve(self, key: BatchKey) -> int:
        """Halves the largest batch of this model and length, for every kind of work and for good; gives it."""
        most = max(1, self._most(key) // 2)
        self._limits[key.model, key.length] = most
        return most

    def _most(self, key: BatchKey) -> int:
        return min(self._limits.get((key.model, key.length), self._max_batch), key.most, self._max_batch)

    def _limit(self, key: BatchKey) -> int:
        most = self._most(key)
        if key.kind == "score" and any(other.kind == "generate" for other in self._slots):
            return max(1, most // _SCORE_PART)
        return most

    def _forget(self, request_id: str, key: BatchKey) -> None:
        del self._slots[key][request_id]
        if not self._slots[key]:
            del self._slots[key]
        self._keys_of[request_id].discard(key)
        if not self._keys_of[request_id]:
            del self._keys_of[request_id]


def _rounds(requests: Mapping[str, Iterable[int]]) -> Iterable[Slot]:
    waiting = {request_id: iter(indices) for request_id, indices in requests.items()}
    for _ in count():
        for request_id, indices in tuple(waiting.items()):
            index = next(indices, None)
            if index is None:
                del waiting[request_id]
            else:
                yield Slot(request_id, index)
        if not waiting:
            return
