"""Late queries: contents are computed once, along the order; what is asked of them is asked late, and read by nobody.

A content is a revealed token at its own place. It reads the contents that were revealed before it and itself; what was
known at the start has rank 0, and reads all of rank 0. In front stands the beginning, a slot of rank 0. A query asks
for one position at one state of the row: it starts as the last content of that state, is told its position by gains and
shifts of its norms (AdaLN, arXiv 2212.09748), reads the contents of the state, and ends in the token head. Along a
reading order this is a causal transformer whose last layers are the queries'.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unveil.model.denoiser import Prediction
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.attention import PairBias, PlaceBias, SlotBias, attend
from unveil.model.network.base import Network, initialise
from unveil.model.network.order_heads import Reading, make_order_head
from unveil.model.network.transformer import Block, TokenHead, make_mlp

FRONT = 1  # slots before a row's positions


class Contents(NamedTuple):
    """Whole rows: `states` [B, S, D] of their slots, the beginning first; the `ranks` of these [B, S], and whether
    anybody reads them, `is_read` [B, S]."""

    states: Tensor
    ranks: Tensor
    is_read: Tensor


class QueryBlock(nn.Module):
    """Attention to contents and an MLP, each behind a norm that knows the place asked for, and a residual."""

    def __init__(self, architecture: Architecture, bias: PlaceBias | None) -> None:
        super().__init__()
        D, self.heads = architecture.width, architecture.heads
        self.content_norm = nn.RMSNorm(D, eps=1e-5)
        self.attention_norm, self.mlp_norm = nn.RMSNorm(D, eps=1e-5), nn.RMSNorm(D, eps=1e-5)
        self.places = nn.Parameter(torch.zeros(architecture.length, 4, D))  # gain and shift of each norm
        self.query, self.key_value = nn.Linear(D, D, bias=False), nn.Linear(D, 2 * D, bias=False)
        self.out = nn.Linear(D, D, bias=False)
        self.mlp = make_mlp(architecture)
        self.place_bias = bias
        self.dropout = nn.Dropout(architecture.dropout)

    def forward(self, x: Tensor, contents: Tensor, positions: Tensor, bias: Tensor) -> Tensor:
        """Queries `x` [B, M, D] for `positions` [B, M] or [1, M], contents [B, S, D]; `bias` [B, 1, M, S] is against
        what a query's state does not have."""
        (B, M, D), H, S = x.shape, self.heads, contents.shape[1]
        gain, shift, mlp_gain, mlp_shift = self.places[positions].unbind(-2)  # [B or 1, M, D] each
        q = self.query(torch.addcmul(shift, self.attention_norm(x), 1 + gain)).view(B, M, H, D // H).transpose(1, 2)
        k, v = self.key_value(self.content_norm(contents)).view(B, S, 2, H, D // H).permute(2, 0, 3, 1, 4)
        if self.place_bias is not None:
            bias = bias + self.place_bias(S)[:, positions + FRONT].transpose(0, 1)
        x = x + self.dropout(self.out(attend(q, k, v, bias).transpose(1, 2).flatten(2)))
        return x + self.dropout(self.mlp(torch.addcmul(mlp_shift, self.mlp_norm(x), 1 + mlp_gain)))  # type: ignore[no-any-return]


class LateQueries(Network):
    """The network of rows that are decoded along an order."""

    architecture: Architecture

    def __init__(self, architecture: Architecture, order: OrderSpec) -> None:
        super().__init__()
        assert architecture.query_layers
        self.architecture, self.order = architecture, order
        D, sizes = architecture.width, torch.tensor(architecture.vocabulary_sizes)
        self.embedding = nn.Embedding(int(sizes.sum()), D)
        self.position = nn.Parameter(torch.zeros(architecture.length, D))
        self.beginning, self.target = nn.Parameter(torch.zeros(D)), nn.Parameter(torch.zeros(architecture.length, D))
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)  # [L] or [1]
        self.blocks = nn.ModuleList(Block(architecture, _place_bias(architecture)) for _ in range(architecture.layers))
        self.query_blocks = nn.ModuleList(
            QueryBlock(architecture, _place_bias(architecture)) for _ in range(architecture.query_layers)
        )
        self.token_head = TokenHead(architecture)
        self.order_head = make_order_head(architecture, order)
        self._initialise()

    @property
    def all_blocks(self) -> Sequence[Block | QueryBlock]:
        """See `Network.all_blocks`."""
        return [cast("Block | QueryBlock", block) for block in (*self.blocks, *self.query_blocks)]

    def forward(self, tokens: Tensor, hidden: Tensor, lengths: Tensor, ranks: Tensor | None = None) -> Prediction:
        """See `model.denoiser.Denoiser`. One trunk pass feeds both heads. With `ranks` see `Network.in_turn`."""
        return self._predict(self.read_in_turn(tokens, hidden.long() if ranks is None else ranks, lengths))

    def read(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Reading:
        """See `Network.read`: all that is visible was so from the start."""
        return self.read_in_turn(tokens, hidden.long(), lengths)

    def predict_now(self, tokens: Tensor, hidden: Tensor, lengths: Tensor, ranks: Tensor) -> Prediction:
        """See `Network.predict_now`."""
        return self._predict(self.read_in_turn(tokens.masked_fill(hidden, 0), ranks, lengths))

    def read_in_turn(self, tokens: Tensor, ranks: Tensor, lengths: Tensor) -> Reading:
        """See `Network.read_in_turn`."""
        x = self.ask(self.contents(tokens, ranks, lengths), self._everywhere(tokens), ranks)
        return Reading(x, self.token_head(x, self.embedding.weight), tokens, ranks > 0, lengths)

    def answers(
        self, tokens: Tensor, turns: Tensor, lengths: Tensor, positions: Tensor, asked_at: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`in_turn` of clean `tokens` [B, L], and token logits [B, M, V] of queries for `positions` [B, M] before the
        turns `asked_at` [B, M], in one forward."""
        contents = self.contents(tokens, turns, lengths)
        in_turn = self.ask(contents, self._everywhere(tokens), turns)
        asked = self.ask(contents, positions, asked_at)
        return self.token_head(in_turn, self.embedding.weight), self.token_head.at(
            asked, self.embedding.weight, positions
        )

    def contents(self, tokens: Tensor, ranks: Tensor, lengths: Tensor) -> Contents:
        """Of clean `tokens` [B, L], all of them, as of their `ranks` [B, L] (`Network.in_turn`)."""
        B, L = tokens.shape
        x = self.embedding(tokens + self.get_buffer("offsets")) + self.position[:L]
        x = torch.cat([self.beginning.expand(B, 1, -1), x], 1)  # [B, S, D]
        ranks = F.pad(ranks, (FRONT, 0))
        is_read = torch.arange(L + FRONT, device=tokens.device) < lengths[:, None] + FRONT
        reads = ((ranks[:, None] < ranks[..., None]) | (ranks[:, None] == 0)) & is_read[:, None]
        reads = reads | torch.eye(L + FRONT, dtype=torch.bool, device=tokens.device)
        bias = _against(~reads, x.dtype)
        for block in self.blocks:
            x = block(x, bias)
        return Contents(x, ranks, is_read)

    def ask(self, contents: Contents, positions: Tensor, turns: Tensor) -> Tensor:
        """Last states [B, M, D] of queries for `positions` [B, M] or [1, M], each before its turn, `turns` [B, M] >= 1:
        what was revealed in ranks below is known to it."""
        ranks, S = contents.ranks, contents.ranks.shape[1]
        turns = turns.clamp(min=1)  # nobody asks for what is known, but without a content to read its state is NaN
        is_known = (ranks[:, None] < turns[..., None]) & contents.is_read[:, None]  # [B, M, S]
        arrival = torch.where(ranks > 0, ranks * S + torch.arange(S, device=ranks.device), 0)
        last = arrival[:, None].masked_fill(~is_known, 0).argmax(-1)  # [B, M]; the beginning where all is of rank 0
        x = contents.states.gather(1, last[..., None].expand(-1, -1, contents.states.shape[-1]))
        x = x + self.target[positions]
        bias = _against(~is_known, x.dtype)
        for block in self.query_blocks:
            x = block(x, contents.states, positions, bias)
        return x

    def _everywhere(self, tokens: Tensor) -> Tensor:
        return torch.arange(tokens.shape[1], device=tokens.device)[None]

    def _initialise(self) -> None:
        """Residual branches start small, so that depth does not scale the first activations."""
        self.apply(initialise)
        for parameter in (self.position, self.beginning, self.target):
            nn.init.normal_(parameter, std=0.02)
        depth = self.architecture.layers + self.architecture.query_layers
        for block in self.all_blocks:
            out = block.attention.out if isinstance(block, Block) else block.out
            for layer in (out, cast(nn.Linear, block.mlp[2])):
                nn.init.normal_(layer.weight, std=0.02 * (2 * depth) ** -0.5)


def _against(is_forbidden: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, M, S] bool -> [B, 1, M, S]: minus infinity where it is so, else 0."""
    return torch.zeros_like(is_forbidden, dtype=dtype).masked_fill(is_forbidden, -torch.inf)[:, None]


def _place_bias(architecture: Architecture) -> PlaceBias | None:
    """By slots: the beginning has a place of its own."""
    if architecture.relative_bias:
        return SlotBias(architecture.length, architecture.heads)
    return PairBias(architecture.length + FRONT, architecture.heads) if architecture.pair_bias else None
