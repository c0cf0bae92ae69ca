"""What is scored, as plain values: one order along which a template's known positions are paid for. Torch-free.

A template shows some positions C and hides the others. Scored are the known ones: revealed one by one in an order of
their own, each at `-log p(x_i | what is known by then)`, while hidden positions stay masked from the first to the last.
That integrates them out: it is the exact probability that a decoder which reveals C first writes these values there,
whatever it would write at the hidden positions afterwards (those probabilities sum to one). Of the known ones some may
be given: visible from the start, and free.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unveil.model.decoding.canvas import UNREAD, Canvas, OrderPolicy, SamplingParams

_KNOWN_AHEAD: tuple[OrderPolicy, ...] = ("left_to_right", "right_to_left", "explicit")


@dataclass(frozen=True, slots=True)
class Term:
    """What one position cost: `-log p` in nats, in the step in which it was revealed, counted from 0. `is_absorbed`: an
    end that another one decided, in its step and for nothing."""

    position: int
    step: int
    nats: float
    is_absorbed: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """One order on its way. `canvas` is what the denoiser sees now; `pending` are the positions still to be scored.

    `truth[i]` is 0 where the template hides `i`. Orders choose among pending positions alone: hidden ones never
    compete. `canvas.params` give the order, `canvas.seed` its noise, keyed as the sampler's, so that scoring a finished
    sample with its own seed goes the way that the sample was made.
    """

    canvas: Canvas
    truth: tuple[int, ...]
    pending: tuple[bool, ...]

    @classmethod
    def start(
        cls,
        tokens: tuple[int, ...],
        hidden: tuple[bool, ...],
        *,
        seed: int,
        params: SamplingParams,
        given: tuple[bool, ...] | None = None,
    ) -> "Chain":
        """Nothing revealed yet but what is `given`, none if None; a hidden position cannot be. An explicit order lists
        every known position that is not given once."""
        given = given or (False,) * len(tokens)
        assert not any(g and h for g, h in zip(given, hidden, strict=True))
        begun = Canvas.start(tokens, tuple(not g for g in given), seed=seed, params=params)
        truth = tuple(0 if h else x for x, h in zip(tokens, hidden, strict=True))
        return cls(begun, truth, tuple(not (h or g) for h, g in zip(hidden, given, strict=True)))

    @property
    def is_complete(self) -> bool:
        return not any(self.pending)

    @property
    def num_pending(self) -> int:
        return sum(self.pending)

    def order_ahead(self) -> tuple[int, ...] | None:
        """The whole order where it follows from the chain alone, else None: the model has a say at every step."""
        params = self.canvas.params
        if params.order not in _KNOWN_AHEAD:
            return None
        if params.explicit_order is not None:
            return params.explicit_order
        positions = tuple(i for i, is_pending in enumerate(self.pending) if is_pending)
        return positions if params.order == "left_to_right" else positions[::-1]

    def after(self, positions: Sequence[int], absorbed: Sequence[int] = ()) -> "Chain":
        """These positions revealed, one each in the steps that come next, and what ends among them decided."""
        tokens, hidden, pending = list(self.canvas.tokens), list(self.canvas.hidden), list(self.pending)
        ranks = list(self.canvas.ranks)
        for rank, position in enumerate(positions, self.canvas.num_forwards + 1):
            assert pending[position]
            tokens[position], hidden[position], pending[position] = self.truth[position], False, False
            ranks[position] = rank
        for position in absorbed:
            assert pending[position]
            tokens[position], hidden[position], pending[position] = self.truth[position], False, False
            ranks[position] = UNREAD
        num_done = len(positions)
        canvas = replace(
            self.canvas,
            tokens=tuple(tokens),
            hidden=tuple(hidden),
            ranks=tuple(ranks),
            step=self.canvas.step + num_done,
            num_forwards=self.canvas.num_forwards + num_done,
        )
        return Chain(canvas, self.truth, tuple(pending))

    def link(self, order: Sequence[int], step: int) -> "Chain":
        """The one step of an order known ahead, as a chain of its own: independent of all others, so it may run now."""
        later = self.after(order[:step])
        return replace(later, pending=tuple(i == order[step] for i in range(len(self.pending))))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over orders. `standard_error`: None where a single drawn order cannot tell, 0 where nothing was drawn."""

    mean: float
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class PositionScore:
    """`mean_step`: when the position was revealed, counted from 0, on average over orders."""

    position: int
    nats: Estimate
    mean_step: float


@dataclass(frozen=True, slots=True)
class Score:
    """`nelbo` sums `positions`, which are in position order. `log_likelihood` is exact; None where orders are drawn."""

    nelbo: Estimate
    log_likelihood: float | None
    positions: tuple[PositionScore, ...]


def summarise(orders: Sequence[Sequence[Term]], *, is_drawn: bool) -> Score:
    """One template's orders, each with a term for every known position, in any sequence."""
    assert orders
    assert is_drawn or len(orders) == 1
    by_position = [sorted(terms, key=lambda term: term.position) for terms in orders]
    positions = []
    for terms in zip(*by_position, strict=True):
        assert len({term.position for term in terms}) == 1
        nats = _estimate([term.nats for term in terms], is_drawn=is_drawn)
        positions.append(PositionScore(terms[0].position, nats, math.fsum(term.step for term in terms) / len(terms)))
    nelbo = _estimate([math.fsum(term.nats for term in terms) for terms in by_position], is_drawn=is_drawn)
    return Score(nelbo, None if is_drawn else 0.0 - nelbo.mean, tuple(positions))


def _estimate(values: Sequence[float], *, is_drawn: bool) -> Estimate:
    n = len(values)
    mean = math.fsum(values) / n
    if not is_drawn:
        return Estimate(mean, 0.0)
    if n == 1:
        return Estimate(mean, None)
    return Estimate(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n))
