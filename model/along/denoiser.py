"""A network along its order behind the sampler's interface: canvases in, logits of what is asked out.

Contents are computed once and kept in rows of memory (`model.along.rows`); a step computes the contents of what was
revealed last and the queries of what is asked next, in one forward.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unveil.model.along.forward import NOBODY, Along, Run, Slots
from unveil.model.along.memory import FIRST
from unveil.model.along.pace import Clock, Pace
from unveil.model.along.rows import Content, Held, Rows
from unveil.model.along.shapes import Shapes
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.noise import Floats
from unveil.model.decoding.order_keys import Ints, padded_width
from unveil.model.denoiser import Counts, sent
from unveil.model.network.order_heads import NextCostHead

_FEW_CONTENTS = 16  # left to the forward that asks
_CPU_AHEAD, _DEVICE_AHEAD = 32, 512  # canvases times positions that a step tries


class Question(NamedTuple):
    """A position, and the turn at which it is asked: it reads what was revealed in ranks below."""

    position: int
    turn: int


class Ask(NamedTuple):
    """What one canvas wants of a forward: contents to write behind those that it has, and questions."""

    held: Held
    contents: Sequence[Content]
    questions: Sequence[Question]


class AlongDenoiser:
    """`model.decoding.batch.Served`. `counts`: positions are slots, useful if they have work; `num_saved` by
    `model.along.ahead`."""

    def __init__(
        self,
        network: Along,
        shapes: Shapes,
        *,
        max_rows: int,
        end_id: int | None = None,
        clock: Clock | None = None,
        run: Run | None = None,
    ) -> None:
        """`run`: what computes slots, if not the network itself does."""
        self.network, self.shapes, self.end_id, self.run = network, shapes, end_id, run or network.run
        length = network.architecture.length
        self.most = min(max_rows, shapes.most_rows)
        self.rows = Rows(network.size, most=max_rows, length=length)
        self.counts = Counts()
        self.looks = network.order_head.kind == "contextual"
        self.log_w: Floats = np.zeros(padded_width(length))
        self.log_w[:length] = network.log_w.double().cpu().numpy()
        self.order_ahead = None if self.looks else self.log_w
        self.pace = Pace(most=_CPU_AHEAD if network.size.device.type == "cpu" else _DEVICE_AHEAD, clock=clock)

    def bucket(self, length: int) -> int:  # noqa: ARG002
        """The padded length of canvases of this length: they all step together."""
        return self.network.architecture.length

    @property
    def most_scored(self) -> int:
        """How many canvases are scored in one forward."""
        return min(self.most, self.shapes.rows_of(self.network.architecture.length))

    @torch.inference_mode()
    def open(self, canvases: Sequence[Canvas]) -> "OpenedAlong":
        """See `model.decoding.batch.Served`."""
        return OpenedAlong(self, canvases, self.hold(canvases))

    def hold(self, canvases: Sequence[Canvas], *, first: int = 0) -> list[Held]:
        """A row for each from `first` on, all but the latest contents computed, those asked alike side by side."""
        held = self.rows.find(canvases)
        self.rows.arrange(held, [self.asks_all(canvas) for canvas in canvases], first=first)
        if len(held) > 1:
            self.prefill(held)
        for own in held:
            while len(own.pending) > (_FEW_CONTENTS if len(held) > 1 else self.shapes.most_contents):
                self.extend(own, own.pending[: self.shapes.most_contents])
        return held

    def asks_all(self, canvas: Canvas) -> bool:
        """Whether everything that a canvas hides is asked at every step."""
        return canvas.params.measure is not None or (self.looks and canvas.params.order == "learned")

    def release(self, canvases: Iterable[Canvas]) -> None:
        """See `model.decoding.batch.Served`."""
        for canvas in canvases:
            self.rows.release(canvas)

    def prefill(self, held: Sequence[Held]) -> None:
        """The contents of what was known at the start, each prompt once. They read each other, so a prompt is one
        forward, of several prompts at a time. The beginning alone is left to the forward that asks."""
        new = [own for own in held if own.num_contents == 0 and len(own.prompt) > 1]
        firsts = {own.prompt: own for own in reversed(new) if self.rows.like(own) is None}
        asks = [Ask(own, own.prompt, ()) for own in firsts.values()]
        if asks:
            self._compute(asks)
        for ask in asks:
            self._done(ask.held, len(ask.contents))
        for own in new:
            if own.num_contents == 0 and (other := self.rows.like(own)) is not None:
                self.rows.memory.copy(other.row, own.row, len(own.prompt))
                self._done(own, len(own.prompt))

    def extend(self, held: Held, contents: Sequence[Content]) -> None:
        """The contents of what was revealed since, in the order of their ranks."""
        self._compute([Ask(held, contents, ())])
        self._done(held, len(contents))

    def ask(self, asks: Sequence[Ask]) -> Tensor:
        """The last states [N, D] of all questions, one canvas's after the other's; contents are in the order of their
        ranks."""
        pieces: list[Tensor] = []
        places: list[Sequence[int]] = [()] * len(asks)
        offset = 0
        for run in self._runs(asks):
            states = self._forward([asks[i] for i in run])
            B, A, D = states.shape
            for b, i in enumerate(run):
                places[i] = range(offset + b * A, offset + b * A + len(asks[i].questions))
            pieces.append(states.reshape(B * A, D))
            offset += B * A
        flat = [place for own in places for place in own]
        if len(pieces) == 1 and flat == list(range(len(flat))):
            return pieces[0][: len(flat)]
        states = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return states.index_select(0, sent(np.array(flat), states.device))

    def logits(self, states: Tensor, positions: Ints) -> Tensor:
        """Token logits [R, V] of states [R, D] at `positions` [R]."""
        R, where = len(states), sent(positions, states.device)
        at_once = self.shapes.at_once(R)
        found = []
        for start in range(0, R, at_once):
            some, at = states[start : start + at_once], where[start : start + at_once]
            missing = at_once - len(some)
            if missing:
                some, at = torch.nn.functional.pad(some, (0, 0, 0, missing)), torch.nn.functional.pad(at, (0, missing))
            found.append(self.network.logits(some, at)[: at_once - missing])
        return found[0] if len(found) == 1 else torch.cat(found)

    def order_logits(self, states: Tensor, positions: Ints) -> Floats:
        """What a contextual order head says of states [R, D] at `positions` [R]: [R]."""
        head = self.network.order_head
        logits = self.logits(states, positions) if isinstance(head, NextCostHead) else None
        R, count = len(states), self.shapes.filled(len(states))
        states = torch.nn.functional.pad(states, (0, 0, 0, count - R))
        logits = None if logits is None else torch.nn.functional.pad(logits, (0, 0, 0, count - R))
        where = sent(np.pad(positions, (0, count - R)), states.device)
        return head.alone(states, logits, where)[:R].double().cpu().numpy()

    def count(self, more: Counts) -> None:
        """Adds to the counts."""
        self.counts = Counts(*(a + b for a, b in zip(self.counts, more, strict=True)))

    def settle(self, held: Held) -> None:
        """What was pending has been computed."""
        self._done(held, len(held.pending))

    def _compute(self, asks: Sequence[Ask]) -> None:
        """Contents alone, of rows side by side as far as one forward takes them; those of a run are of like numbers."""
        run: list[Ask] = []
        for ask in sorted(asks, key=lambda ask: ask.held.row):
            num = max([len(ask.contents), *(len(own.contents) for own in run)])
            is_next = not run or ask.held.row == run[-1].held.row + 1
            if run and (not is_next or len(run) == self.shapes.rows_of(num) or num > 2 * len(run[0].contents)):
                self._forward(run)
                run = []
            run.append(ask)
        self._forward(run)

    def _done(self, held: Held, num: int) -> None:
        held.num_contents += num
        del held.pending[:num]

    def _runs(self, asks: Sequence[Ask]) -> Iterator[list[int]]:
        """The canvases of each forward: neighbours in memory of which as much is asked, no more than a shape takes."""
        kinds = [self.asks_all(ask.held.canvas) for ask in asks]
        most = {
            kind: self._most_rows([ask for ask, own in zip(asks, kinds, strict=True) if own == kind])
            for kind in set(kinds)
        }
        run: list[int] = []
        for i in sorted(range(len(asks)), key=lambda i: asks[i].held.row):
            is_next = run and asks[i].held.row == asks[run[-1]].held.row + 1 and kinds[i] == kinds[run[-1]]
            if run and (not is_next or len(run) == most[kinds[i]]):
                yield run
                run = []
            run.append(i)
        yield run

    def _most_rows(self, asks: Sequence[Ask]) -> int:
        """How many of these a forward takes."""
        return self.shapes.rows_of(max(max(len(ask.contents), len(ask.questions)) for ask in asks))

    def _forward(self, asks: Sequence[Ask]) -> Tensor:
        """One forward over rows next to each other: last states [B, A, D], each row's questions in front."""
        num_contents, num_asked = (max(map(len, of)) for of in zip(*(ask[1:] for ask in asks), strict=True))
        B, C, A = self.shapes.fit(len(asks), num_contents, num_asked)
        self.rows.reach(asks[0].held.row + B)
        slots = Slots(B, C, A)
        for b, ask in enumerate(asks):
            self._fill(slots, b, ask)
        useful = sum(len(ask.contents) + len(ask.questions) for ask in asks)
        self.count(Counts(B * (C + A), useful))
        filled = max(ask.held.num_contents + len(ask.contents) for ask in asks)
        return self.run(self.rows.memory, asks[0].held.row, slots, num_contents=filled)

    def _fill(self, slots: Slots, b: int, ask: Ask) -> None:
        sources, columns, turns, ranks, places = slots.all[:, b]
        network, first, num_known = self.network, FIRST + ask.held.num_contents, len(ask.held.prompt)
        for s, (position, token_id, rank) in enumerate(ask.contents):
            sources[s], places[s] = token_id + network.offsets[position], network.places[position]
            columns[s], turns[s], ranks[s] = first + s, rank or 1, rank
        known = [content.rank for content in ask.contents]
        for s, (position, turn) in enumerate(ask.questions, slots.num_contents):
            num_read = ask.held.num_contents + bisect_left(known, turn)  # what was written before is read by all
            sources[s] = FIRST + num_read - 1 if num_read > num_known else FIRST
            columns[s], turns[s], places[s] = NOBODY, turn, position


