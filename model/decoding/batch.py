"""Canvases in front of a denoiser: what it is shown, and what it says where it is asked.

Canvases that look alike share a row of the forward: the samples of a prompt at their first step, identical requests.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from unveil.model.confidence import LANES, Measure, sureness
from unveil.model.decoding.attempts.condition import open_positions
from unveil.model.decoding.canvas import Canvas, OrderPolicy, SamplingParams, last_token
from unveil.model.decoding.noise import Floats
from unveil.model.decoding.order_keys import Bools, Ints, padded_width
from unveil.model.denoiser import Barring, Denoiser, Stages, in_stages, sent

Kind = TypeVar("Kind", bound=Hashable)


class Opened(Protocol):
    """Canvases in front of a denoiser, ready to be asked.

    `row_of` [B]: canvases that look alike have the same number. `hidden` [B, W]: what each hides. `order_logits`
    [B, W]: the denoiser's, on the host, any where no canvas's order is learned.
    """

    row_of: Ints
    hidden: Bools
    order_logits: Floats

    def logits(self, rows: Ints, positions: Ints) -> Tensor:
        """Token logits [R, V] at `positions` [R] of the canvases `rows` [R], on the denoiser's device."""
        ...

    def advance(self, canvases: Sequence[Canvas], revealed: Sequence[Sequence[int]]) -> None:
        """Tells what became of each canvas, and which positions were revealed. Of complete ones nothing is kept."""
        ...


class RowScorer(Protocol):
    """`Opened` of a denoiser that is autoregressive along its order."""

    def in_turn(self, orders: Sequence[Sequence[int]], truths: Sequence[Sequence[int]]) -> Tensor:
        """Token logits [N, V] of each canvas's hidden positions in the sequence of `orders`, as of their own turns, if
        what is revealed is what `truths` [B][L] says: one canvas's after the other's."""
        ...


class Served(Protocol):
    """A denoiser that takes canvases, `most` of them at a time, and may keep what it computed of them.

    `order_ahead` [W]: the order logits of every canvas; None where they depend on the canvas. `end_id`: the id that
    ends a sequence, None if none does.
    """

    most: int
    order_ahead: Floats | None
    end_id: int | None

    def open(self, canvases: Sequence[Canvas]) -> Opened:
        """Gets canvases ready, which are one step further than when they were opened last, or new, or come again."""
        ...

    def release(self, canvases: Iterable[Canvas]) -> None:
        """Drops what is kept of these canvases. They may come again."""
        ...


AnyDenoiser = Denoiser | Stages | Served | Barring


@dataclass(frozen=True)
class Batch:
    """Canvases in front of a denoiser, with their parameters; see `Opened`. `end_id`: the id that ends a sequence, if
    one does (`model.decoding.canvas`)."""

    opened: Opened
    canvases: Sequence[Canvas]
    params: Sequence[SamplingParams]
    barring: Barring | None = None
    end_id: int | None = None

    @cached_property
    def last_tokens(self) -> Ints:
        """The last position of each canvas that is known to hold no end, [B]."""
        assert self.end_id is not None
        return np.array([last_token(canvas, self.end_id) for canvas in self.canvases])

    @property
    def row_of(self) -> Ints:
        return self.opened.row_of

    @cached_property
    def hidden(self) -> Bools:
        """What may be revealed, [B, W]: all that is hidden, or first what a condition is about."""
        limited = [(row, open_positions(canvas)) for row, canvas in enumerate(self.canvases) if canvas.trials]
        if not any(positions for _, positions in limited):
            return self.opened.hidden
        hidden = self.opened.hidden.copy()
        for row, positions in limited:
            if positions:
                hidden[row] = False
                hidden[row, positions] = True
        return hidden

    @property
    def order_logits(self) -> Floats:
        return self.opened.order_logits

    def log_p(self, rows: Ints, positions: Ints) -> Tensor:
        """Log-probabilities [R, V'] at `positions` [R] of the canvases `rows` [R], on the denoiser's device."""
        logits = self.opened.logits(rows, positions)
        if self.barring is not None:
            logits = self.barring.bar(logits, torch.from_numpy(positions).to(logits.device))
        if self.end_id is not None:
            logits = bar_ends(logits, positions < self.last_tokens[rows], self.end_id)
        return log_probabilities(logits)


def begin(
    denoise: AnyDenoiser,
    canvases: Sequence[Canvas],
    *,
    device: torch.device | None = None,
    end_id: int | None = None,
) -> Batch:
    """Canvases ready to be asked; ValueError if the denoiser's answer does not fit. `end_id` is the id that ends a
    sequence, where the denoiser does not say so itself."""
    params = [canvas.params for canvas in canvases]
    barring = denoise if isinstance(denoise, Barring) else None
    inner = denoise.denoise if isinstance(denoise, Barring) else denoise
    end_id = getattr(inner, "end_id", None) if end_id is None else end_id
    if hasattr(inner, "open"):
        return Batch(inner.open(canvases), canvases, params, barring, end_id)
    opened = _WholeCanvases(in_stages(inner), canvases, device)
    return Batch(opened, canvases, params, barring, end_id)


def bar_ends(logits: Tensor, is_barred: Bools, end_id: int) -> Tensor:
    """Token logits [R, V] with no end where none can stand, [R]."""
    if not is_barred.any():
        return logits
    logits = logits.clone()
    logits[:, end_id].index_fill_(0, sent(is_barred.nonzero()[0], logits.device), -torch.inf)
    return logits


def release(denoise: AnyDenoiser, canvases: Iterable[Canvas]) -> None:
    """Drops what a denoiser keeps of these canvases, if it keeps anything."""
    inner = denoise.denoise if isinstance(denoise, Barring) else denoise
    if hasattr(inner, "release"):
        inner.release(canvases)


