"""A canvas on its way from template to sample, as one plain value. Knows no torch, so it crosses process boundaries.

A canvas is everything the sampler needs to go on: tokens, which of them are hidden, how far it has come, its seed and
its sampling parameters. Two equal canvases have equal futures, whatever batch they step in.

Ends absorb: behind the end of a sequence stands nothing but ends, and before a token no end can stand. For data that
obey this, both are certain, so a denoiser's law is conditioned on them exactly: an end is not offered before a known
token, the other ids share its mass; and what lies behind a revealed end is revealed with it, at no cost and without a
forward. Nobody reads these ends, as if they came last in the order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args

OrderPolicy = Literal[
    "learned", "uniform", "left_to_right", "right_to_left", "confidence", "margin", "entropy", "explicit"
]
ORDER_POLICIES: tuple[OrderPolicy, ...] = get_args(OrderPolicy)
Measure = Literal["confidence", "margin", "entropy"]  # as in `model.confidence`, which needs torch
Outcome = Literal["complete", "budget", "contradiction"]
MAX_SEED = 2**63 - 1
HIDDEN = -1  # the rank of what is not known yet
UNREAD = 1 << 30  # the rank of an end that another end decided (`model.decoding.canvas`)


class Part(NamedTuple):
    """The values of an id that are meant: of what a tokenizer shows for it, those between two shares in [0, 1] of its
    mass (numbers inside a bin, say)."""

    token_id: int
    low: float = 0.0
    high: float = 1.0


Shown = tuple[int, float]
"""An id, and the uniform by which a tokenizer draws what it shows."""


class Rule(Protocol):
    """What several positions may hold together; a plain value."""

    @property
    def positions(self) -> tuple[int, ...]:
        """Those that are hidden at the start."""
        ...

    def allowed(self, position: int, known: Mapping[int, Shown]) -> tuple[Part, ...] | None:
        """What one of them may hold beside what is known, its parts in no particular order; None for anything."""
        ...

    def holds(self, known: Mapping[int, Shown]) -> bool:
        """Whether it is kept, once all of them are known."""
        ...


@dataclass(frozen=True, slots=True)
class Condition:
    """What positions may hold, something each, and how often one sample may be tried: at least once
    (`model.decoding.attempts.condition`). Parts of one id do not overlap. `rules`: what they may hold together, each a
    `Rule`, which crosses to another process pickled."""

    parts: Mapping[int, tuple[Part, ...]]
    attempts: int
    rules: tuple[Any, ...] = ()

    def __hash__(self) -> int:
        return hash((tuple(self.parts.items()), self.attempts))


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one canvas is decoded. At most one of `tokens_per_step`, `steps`, `threshold`; none = one position a step.

    `order_temperature` goes with `learned` only (1 = the model's own law, 0 = always the likeliest next position).
    `temperature` 0 = the likeliest token. `top_k` and `top_p` apply after the temperature, in that order.
    `explicit_order` lists every hidden position once, and goes with `order="explicit"` only. `backtrack` is the most
    forwards whose reveals may be taken back at contradictions (`model.decoding.attempts.search`); None = nothing is
    taken back. `condition`: what a sample must be like; the positions of its parts come first. `top_logprobs`: so many
    of the likeliest ids are told with each reveal. `num_left`: with no more positions than these hidden a sample is
    complete; none of its steps may reveal several.
    """

    order: OrderPolicy = "learned"
    explicit_order: tuple[int, ...] | None = None
    order_temperature: float = 1.0
    tokens_per_step: int | None = None
    steps: int | None = None
    threshold: float | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    backtrack: int | None = None
    condition: Condition | None = None
    top_logprobs: int = 0
    num_left: int = 0
    # What follows from these, once a request instead of once a step.
    is_order_drawn: bool = field(init=False, repr=False, compare=False)
    measure: Measure | None = field(init=False, repr=False, compare=False)
    is_single: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """`is_order_drawn`: the order is random, not one that follows from the canvas and the model. `measure`: how
        sure the model is of every hidden position, which the order or the threshold needs at each step. `is_single`:
        one position a step."""
        strides = (self.tokens_per_step, self.steps, self.threshold)
        assert sum(x is not None for x in strides) <= 1
        assert (self.order == "explicit") == (self.explicit_order is not None)
        assert self.backtrack is None or self.steps is None, "a time grid does not go back"
        assert self.condition is None or (self.backtrack is None and self.steps is None)
        assert not self.num_left or (strides == (None, None, None) and self.backtrack is None)
        is_drawn = self.order == "uniform" or (self.order == "learned" and self.order_temperature > 0)
        measure = self.order if self.order in get_args(Measure) else None if self.threshold is None else "confidence"
        object.__setattr__(self, "is_order_drawn", is_drawn)
        object.__setattr__(self, "measure", measure)
        object.__setattr__(self, "is_single", strides == (None, None, None))