class OpenedAlong:
    """`model.decoding.batch.Opened` of canvases whose rows stand side by side."""

    def __init__(self, denoiser: AlongDenoiser, canvases: Sequence[Canvas], held: Sequence[Held]) -> None:
        self._denoiser, self._held = denoiser, held
        self.row_of: Ints = np.arange(len(held))
        self.hidden = np.stack([own.hidden for own in held])
        self._looked: tuple[Tensor, Ints] | None = None  # states of positions, and where each [B, W] is
        self.order_logits: Floats = np.broadcast_to(denoiser.log_w, self.hidden.shape)
        looking = [b for b, canvas in enumerate(canvases) if canvas.params.order == "learned"]
        if denoiser.looks and looking:
            self.order_logits = self._look(np.array(looking))

    def logits(self, rows: Ints, positions: Ints) -> Tensor:
        """See `model.decoding.batch.Opened`."""
        return self._denoiser.logits(self._states(rows, positions), positions)

    def advance(self, canvases: Sequence[Canvas], revealed: Sequence[Sequence[int]]) -> None:
        """See `model.decoding.batch.Opened`."""
        for own, canvas, positions in zip(self._held, canvases, revealed, strict=True):
            own.plan.clear()
            own.drafts.clear()
            own.last_token = None
            self._denoiser.rows.advance(own, canvas, positions)

    def in_turn(self, orders: Sequence[Sequence[int]], truths: Sequence[Sequence[int]]) -> Tensor:
        """See `model.decoding.batch.RowScorer`."""
        asks = []
        for own, order, truth in zip(self._held, orders, truths, strict=True):
            ranks = range(own.canvas.num_forwards + 1, own.canvas.num_forwards + 1 + len(order))
            contents = [Content(position, truth[position], rank) for position, rank in zip(order, ranks, strict=True)]
            questions = [Question(position, rank) for position, rank in zip(order, ranks, strict=True)]
            asks.append(Ask(own, [*own.pending, *contents[:-1]], questions))  # nobody reads the last
        states = self._denoiser.ask(asks)
        for ask in asks:
            self._denoiser.settle(ask.held)
        return self._denoiser.logits(states, np.array([position for order in orders for position in order]))

    def _states(self, rows: Ints, positions: Ints) -> Tensor:
        if self._looked is not None:
            states, places = self._looked
            found = places[rows, positions]
            if (found >= 0).all():
                return states.index_select(0, sent(found, states.device))
        questions: dict[int, list[Question]] = {}
        places_of: list[tuple[int, int]] = []
        for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
            own = questions.setdefault(row, [])
            places_of.append((row, len(own)))
            own.append(Question(position, self._held[row].canvas.num_forwards + 1))
        asks = [Ask(self._held[row], self._held[row].pending, own) for row, own in questions.items()]
        states = self._denoiser.ask(asks)
        for ask in asks:
            self._denoiser.settle(ask.held)
        if len(questions) == len(rows):
            return states
        starts = dict(zip(questions, np.cumsum([0, *(len(own) for own in questions.values())]), strict=False))
        flat = [int(starts[row]) + k for row, k in places_of]
        return states.index_select(0, sent(np.array(flat), states.device))

    def _look(self, rows: Ints) -> Floats:
        """Order logits [B, W] of a contextual order, of these rows: all their hidden positions are asked."""
        at, positions = self.hidden[rows].nonzero()
        states = self._states(rows[at], positions)
        places = np.full(self.hidden.shape, -1)
        places[rows[at], positions] = np.arange(len(at))
        self._looked = states, places
        order_logits = np.zeros(self.hidden.shape)
        order_logits[rows[at], positions] = self._denoiser.order_logits(states, positions)
        return order_logits