class _WholeCanvases:
    """`Opened` of a denoiser that computes whole canvases: the first stage of one forward over those that look
    different."""

    def __init__(self, stages: Stages, canvases: Sequence[Canvas], device: torch.device | None) -> None:
        looks: dict[tuple[tuple[int, ...], tuple[bool, ...]], int] = {}
        row_of = [looks.setdefault((canvas.tokens, canvas.hidden), len(looks)) for canvas in canvases]
        tokens, hidden, lengths = _arrays(tuple(looks))
        begun = stages.begin(*(torch.from_numpy(x).to(device) for x in (tokens, hidden, lengths)))
        if begun.states.shape[:2] != tokens.shape or begun.order_logits.shape != tokens.shape:
            shapes = f"{tuple(begun.states.shape)} and {tuple(begun.order_logits.shape)}"
            raise ValueError(f"the denoiser answered {shapes} for canvases {tokens.shape}")
        width = padded_width(tokens.shape[1])
        logits, wide = np.zeros((len(looks), width)), np.zeros((len(looks), width), np.bool_)
        if any(canvas.params.order == "learned" for canvas in canvases):
            logits[:, : tokens.shape[1]] = begun.order_logits.cpu().numpy()
        wide[:, : tokens.shape[1]] = hidden
        if len(looks) < len(canvases):
            wide, logits = wide[row_of], logits[row_of]
        self._stages, self._states = stages, begun.states
        self.row_of, self.hidden, self.order_logits = np.array(row_of), wide, logits

    def logits(self, rows: Ints, positions: Ints) -> Tensor:
        """See `Opened`."""
        states, num = self._states, len(rows)
        missing = self._stages.rounded(num) - num
        if missing:
            rows, positions = (np.concatenate([x, np.zeros(missing, np.int64)]) for x in (rows, positions))
        flat = torch.from_numpy(self.row_of[rows] * states.shape[1] + positions).to(states.device)
        found = states.reshape(-1, states.shape[2]).index_select(0, flat)
        return self._stages.finish(found, torch.from_numpy(positions).to(states.device))[:num]

    def advance(self, canvases: Sequence[Canvas], revealed: Sequence[Sequence[int]]) -> None:
        """See `Opened`. Nothing is kept."""


class Sureness:
    """How sure the denoiser is of all hidden positions of those canvases whose order or threshold asks, by measure."""

    def __init__(self, batch: Batch) -> None:
        self.measures = [own.measure for own in batch.params]
        self.values: dict[OrderPolicy, Floats] = {}  # [B, W] by measure, zero where nobody asks
        self._log_p: dict[OrderPolicy, tuple[Tensor, Ints]] = {}  # [N, V'], and [B, W] where a position's row is
        for measure, asking in groups(self.measures):
            if measure is not None:
                self._look(batch, measure, asking)

    def _look(self, batch: Batch, measure: Measure, asking: Sequence[int]) -> None:
        first_of: dict[int, int] = {}  # canvases that look alike are looked at once
        like = [first_of.setdefault(row, b) for row, b in zip(batch.row_of[asking].tolist(), asking, strict=True)]
        firsts = np.array(list(first_of.values()))
        at, positions = batch.opened.hidden[firsts].nonzero()
        rows = firsts[at]
        log_p = batch.log_p(rows, positions)
        values, places = np.zeros(batch.hidden.shape), np.zeros(batch.hidden.shape, np.int64)
        values[rows, positions] = sureness(log_p, measure).cpu().numpy()
        places[rows, positions] = np.arange(len(rows))
        if len(firsts) < len(asking):
            values[asking], places[asking] = values[like], places[like]
        self.values[measure], self._log_p[measure] = values, (log_p, places)

    def log_p(self, measure: Measure, rows: Ints, positions: Ints) -> Tensor:
        """As `Batch.log_p`, of what has been computed."""
        log_p, places = self._log_p[measure]
        return log_p[torch.from_numpy(places[rows, positions]).to(log_p.device)]


def collate(canvases: Sequence[Canvas], device: torch.device | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Canvases -> tokens [B, L], hidden [B, L], lengths [B], padded with visible zeros to the longest."""
    tokens, hidden, lengths = _arrays([(canvas.tokens, canvas.hidden) for canvas in canvases])
    return tuple(torch.from_numpy(x).to(device) for x in (tokens, hidden, lengths))  # type: ignore[return-value]


def _arrays(looks: Sequence[tuple[tuple[int, ...], tuple[bool, ...]]]) -> tuple[Ints, Bools, Ints]:
    lengths = [len(tokens) for tokens, _ in looks]
    L = max(lengths)
    tokens = np.array([own + (0,) * (L - len(own)) for own, _ in looks], dtype=np.int64)
    hidden = np.array([own + (False,) * (L - len(own)) for _, own in looks], dtype=np.bool_)
    return tokens, hidden, np.array(lengths, dtype=np.int64)


def log_probabilities(logits: Tensor) -> Tensor:
    """[R, V] -> float64 [R, V'], wider by ids that cannot be."""
    missing = -logits.shape[-1] % LANES
    if missing:
        logits = torch.nn.functional.pad(logits, (0, missing), value=-torch.inf)
    return logits.log_softmax(-1, dtype=torch.float64)


def groups(kinds: Sequence[Kind]) -> Iterable[tuple[Kind, list[int]]]:
    """Each kind, with the places where it stands."""
    if kinds and kinds.count(kinds[0]) == len(kinds):
        return [(kinds[0], list(range(len(kinds))))]
    found: dict[Kind, list[int]] = {}
    for place, kind in enumerate(kinds):
        found.setdefault(kind, []).append(place)
    return found.items()
