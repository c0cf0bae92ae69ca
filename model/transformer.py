"""The denoiser: a bidirectional transformer with a token head and an order head on one trunk. Knows no order, no loss.

Pre-norm with RMSNorm, time-independent (a masked diffusion model's optimal denoiser does not depend on t), learned
positions, one mask embedding instead of a mask token: hidden positions are told by a bool, not by an id.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.denoiser import Prediction
from model.manifest import Architecture, OrderSpec
from model.network import Depths, Network, Reading, initialise
from model.order_heads import make_order_head


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention, [B, H, L, E] each; `bias`, which broadcasts to [B, H, L, L], is added to the scores.

    On a CPU in bf16 the written-out form beats torch's fused kernel on short sequences by far; in float32, and on
    accelerators, the fused kernel is taken (`benchmarks/attention.py`).
    """
    if q.device.type != "cpu" or q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, H, L, L]
    if bias is not None:
        scores = scores + bias.to(q.dtype)
    attended: Tensor = scores.softmax(-1).to(v.dtype) @ v
    return attended


class RelativeBias(nn.Module):
    """What each head adds to the score of a position so many places away, arXiv 1910.10683 without buckets.

    Heads begin as readers of one neighbour each, to the left and to the right in turn, farther and vaguer from pair to
    pair, and the last one of all alike: from an even start a masked model of text is long in finding its neighbours.
    """

    def __init__(self, length: int, heads: int) -> None:
        super().__init__()
        self.length = length
        distances = torch.arange(1 - length, length).float()  # of the position read from the one that reads
        pair = torch.arange(heads) // 2 + 1.0
        place = pair * torch.where(torch.arange(heads) % 2 == 0, -1.0, 1.0)
        slope = 2.0 / pair**2
        slope[-1] = 0.0
        self.embedding = nn.Parameter(-slope[:, None] * (distances - place[:, None]).abs())  # [H, 2 L - 1]

    def forward(self, length: int) -> Tensor:
        """[H, l, l] for canvases of `length` l."""
        places = torch.arange(length, device=self.embedding.device)
        return self.embedding[:, places - places[:, None] + self.length - 1]


class Attention(nn.Module):
    """Multi-head self-attention in both directions, [B, L, D] -> [B, L, D]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.heads = architecture.heads
        self.qkv = nn.Linear(architecture.width, 3 * architecture.width, bias=False)
        self.out = nn.Linear(architecture.width, architecture.width, bias=False)
        self.relative = RelativeBias(architecture.length, self.heads) if architecture.relative_bias else None

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        B, L, D = x.shape
        if self.relative is not None:
            bias = self.relative(L) if bias is None else self.relative(L) + bias
        q, k, v = self.qkv(x).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)  # [B, H, L, E] each
        return self.out(attend(q, k, v, bias).transpose(1, 2).reshape(B, L, D))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a GELU MLP, each behind an RMSNorm and a residual."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        D = architecture.width
        self.attention_norm, self.mlp_norm = nn.RMSNorm(D, eps=1e-5), nn.RMSNorm(D, eps=1e-5)
        self.attention = Attention(architecture)
        self.mlp = nn.Sequential(
            nn.Linear(D, architecture.mlp_width), nn.GELU(approximate="tanh"), nn.Linear(architecture.mlp_width, D)
        )
        self.dropout = nn.Dropout(architecture.dropout)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), bias))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))  # type: ignore[no-any-return]


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


class Trunk(nn.Module):
    """Embeddings and blocks, without a head: partly hidden canvases in, a state a position out."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        D, sizes = architecture.width, torch.tensor(architecture.vocabulary_sizes)
        self.embedding = nn.Embedding(int(sizes.sum()), D)
        self.position = nn.Parameter(torch.zeros(architecture.length, D))
        self.mask = nn.Parameter(torch.zeros(D))
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)  # [L] or [1]
        self.blocks = nn.ModuleList(Block(architecture) for _ in range(architecture.layers))

    def embed(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """[B, L] ids and bools -> [B, L, D], before positions: the mask's embedding stands for what is hidden."""
        return torch.where(hidden[..., None], self.mask, self.embedding(tokens + self.get_buffer("offsets")))

    def trunk(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> list[Tensor]:
        """[B, L] ids and bools -> [B, L, D] states after each loop. Padding is never attended to, so its content cannot
        matter."""
        L = tokens.shape[1]
        x = self.embed(tokens, hidden) + self.position[:L]  # [B, L, D]
        bias = None
        if not self.architecture.has_own_vocabularies:  # a table's canvases are never padded
            padding = torch.arange(L, device=tokens.device) >= lengths[:, None]
            bias = torch.zeros_like(padding, dtype=x.dtype).masked_fill(padding, -torch.inf)[:, None, None]
        states: list[Tensor] = []
        for _ in range(self.architecture.loops):
            for block in self.blocks:
                x = block(x, bias)
            states.append(x)
        return states

    def initialise(self) -> None:
        """To be called last by whoever adds the heads: residual branches start small, so that depth does not scale the
        first activations."""
        self.apply(initialise)
        for parameter in (self.position, self.mask):
            nn.init.normal_(parameter, std=0.02)
        for block in self.blocks:
            assert isinstance(block, Block)
            for layer in (block.attention.out, block.mlp[2]):
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=0.02 * (2 * self.architecture.layers) ** -0.5)


class Transformer(Trunk, Network):
    """The network of tables and text."""

    architecture: Architecture

    def __init__(self, architecture: Architecture, order: OrderSpec) -> None:
        super().__init__(architecture)
        self.order = order
        self.token_head = TokenHead(architecture)
        self.order_head = make_order_head(architecture, order)
        self.initialise()

    def forward(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        """See `model.denoiser.Denoiser`. One trunk pass feeds both heads."""
        states, logits = self.read(tokens, hidden, lengths)
        return Prediction(logits, self.order_head(states, logits))

    def read(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Reading:
        """See `Network.read`."""
        x = self.trunk(tokens, hidden, lengths)[-1]
        return Reading(x, self._logits(x))

    def depths(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Depths:
        """See `Network.depths`."""
        *earlier, x = self.trunk(tokens, hidden, lengths)
        logits = self._logits(x)
        return Depths(Prediction(logits, self.order_head(x, logits)), tuple(map(self._logits, earlier)))

    def _logits(self, x: Tensor) -> Tensor:
        return self.token_head(x, self.embedding.weight)  # type: ignore[no-any-return]
