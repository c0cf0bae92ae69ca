"""Which canvas's contents stand in which row of memory. Decides nothing of what is computed.

A row is found by the canvas itself, as the step before gave it, or by its value: tokens and ranks. Rows are evicted,
the longest unused first, where there is no room; what is lost is computed again.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unveil.model.along.memory import Memory, RowSize
from unveil.model.decoding.canvas import UNREAD, Canvas
from unveil.model.decoding.order_keys import padded_width

_FIRST_ROWS = 8


class Content(NamedTuple):
    """A known position, or the beginning, which is in front of all."""

    position: int
    token_id: int
    rank: int


BEGINNING = Content(-1, 0, 0)


class Next(NamedTuple):
    """A position that is revealed next, the logprob of that choice, and the noise that it is revealed with
    (`model.decoding.noise.RevealNoise`)."""

    position: int
    order_logprob: float
    state: int
    value: float


class Held:
    """A canvas with a row: how many of its contents are computed, in the order of arrival, and which are to be. The
    beginning and what was known at the start, the `prompt`, come first."""

    __slots__ = (
        "canvas",
        "drafts",
        "hidden",
        "last_token",
        "num_contents",
        "num_hidden",
        "pending",
        "plan",
        "prompt",
        "row",
        "used",
    )

    def __init__(self, canvas: Canvas, row: int, width: int) -> None:
        self.canvas, self.row, self.used = canvas, row, 0
        places = sorted((rank, position) for position, rank in enumerate(canvas.ranks) if 0 <= rank < UNREAD)
        known = (Content(position, canvas.tokens[position], rank) for rank, position in places)
        self.pending = [BEGINNING, *known]
        self.prompt = tuple(content for content in self.pending if content.rank == 0)
        self.num_contents = 0
        self.hidden: NDArray[np.bool_] = np.zeros(width, np.bool_)
        self.hidden[: canvas.length] = canvas.hidden
        self.num_hidden = sum(canvas.hidden)
        self.plan: list[Next] = []
        self.last_token: int | None = None  # once looked up; see `model.decoding.canvas`
        self.drafts: dict[int, int] = {}  # tokens that may turn out at hidden positions

    @property
    def num_open(self) -> int:
        """Positions that are still to be revealed."""
        return self.num_hidden - self.canvas.params.num_left

    def is_at(self, canvas: Canvas) -> bool:
        return self.canvas.tokens == canvas.tokens and self.canvas.ranks == canvas.ranks


class Rows:
    """Up to `most` rows, and one behind them for exchanges; memory grows as it is needed."""

    def __init__(self, size: RowSize, *, most: int, length: int) -> None:
        self.most, self._width = most, padded_width(length)
        self.memory = Memory(size, 2)
        self._at: list[Held | None] = []  # by row
        self._by_canvas: dict[int, Held] = {}  # by identity
        self._clock = 0

    def __len__(self) -> int:
        return len(self._at) - self._at.count(None)

    def find(self, canvases: Sequence[Canvas]) -> list[Held]:
        """A row of its own for each; at most `most`. Those that are new have nothing computed."""
        assert len(canvases) <= self.most
        self._clock += 1
        found: list[Held | None] = []
        for canvas in canvases:
            held = self._by_canvas.get(id(canvas))
            found.append(None if held is None or held.used == self._clock else held)
            if held is not None:
                held.used = self._clock
        missing = [i for i, held in enumerate(found) if held is None]
        for i in sorted(missing, key=lambda i: canvases[i].length - canvases[i].num_at_start):  # alike side by side
            found[i] = self._take(canvases[i])
        return [held for held in found if held is not None]

    def like(self, held: Held) -> Held | None:
        """Another canvas with the same prompt, computed."""
        prompt = held.prompt
        others = (x for x in self._at if x is not None and x is not held and x.prompt == prompt)
        return next((other for other in others if other.num_contents >= len(prompt)), None)

    def arrange(self, held: Sequence[Held], kinds: Sequence[Hashable], *, first: int = 0) -> None:
        """Moves these canvases to the rows from `first` on, of which there are enough, each kind side by side."""
        ranges: dict[Hashable, list[Held]] = {}
        for own, kind in zip(held, kinds, strict=True):
            ranges.setdefault(kind, []).append(own)
        for members in ranges.values():
            rows = set(range(first, first + len(members)))
            vacant = iter(sorted(rows - {own.row for own in members}))
            for own in members:
                if own.row not in rows:
                    self._swap(own.row, next(vacant))
            first += len(members)

    def reach(self, num_rows: int) -> None:
        """Sees to it that a batch that is filled up to this row finds memory there."""
        if num_rows > self.memory.num_rows:
            self.memory = self.memory.grown(num_rows)

    def advance(self, held: Held, canvas: Canvas, revealed: Sequence[int], *, num_computed: int = 0) -> None:
        """The canvas as it is after a step, which revealed these positions; one that is complete leaves. Of the first
        `num_computed` of them the contents are there."""
        self._forget(held)
        if canvas.is_complete:
            self._at[held.row] = None
            return
        held.canvas = canvas
        self._by_canvas[id(canvas)] = held
        held.num_contents += num_computed
        held.num_hidden -= len(revealed)
        if len(revealed) == 1:  # as most steps are
            (i,) = revealed
            held.hidden[i] = False
            if not num_computed:
                held.pending.append(Content(i, canvas.tokens[i], canvas.ranks[i]))
            return
        read = [position for position in revealed if canvas.ranks[position] < UNREAD]
        contents = [Content(i, canvas.tokens[i], canvas.ranks[i]) for i in read[num_computed:]]
        held.pending += sorted(contents, key=lambda own: (own.rank, own.position))
        held.hidden[list(revealed)] = False

    def release(self, canvas: Canvas) -> None:
        """Frees its rows: one, or none, or several if it was given more than once."""
        if self._by_canvas.pop(id(canvas), None) is not None:
            self._at = [None if held is not None and held.canvas is canvas else held for held in self._at]

    def release_all(self) -> None:
        """Frees every row."""
        self._by_canvas.clear()
        self._at = [None] * len(self._at)

    def _take(self, canvas: Canvas) -> Held:
        """A row that stands where this canvas stands, or a new one."""
        for other in self._at:
            if other is not None and other.used != self._clock and other.is_at(canvas):
                self._forget(other)
                other.canvas, other.used = canvas, self._clock
                other.plan, other.drafts = [], {}  # these were of its seed and parameters
                self._by_canvas[id(canvas)] = other
                return other
        held = Held(canvas, self._free_row(), self._width)
        held.used = self._clock
        self._at[held.row] = self._by_canvas[id(canvas)] = held
        self.memory.clear(held.row)
        return held

    def _free_row(self) -> int:
        if None in self._at:
            return self._at.index(None)
        num = len(self._at)
        if num < self.most:
            if num + 2 > self.memory.num_rows:
                self.reach(min(max(2 * num, _FIRST_ROWS), self.most) + 1)
            self._at.append(None)
            return num
        oldest = min((held for held in self._at if held is not None), key=lambda held: held.used)
        assert oldest.used < self._clock
        self._forget(oldest)
        return oldest.row

    def _forget(self, held: Held) -> None:
        """Who stands where this canvas stands is not found by it any more."""
        if self._by_canvas.get(id(held.canvas)) is held:  # not so if one canvas was given twice
            del self._by_canvas[id(held.canvas)]

    def _swap(self, row: int, other: int) -> None:
        """Exchanges two rows; by the last spare one, which no batch reaches then."""
        a, b, temporary = self._at[row], self._at[other], self.memory.num_rows - 1
        assert a is not None
        if b is None:
            self.memory.copy(row, other, a.num_contents)
        else:
            self.memory.copy(other, temporary, b.num_contents)
            self.memory.copy(row, other, a.num_contents)
            self.memory.copy(temporary, row, b.num_contents)
            b.row = row
        a.row = other
        self._at[row], self._at[other] = b, a
