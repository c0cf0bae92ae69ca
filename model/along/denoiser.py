"""A network along its order behind the sampler's interface: canvases in, logits of what is asked out.

Contents are computed once and kept in rows of memory (`model.along.rows`); a step computes the contents of what was
revealed last and the questions of what is asked next, in one forward.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unveil.model.along.forward import LEAST_ROWS, Along, Run, Slots
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
        return min(self.most, self.shapes.rows_of(self.network.architecture.length + self.network.size.first))

    @torch.inference_mode()
    def open(self, canvases: Sequence[Canvas]) -> "OpenedAlong":
        """See `model.decoding.batch.Served`."""
        return OpenedAlong(self, canvases, self.hold(canvases))

    def hold(self, canvases: Sequence[Canvas], *, first: int = 0) -> list[Held]:
        """A row for each from `first` on, all but the latest contents computed, those asked alike side by side."""
        held = self.rows.find(canvases)
        self.rows.arrange(held, [self.asks_apart(canvas) for canvas in canvases], first=first)
        if len(held) > 1:
            self.prefill(held)
        for own in held:
            while len(own.pending) > (_FEW_CONTENTS if len(held) > 1 else self.shapes.most_contents):
                self.extend(own, own.pending[: self.shapes.most_contents])
        return held

    def asks_apart(self, canvas: Canvas) -> bool:
        """Whether everything that a canvas hides is asked at every step."""
        return canvas.params.measure is not None or (self.looks and canvas.params.order == "learned")

    def release(self, canvases: Iterable[Canvas]) -> None:
        """See `model.decoding.batch.Served`."""
        for canvas in canvases:
            self.rows.release(canvas)

    def prefill(self, held: Sequence[Held]) -> None:
        """The contents of what was known at the start, each prompt once. They read each other, so a prompt is one
        forward, of several prompts at a time."""
        new = [own for own in held if own.num_contents == 0 and own.prompt]
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
        """The last states [N, D] of all questions, one canvas's after the other's."""
        pieces: list[Tensor] = []
        places: list[list[int]] = [[0] * len(ask.questions) for ask in asks]
        offset = 0
        for number, turns in enumerate(self._rounds(asks)):
            for run in self._runs(asks, turns, writes=number == 0):
                states = self._forward([asks[i] for i in run], [turns[i] for i in run], writes=number == 0)
                B, A, D = states.shape
                for b, i in enumerate(run):
                    first = offset + (b + 1) * A - len(turns[i])
                    for k, j in enumerate(turns[i]):
                        places[i][j] = first + k
                pieces.append(states.reshape(B * A, D))
                offset += B * A
        flat = sent(np.array([place for own in places for place in own]), self.network.size.device)
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).index_select(0, flat)

    def ask_in_rows(self, asks: Sequence[Ask]) -> Tensor:
        """As `ask`, of canvases in the sequence of their rows, side by side, whose questions have columns of their own:
        one forward where a shape is large enough."""
        num_asked = max(len(ask.questions) for ask in asks)
        num_slots = max(len(ask.contents) for ask in asks) + num_asked
        if asks[-1].held.row - asks[0].held.row != len(asks) - 1 or self.shapes.rows_of(num_slots) < len(asks):
            return self.ask(asks)
        states = self._forward(asks, [range(len(ask.questions)) for ask in asks], writes=True)
        B, A, D = states.shape
        if num_asked == 1:
            return states[: len(asks), -1]
        ends = [((b + 1) * A, len(ask.questions)) for b, ask in enumerate(asks)]
        flat = np.array([end - num + k for end, num in ends for k in range(num)])
        return states.reshape(B * A, D).index_select(0, sent(flat, states.device))

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
                self._forward(run, [()] * len(run), writes=True)
                run = []
            run.append(ask)
        self._forward(run, [()] * len(run), writes=True)

    def _done(self, held: Held, num: int) -> None:
        held.num_contents += num
        del held.pending[:num]

    def _rounds(self, asks: Sequence[Ask]) -> list[dict[int, list[int]]]:
        """Which questions of which canvas each forward takes: of one canvas only those with different columns."""
        rounds: list[dict[int, list[int]]] = []
        for i, ask in enumerate(asks):
            if self.asks_apart(ask.held.canvas):
                rounds = rounds or [{}]
                rounds[0][i] = list(range(len(ask.questions)))
                continue
            taken: dict[int, int] = {}
            for j, (position, _) in enumerate(ask.questions):
                column = self.network.own_column(position)
                number = taken.get(column, 0)
                taken[column] = number + 1
                if number == len(rounds):
                    rounds.append({})
                rounds[number].setdefault(i, []).append(j)
        return rounds

    def _runs(self, asks: Sequence[Ask], turns: dict[int, list[int]], *, writes: bool) -> Iterable[list[int]]:
        """The canvases of a round in forwards: neighbours in memory, no more than a shape takes."""
        num_contents = max(len(asks[i].contents) for i in turns) if writes else 0
        num_asked = self._num_asked([asks[i] for i in turns], turns.values())
        most = self.shapes.rows_of(num_contents + num_asked)
        run: list[int] = []
        for i in sorted(turns, key=lambda i: asks[i].held.row):
            own = asks[i].held
            if run:
                last = asks[run[-1]].held
                is_alike = self.asks_apart(own.canvas) == self.asks_apart(last.canvas)
                if own.row != last.row + 1 or not is_alike or len(run) == most:
                    yield run
                    run = []
            run.append(i)
        yield run

    def _forward(self, asks: Sequence[Ask], turns: Sequence[Sequence[int]], *, writes: bool) -> Tensor:
        """One forward over rows next to each other: last states [B, A, D], each row's questions at its end. Without
        `writes` the contents are there already."""
        num_contents = max(len(ask.contents) for ask in asks) if writes else 0
        is_apart = self.asks_apart(asks[0].held.canvas) and any(turns)
        B, Q, A = self.shapes.fit(len(asks), num_contents, self._num_asked(asks, turns))
        self.rows.reach(asks[0].held.row + B)
        slots, filled = self.network.empty(B, Q), 0
        for b, (ask, own) in enumerate(zip(asks, turns, strict=True)):
            start = ask.held.num_contents
            self._fill(slots, b, ask if writes and len(own) == len(ask.questions) else _part(ask, own, writes=writes))
            filled = max(filled, start + len(ask.contents))
        useful = sum(len(own) + (len(ask.contents) if writes else 0) for ask, own in zip(asks, turns, strict=True))
        self.count(Counts(B * Q, useful))
        first, memory = asks[0].held, self.rows.memory
        return self.run(memory, first.row, slots, num_contents=filled, num_asked=A, is_apart=is_apart)

    def _num_asked(self, asks: Sequence[Ask], turns: Collection[Sequence[int]]) -> int:
        """How many questions of a row a shape must hold: those that stand apart are never fewer than LEAST_ROWS."""
        num_asked = max(map(len, turns))
        is_apart = num_asked and any(self.asks_apart(ask.held.canvas) for ask in asks)
        return max(num_asked, LEAST_ROWS) if is_apart else num_asked

    def _fill(self, slots: Slots, b: int, ask: Ask) -> None:
        ids, columns, turns, ranks, positions = slots.all[:, b]
        network, is_apart = self.network, self.asks_apart(ask.held.canvas)
        first = network.size.first + ask.held.num_contents
        for s, (position, token_id, rank) in enumerate(ask.contents):
            ids[s], positions[s] = token_id + network.offsets[position], position
            columns[s], turns[s], ranks[s] = first + s, rank or 1, rank
        for s, (position, turn) in enumerate(ask.questions, len(ids) - len(ask.questions)):
            columns[s], turns[s], positions[s] = 0 if is_apart else network.own_column(position), turn, position


def _part(ask: Ask, turns: Sequence[int], *, writes: bool) -> Ask:
    return Ask(ask.held, ask.contents if writes else (), [ask.questions[j] for j in turns])


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