@dataclass(frozen=True, slots=True)
class Reveal:
    """One position becoming known. Log-probabilities are natural and of the unmodified model.

    `order_logprob` is None where the order is deterministic. `uniform` in (0, 1) is the noise from which a tokenizer
    draws the shown value (a number inside its bin, say); it is keyed by the seed and the position alone.
    `is_absorbed`: an end that another one decided, in its step. `top`: the likeliest ids that could be there, the
    likeliest first, with their log-probabilities.
    """

    position: int
    token_id: int
    step: int
    logprob: float
    order_logprob: float | None
    uniform: float
    is_absorbed: bool = False
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Passed:
    """What a decision passed over. `path`: what had been revealed before it. `others`: what could be revealed instead,
    in the order in which they would be drawn. `depth`: the forwards that a path through here rests on."""

    path: tuple[Reveal, ...]
    others: tuple[Reveal, ...]
    depth: int


@dataclass(frozen=True, slots=True)
class Search:
    """How far a search has come (`model.decoding.attempts.search`): the reveals that stand, what has been passed over.

    `depth`: the forwards that `path` rests on. `num_unrevealed`: reveals that were taken back. `outcome` is "complete"
    until a contradiction stays: "budget" where more forwards would be needed, "contradiction" where nothing is left.
    """

    path: tuple[Reveal, ...] = ()
    passed: tuple[Passed, ...] = ()
    depth: int = 0
    num_unrevealed: int = 0
    outcome: Outcome = "complete"


class Weights(NamedTuple):
    """So many weights: the logarithms of their sum, and of that of their squares. Those of long sequences are far
    smaller than a float can be."""

    num: int = 0
    log_sum: float = -math.inf
    log_sum_squares: float = -math.inf

    def and_one(self, log_weight: float) -> "Weights":
        """With one more."""
        return self.and_all(Weights(1, log_weight, 2 * log_weight))

    def and_all(self, others: "Weights") -> "Weights":
        """With all of these."""
        sums = (_log_add(a, b) for a, b in zip(self[1:], others[1:], strict=True))
        return Weights(self.num + others.num, *sums)

    @property
    def mean(self) -> float:
        return math.exp(self.log_sum) / self.num

    @property
    def effective_number(self) -> float:
        """How many equal weights they are worth, Kish's: sum ** 2 / sum of squares."""
        return min(math.exp(2 * self.log_sum - self.log_sum_squares), self.num)

    @property
    def standard_error(self) -> float:
        """Of their mean."""
        spread = max(self.num / self.effective_number - 1, 0.0)  # their variance over their mean squared
        return self.mean * math.sqrt(spread / self.num)


_NO_WEIGHTS = Weights()


