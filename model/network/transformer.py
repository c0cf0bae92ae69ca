"""The denoiser: a bidirectional transformer with a token head and an order head on one trunk.

Pre-norm with RMSNorm, time-independent (a masked diffusion model's optimal denoiser does not depend on t), learned
positions, one mask embedding instead of a mask token: hidden positions are told by a bool, not by an id.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unveil.model.denoiser import Prediction
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.attention import (
    Attention,
    PairBias,
    PlaceBias,
    RelativeBias,
    padding_bias,
)
from unveil.model.network.base import Depths, Network, initialise
from unveil.model.network.order_heads import Reading, make_order_head


class SquaredReLU(nn.Module):
    """max(x, 0) ** 2, arXiv 2109.08668."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


def make_mlp(architecture: Architecture) -> nn.Sequential:
    """A block's: to `mlp_width`, the activation, and back."""
    D, wide = architecture.width, architecture.mlp_width
    activation = nn.GELU(approximate="tanh") if architecture.activation == "gelu" else SquaredReLU()
    return nn.Sequential(nn.Linear(D, wide), activation, nn.Linear(wide, D))


class Block(nn.Module):
    """Attention and an MLP, each behind an RMSNorm and a residual."""

    def __init__(self, architecture: Architecture, bias: PlaceBias | None) -> None:
        super().__init__()
        D = architecture.width
        self.attention_norm, self.mlp_norm = nn.RMSNorm(D, eps=1e-5), nn.RMSNorm(D, eps=1e-5)
        self.attention = Attention(D, architecture.heads, bias=bias)
        self.mlp = make_mlp(architecture)
        self.dropout = nn.Dropout(architecture.dropout)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), bias))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))  # type: ignore[no-any-return]


def _place_bias(architecture: Architecture) -> PlaceBias | None:
    if architecture.relative_bias:
        return RelativeBias(architecture.length, architecture.heads)
    return PairBias(architecture.length, architecture.heads) if architecture.pair_bias else None


class TokenHead(nn.Module):
    """Tied to the embedding: logits over each position's own vocabulary, or over the shared one."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(architecture.width, eps=1e-5)
        self.bias = nn.Parameter(torch.zeros(sum(architecture.vocabulary_sizes)))
        self.has_own = architecture.has_own_vocabularies
        sizes = torch.tensor(architecture.vocabulary_sizes)
        offsets = sizes.cumsum(0) - sizes
        ids = torch.arange(int(sizes.max()))
        self.register_buffer("absent", ids >= sizes[:, None], persistent=False)  # [L, V]
        self.register_buffer("rows", (offsets[:, None] + ids).clamp(max=int(sizes.sum()) - 1), persistent=False)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """`x` [B, L, D], `embedding` [sum of sizes, D] -> float32 logits [B, L, V], -inf at absent ids."""
        x = self.norm(x)
        if not self.has_own:
            return F.linear(x, embedding, self.bias).float()
        rows, absent = self.get_buffer("rows"), self.get_buffer("absent")
        weight = embedding[rows].transpose(1, 2)  # [L, D, V]
        logits = (x.transpose(0, 1) @ weight).transpose(0, 1).float() + self.bias[rows]  # [B, L, V]
        return logits.masked_fill(absent, -torch.inf)

    def at(self, x: Tensor, embedding: Tensor, positions: Tensor) -> Tensor:
        """States `x` [B, M, D] at `positions` [B, M] -> float32 logits [B, M, V], as `forward`."""
        if not self.has_own:
            return self(x, embedding)  # type: ignore[no-any-return]
        rows, absent = self.get_buffer("rows")[positions], self.get_buffer("absent")[positions]  # [B, M, V]
        logits = F.linear(self.norm(x), embedding, self.bias).float().gather(-1, rows)
        return logits.masked_fill(absent, -torch.inf)


def reading_bias(architecture: Architecture, lengths: Tensor, L: int, dtype: torch.dtype) -> Tensor | None:
    """[B, 1, 1, L], against attention to padding; None where there is none: a table's canvases are never padded."""
    return None if architecture.has_own_vocabularies else padding_bias(lengths, L, dtype)


class Transformer(Network):
    """The network of tables and text."""

    architecture: Architecture

    def __init__(self, architecture: Architecture, order: OrderSpec) -> None:
        super().__init__()
        self.architecture, self.order = architecture, order
        D, sizes = architecture.width, torch.tensor(architecture.vocabulary_sizes)
        self.embedding = nn.Embedding(int(sizes.sum()), D)
        self.position = nn.Parameter(torch.zeros(architecture.length, D))
        self.mask = nn.Parameter(torch.zeros(D))
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)  # [L] or [1]
        self.blocks = nn.ModuleList(Block(architecture, _place_bias(architecture)) for _ in range(architecture.layers))
        self.token_head = TokenHead(architecture)
        self.order_head = make_order_head(architecture, order)
        self._initialise()

    def embed(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """[B, L] ids and bools -> [B, L, D], before positions: the mask's embedding stands for what is hidden."""
        return torch.where(hidden[..., None], self.mask, self.embedding(tokens + self.get_buffer("offsets")))

    def forward(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        """See `model.denoiser.Denoiser`. One trunk pass feeds both heads."""
        return self._predict(self.read(tokens, hidden, lengths))

    def read(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Reading:
        """See `Network.read`. Padding is never attended to, so its content cannot matter."""
        x, bias = self._begin(tokens, hidden, lengths)
        for _ in range(self.architecture.num_loops):
            x = self._loop(x, bias)
        return Reading(x, self._logits(x), tokens, hidden, lengths)

    def depths(self, tokens: Tensor, hidden: Tensor, lengths: Tensor, *, backward_loops: int | None = None) -> Depths:
        """See `Network.depths`."""
        x, bias = self._begin(tokens, hidden, lengths)
        states: list[Tensor] = []
        for number in range(self.architecture.num_loops):
            is_cut = backward_loops is not None and number > 0 and number % backward_loops == 0
            x = self._loop(x.detach() if is_cut else x, bias)
            states.append(x)
        prediction = self._predict(Reading(x, self._logits(x), tokens, hidden, lengths))
        return Depths(prediction, tuple(map(self._logits, states[:-1])))

    def _logits(self, x: Tensor) -> Tensor:
        return self.token_head(x, self.embedding.weight)  # type: ignore[no-any-return]

    def _begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the first block is given, and each row's bias."""
        x = self.embed(tokens, hidden) + self.position[: tokens.shape[1]]  # [B, L, D]
        return x, reading_bias(self.architecture, lengths, x.shape[1], x.dtype)

    def _loop(self, x: Tensor, bias: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = block(x, bias)
        return x

    def _initialise(self) -> None:
        """Residual branches start small, so that depth does not scale the first activations."""
        self.apply(initialise)
        for parameter in (self.position, self.mask):
            nn.init.normal_(parameter, std=0.02)
        for block in self.blocks:
            assert isinstance(block, Block)
            for layer in (block.attention.out, block.mlp[2]):
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=0.02 * (2 * self.architecture.layers) ** -0.5)
