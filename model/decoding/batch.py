"""Canvases in front of a denoiser: what it is shown, and what it says where it is asked.

Canvases that look alike share a row of the forward: the samples of a prompt at their first step, identical requests.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from unveil.model.confidence import LANES, Measure, sureness
from unveil.model.decoding.canvas import Canvas, OrderPolicy, SamplingParams
from unveil.model.decoding.noise import Floats
from unveil.model.decoding.order_keys import Bools, Ints, padded_width
from unveil.model.denoiser import Begun, Denoiser, Stages, in_stages

Kind = TypeVar("Kind", bound=Hashable)


@dataclass(frozen=True)
class Batch:
    """Canvases in front of a denoiser that has begun.

    `row_of` [B] is each canvas's row of the states, `hidden` [B, W] what each hides, `order_logits` [B, W] the
    denoiser's, on the host, zero where no canvas's order is learned.
    """

    stages: Stages
    begun: Begun
    canvases: Sequence[Canvas]
    params: Sequence[SamplingParams]
    row_of: Ints
    hidden: Bools
    order_logits: Floats

    def log_p(self, rows: Ints, positions: Ints) -> Tensor:
        """Log-probabilities [R, V'] at `positions` [R] of the canvases `rows` [R], on the denoiser's device."""
        states, num = self.begun.states, len(rows)
        missing = self.stages.rounded(num) - num
        if missing:
            rows, positions = (np.concatenate([x, np.zeros(missing, np.int64)]) for x in (rows, positions))
        flat = torch.from_numpy(self.row_of[rows] * states.shape[1] + positions).to(states.device)
        found = states.reshape(-1, states.shape[2]).index_select(0, flat)
        where = torch.from_numpy(positions).to(states.device)
        return log_probabilities(self.stages.finish(found, where)[:num])


def begin(denoise: Denoiser | Stages, canvases: Sequence[Canvas], *, device: torch.device | None = None) -> Batch:
    """The first stage of a forward over all canvases that look different; ValueError if its answer does not fit."""
    stages = in_stages(denoise)
    looks: dict[tuple[tuple[int, ...], tuple[bool, ...]], int] = {}
    row_of = [looks.setdefault((canvas.tokens, canvas.hidden), len(looks)) for canvas in canvases]
    tokens, hidden, lengths = _arrays(tuple(looks))
    begun = stages.begin(*(torch.from_numpy(x).to(device) for x in (tokens, hidden, lengths)))
    if begun.states.shape[:2] != tokens.shape or begun.order_logits.shape != tokens.shape:
        shapes = f"{tuple(begun.states.shape)} and {tuple(begun.order_logits.shape)}"
        raise ValueError(f"the denoiser answered {shapes} for canvases {tokens.shape}")
    params = [canvas.params for canvas in canvases]
    width = padded_width(tokens.shape[1])
    logits = np.zeros((len(looks), width))
    if any(own.order == "learned" for own in params):
        logits[:, : tokens.shape[1]] = begun.order_logits.cpu().numpy()
    wide = np.zeros((len(looks), width), np.bool_)
    wide[:, : tokens.shape[1]] = hidden
    if len(looks) < len(canvases):
        wide, logits = wide[row_of], logits[row_of]
    return Batch(stages, begun, canvases, params, np.array(row_of), wide, logits)


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
        at, positions = batch.hidden[firsts].nonzero()
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