def _log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    low, high = min(a, b), max(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


@dataclass(frozen=True, slots=True)
class Trials:
    """How far a condition has come (`model.decoding.attempts.condition`): `path`, what the attempt that is being made
    revealed, and the logarithms of its weight and of that of its first forward.

    Of the attempts made: their `weights`; `kept`, the path of one drawn by weight; `num_forwards`, those that no reveal
    rests on. `is_over`: one has been taken; `is_exact`: by rejection. `is_unmet`: none had any weight.
    """

    path: tuple[Reveal, ...] = ()
    log_weight: float = 0.0
    log_first: float = 0.0
    weights: Weights = _NO_WEIGHTS
    kept: tuple[Reveal, ...] = ()
    num_forwards: int = 0
    is_over: bool = False
    is_exact: bool = False
    is_unmet: bool = False


@dataclass(frozen=True, slots=True)
class Canvas:
    """One sample being made. `tokens[i]` is 0 wherever `hidden[i]`.

    `ranks[i]` says when i became known: 0 from the start, k in the k-th denoising step, HIDDEN if it is not, UNREAD if
    nobody reads it. What a network that is autoregressive along its order says next depends on the order of the past,
    so ranks are part of it.

    `step` counts the sample's own steps and keys the noise of its order; with `steps` set it is the index of the time
    step, so it may run ahead of `num_forwards`, the denoising steps really computed. `num_at_start` is the number of
    positions hidden at the start. `search` is set where `params.backtrack` is, `trials` where `params.condition` is.
    """

    tokens: tuple[int, ...]
    hidden: tuple[bool, ...]
    seed: int
    params: SamplingParams
    num_at_start: int
    ranks: tuple[int, ...]
    step: int = 0
    num_forwards: int = 0
    search: Search | None = None
    trials: Trials | None = None

    @classmethod
    def start(cls, tokens: tuple[int, ...], hidden: tuple[bool, ...], *, seed: int, params: SamplingParams) -> "Canvas":
        """A fresh canvas; what stands at hidden positions is dropped."""
        assert len(tokens) == len(hidden)
        clean = tuple(0 if h else x for x, h in zip(tokens, hidden, strict=True))
        ranks = tuple(HIDDEN if h else 0 for h in hidden)
        search = None if params.backtrack is None else Search()
        trials = None if params.condition is None else Trials()
        own = {"search": search, "trials": trials}
        return cls(clean, tuple(hidden), seed, params, sum(hidden), ranks, **own)  # type: ignore[arg-type]

    @property
    def is_complete(self) -> bool:
        """Whether it takes no more steps: nothing is hidden, or its condition was met by no attempt."""
        num_left = self.params.num_left
        if self.is_unmet:
            return True
        return self.hidden.count(True) <= num_left if num_left else True not in self.hidden

    @property
    def is_unmet(self) -> bool:
        return self.trials is not None and self.trials.is_unmet

    @property
    def length(self) -> int:
        return len(self.tokens)


def last_token(canvas: Canvas, end_id: int) -> int:
    """The last position known to hold something else than an end; -1 if there is none."""
    known = zip(canvas.tokens, canvas.hidden, strict=True)
    return max((i for i, (token_id, is_hidden) in enumerate(known) if not is_hidden and token_id != end_id), default=-1)


def absorbed_by(position: int, open_: Sequence[bool]) -> list[int]:
    """Which of the open positions an end at `position` decides."""
    return [i for i in range(position + 1, len(open_)) if open_[i]]


def absorbed_end(position: int, end_id: int, step: int, params: SamplingParams) -> Reveal:
    """The reveal of an end that another one decided in this step: it is certain."""
    top = ((end_id, 0.0),) if params.top_logprobs else ()
    return Reveal(position, end_id, step, 0.0, None, 0.5, is_absorbed=True, top=top)


def apply(canvas: Canvas, reveals: Sequence[Reveal]) -> Canvas:
    """The canvas with these reveals in it, of one step or of several in turn: ready for its next step. A search goes on
    by `model.decoding.attempts.search.advance`."""
    assert canvas.search is None
    tokens, hidden, ranks = list(canvas.tokens), list(canvas.hidden), list(canvas.ranks)
    rank, at = canvas.num_forwards, -1
    for reveal in reveals:
        position = reveal.position
        assert hidden[position]
        if reveal.step != at:
            rank, at = rank + 1, reveal.step
        tokens[position], hidden[position] = reveal.token_id, False
        ranks[position] = UNREAD if reveal.is_absorbed else rank
    own = canvas.seed, canvas.params, canvas.num_at_start
    return Canvas(tuple(tokens), tuple(hidden), *own, tuple(ranks), at + 1, rank, trials=canvas.trials)
