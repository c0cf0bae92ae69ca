"""The denoiser of sudoku grids: a state for each cell and digit, nine planes that share all weights.

Cells talk along rows, columns and boxes, and a cell's nine digits among themselves, through sums: each sends a value,
and each receives the mean of its row, its column, its box (in its own plane) and of its cell's digits. So renaming
digits, or permuting rows, columns, bands and stacks, moves the answer with it (transposing does not: rows and columns
have weights of their own). The blocks are gone through `num_loops` times, or until all hidden cells of a grid are
certain.
"""

from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unveil.model.denoiser import Prediction, cross_entropy
from unveil.model.network.architecture import GRID_CELLS, GRID_SIDE, Architecture, OrderSpec
from unveil.model.network.base import Depths, Network, initialise
from unveil.model.network.order_heads import Reading, make_order_head, read_one

_HIDDEN, _IS, _IS_NOT = range(3)  # what a plane knows of a cell
_SIDE = GRID_SIDE
_STRETCH = 4  # loops between two looks at whether a grid is done
_DOUBTFUL = 0.01  # a cell is certain if its likeliest digit lacks no more of probability 1
_LEARNED = 0.01  # nats a hidden cell: below, further loops would teach next to nothing


class PlaneBlock(nn.Module):
    """[B, 9, 9, 9, D] -> the same: rows, columns and digits, and a state each."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        D, M = architecture.width, architecture.mlp_width
        self.norm = nn.RMSNorm(D, eps=1e-5)
        self.values = nn.Linear(D, 4 * D)
        self.own = nn.Linear(D, M)
        self.received = nn.ModuleList(nn.Linear(D, M, bias=False) for _ in range(4))
        self.out = nn.Linear(M, D)
        self.dropout = nn.Dropout(architecture.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """One round of messages, behind a norm and a residual."""
        u = self.norm(x)
        row, column, digit, box = (
            F.relu(F.linear(u, weight, bias), inplace=True)
            for weight, bias in zip(self.values.weight.chunk(4), self.values.bias.chunk(4), strict=True)
        )
        to_row, to_column, to_digit, to_box = self.received
        heard = self.own(u)
        heard += to_row(row.mean(2, keepdim=True))  # a mean is one for all nine that hear it
        heard += to_column(column.mean(1, keepdim=True))
        heard += to_digit(digit.mean(3, keepdim=True))
        in_boxes = _boxes(heard)
        in_boxes += to_box(_boxes(box).mean((2, 4), keepdim=True))
        return x + self.dropout(self.out(F.relu(heard, inplace=True)))  # type: ignore[no-any-return]


class PlaneNetwork(Network):
    """A denoiser in the sense of `model.denoiser.Denoiser`."""

    is_one_by_one = True

    def __init__(self, architecture: Architecture, order: OrderSpec) -> None:
        super().__init__()
        D = architecture.width
        self.architecture, self.order = architecture, order
        self.knowledge = nn.Parameter(torch.zeros(3, D))
        self.blocks = nn.ModuleList(PlaneBlock(architecture) for _ in range(architecture.layers))
        self.norm = nn.RMSNorm(D, eps=1e-5)
        self.score = nn.Linear(D, 1)
        self.order_head = make_order_head(architecture, order)
        self.apply(initialise)
        nn.init.normal_(self.knowledge, std=0.5)
        nn.init.normal_(self.score.weight, std=D**-0.5)
        for block in self.blocks:
            assert isinstance(block, PlaneBlock)
            for layer in (block.values, block.own, *block.received):
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=D**-0.5)

    def sketch(self) -> "PlaneNetwork":
        """See `model.denoiser.sketch_of`: the blocks once. Shares all weights."""
        once = copy(self)
        once.architecture = self.architecture.model_copy(update={"num_loops": 1})
        return once

    def forward(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        """See `model.denoiser.Denoiser`. Grids are never padded, so `lengths` says nothing."""
        return self._predict(self.read(tokens, hidden, lengths))

    def read(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Reading:
        """See `Network.read`. A cell's state is the mean of its digits' states, each as likely as it is: an order
        belongs to cells. A processor takes one grid after the other, so that each stops by itself."""
        size = 1 if tokens.device.type == "cpu" and not torch.is_grad_enabled() else len(tokens)
        parts = [
            self._read(x, unseen)
            for x, unseen in zip(torch.split(tokens, size), torch.split(hidden, size), strict=True)
        ]
        states, logits = (torch.cat(part) for part in zip(*parts, strict=True))
        return Reading(states, logits, tokens, hidden, lengths)

    def _read(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """States of cells and logits. A grid that is done keeps what it has while others go on: shapes stay as they
        are, so that no grid's last bits hang on another."""
        state = x = self._told(tokens, hidden)
        logits, is_on = None, torch.ones_like(hidden[:, 0])
        for number in range(1, self.architecture.num_loops + 1):
            x = self._loop(x)
            if number % _STRETCH and number < self.architecture.num_loops:
                continue
            said = self._logits(x)
            logits = said if logits is None else torch.where(is_on[:, None, None], said, logits)
            state = torch.where(is_on[:, None, None, None, None], x, state)
            doubt = 1.0 - logits.detach().softmax(-1).amax(-1)  # [B, 81]
            is_on = is_on & ((doubt * hidden).amax(-1) > _DOUBTFUL)
            if not is_on.any():
                break
        assert logits is not None
        return _of_cells(state, logits), logits

    def depths(self, tokens: Tensor, hidden: Tensor, lengths: Tensor, *, backward_loops: int | None = None) -> Depths:
        """See `Network.depths`. After every `backward_loops` grids whose hidden digits are learned go no further: what
        they have stands, without a gradient, for the loops that they are spared."""
        num_loops, rows = self.architecture.num_loops, torch.arange(len(tokens), device=tokens.device)
        state = x = self._told(tokens, hidden)
        said: list[Tensor] = []
        for number in range(1, num_loops + 1):
            x = self._loop(x)
            logits = self._logits(x)
            said.append(said[-1].detach().index_copy(0, rows, logits) if said else logits)
            if number < num_loops and (backward_loops is None or number % backward_loops):
                continue
            state = state.detach().to(x.dtype).index_copy(0, rows, x.detach())
            if number == num_loops:
                break
            losses = cross_entropy(logits.detach(), tokens[rows]).masked_fill(~hidden[rows], 0.0)
            is_on = losses.sum(-1) > _LEARNED * hidden[rows].sum(-1)
            x, rows = x[is_on].detach(), rows[is_on]
            if not len(rows):
                said += [said[-1].detach()] * (num_loops - number)
                break
        prediction = self._predict(Reading(_of_cells(state, said[-1]), said[-1], tokens, hidden, lengths))
        return Depths(prediction, tuple(said[:-1]))

    def _told(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """[B, 81] ids and bools -> [B, 9, 9, 9, D], what each plane knows of each cell."""
        digits = torch.arange(_SIDE, device=tokens.device)
        known = torch.where(tokens[..., None] == digits, _IS, _IS_NOT)  # [B, 81, 9]
        x = self.knowledge[known.masked_fill(hidden[..., None], _HIDDEN)]
        return x.view(-1, _SIDE, _SIDE, _SIDE, x.shape[-1])

    def _loop(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        """States -> float32 logits [B, 81, 9]."""
        return read_one(self.score, self.norm(x)).float().reshape(-1, GRID_CELLS, _SIDE)


def _of_cells(x: Tensor, logits: Tensor) -> Tensor:
    """[B, 9, 9, 9, D] and [B, 81, 9] -> [B, 81, D]."""
    states = x.detach().reshape(-1, GRID_CELLS, _SIDE, x.shape[-1])
    return (states * logits.detach().softmax(-1)[..., None].to(x.dtype)).sum(2)


def _boxes(x: Tensor) -> Tensor:
    """[B, 9, 9, 9, D] -> [B, 3, 3, 3, 3, 9, D]: bands, rows within, stacks, columns within."""
    return x.view(len(x), 3, 3, 3, 3, *x.shape[3:])
