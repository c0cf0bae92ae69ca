"""The denoiser: a bidirectional transformer with a token head and an order head on one trunk. Knows no order, no loss.

Pre-norm with RMSNorm, time-independent (a masked diffusion model's optimal denoiser does not depend on t), learned
positions, one mask embedding instead of a mask token: hidden positions are told by a bool, not by an id.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.denoiser import Prediction
from model.manifest import Architecture, OrderKind, OrderSpec

FIXED_GAP = 64.0  # log-weights this far apart make Plackett-Luce deterministic: float64 Gumbel noise spans 40


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention, [B, H, L, E] each; `bias` [B, 1, 1, L] is added to the scores.

    On a CPU in bf16 the written-out form beats torch's fused kernel on short sequences by far; in float32, and on
    accelerators, the fused kernel is taken (`benchmarks/attention.py`).
    """
    if q.device.type != "cpu" or q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, H, L, L]
    if bias is not None:
        scores = scores + bias
    attended: Tensor = scores.softmax(-1).to(v.dtype) @ v
    return attended


class Attention(nn.Module):
    """Multi-head self-attention in both directions, [B, L, D] -> [B, L, D]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.heads = architecture.heads
        self.qkv = nn.Linear(architecture.width, 3 * architecture.width, bias=False)
        self.out = nn.Linear(architecture.width, architecture.width, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        B, L, D = x.shape
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


class OrderHead(nn.Module):
    """Log-weights of the next position to reveal, in the gauge of mean zero over all positions.

    `uniform` has none, `fixed` has them far apart, `global` learns one a position, `contextual` adds to that what a
    small head reads off the trunk, so that the next position may depend on what is revealed.
    """

    def __init__(self, architecture: Architecture, order: OrderSpec) -> None:
        super().__init__()
        self.kind: OrderKind = order.kind
        log_w = torch.zeros(architecture.length)
        if order.fixed is not None:
            log_w[list(order.fixed)] = -FIXED_GAP * torch.arange(architecture.length).float()
        if order.kind in ("global", "contextual"):
            self.log_w = nn.Parameter(log_w)
        else:
            self.register_buffer("log_w", log_w, persistent=False)
        if order.kind == "contextual":
            D = architecture.width
            self.head = nn.Sequential(nn.RMSNorm(D, eps=1e-5), nn.Linear(D, D), nn.GELU(), nn.Linear(D, 1))

    def global_log_w(self) -> Tensor:
        """[L] float32 with mean zero: the context-free part of the law, all of it unless the kind is contextual."""
        return self.log_w - self.log_w.mean()

    def forward(self, x: Tensor) -> Tensor:
        """Trunk states [B, L, D] -> log-weights [B, L]."""
        log_w = self.global_log_w()[: x.shape[1]].expand(x.shape[:2])
        if self.kind != "contextual":
            return log_w
        return log_w + self.head(x).squeeze(-1).float()  # type: ignore[no-any-return]


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

    def trunk(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Tensor:
        """[B, L] ids and bools -> [B, L, D] states. Padding is never attended to, so its content cannot matter."""
        L = tokens.shape[1]
        x = self.embed(tokens, hidden) + self.position[:L]  # [B, L, D]
        bias = None
        if not self.architecture.has_own_vocabularies:  # a table's canvases are never padded
            padding = torch.arange(L, device=tokens.device) >= lengths[:, None]
            bias = torch.zeros_like(padding, dtype=x.dtype).masked_fill(padding, -torch.inf)[:, None, None]
        for block in self.blocks:
            x = block(x, bias)
        return x

    def initialise(self) -> None:
        """To be called last by whoever adds the heads: residual branches start small, so that depth does not scale the
        first activations."""
        self.apply(_initialise)
        for parameter in (self.position, self.mask):
            nn.init.normal_(parameter, std=0.02)
        for block in self.blocks:
            assert isinstance(block, Block)
            for layer in (block.attention.out, block.mlp[2]):
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=0.02 * (2 * self.architecture.layers) ** -0.5)


class Transformer(Trunk):
    """A denoiser in the sense of `model.denoiser.Denoiser`."""

    def __init__(self, architecture: Architecture, order: OrderSpec) -> None:
        if order.fixed is not None and len(order.fixed) != architecture.length:
            raise ValueError(f"a fixed order of {len(order.fixed)} positions for a model of {architecture.length}")
        super().__init__(architecture)
        self.order = order
        self.token_head = TokenHead(architecture)
        self.order_head = OrderHead(architecture, order)
        self.initialise()

    def forward(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        """See `model.denoiser.Denoiser`. One trunk pass feeds both heads."""
        x = self.trunk(tokens, hidden, lengths)
        return Prediction(self.token_head(x, self.embedding.weight), self.order_head(x))

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
