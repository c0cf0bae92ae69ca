"""A plain causal transformer: the usual model of text, trained for a given number of CPU seconds.

Pre-norm blocks with rotary positions (arXiv 2104.09864), a tied token head, and the loss of the next token at all
positions of a canvas. A canvas is read by itself, after one vector that stands for its beginning.
"""

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unveil.model.network.architecture import Architecture
from unveil.model.network.transformer import make_mlp
from unveil.training.step.muon import Muon

_ROTARY_BASE = 10_000.0
_BATCH_ROWS = 64


@dataclass(frozen=True)
class CausalSettings:
    """Muon for the matrices of blocks, AdamW for the rest, or AdamW alone where `matrix_rate` is 0; with warm-up and
    cosine decay over `seconds` of CPU time of this process, in float32."""

    seconds: float
    learning_rate: float
    matrix_rate: float = 0.02
    batch_size: int = 32
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_share: float = 0.05
    clip: float = 1.0
    seed: int = 0

    def share(self, progress: float) -> float:
        """Of a peak rate, after this share of the seconds, 0 to 1."""
        return min(1.0, progress / self.warmup_share) * (1 + math.cos(math.pi * progress)) / 2


class CausalBlock(nn.Module):
    """Causal self-attention and an MLP, each behind an RMSNorm and a residual."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        D, self.heads = architecture.width, architecture.heads
        self.attention_norm, self.mlp_norm = nn.RMSNorm(D, eps=1e-5), nn.RMSNorm(D, eps=1e-5)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.mlp = make_mlp(architecture)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        (B, L, D), H = x.shape, self.heads
        q, k, v = self.qkv(self.attention_norm(x)).view(B, L, 3, H, D // H).permute(2, 0, 3, 1, 4)  # [B, H, L, E] each
        attended = F.scaled_dot_product_attention(rotated(q, rotation), rotated(k, rotation), v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class CausalTransformer(nn.Module):
    """Of the width, layers, heads and MLP of an `architecture`, with one vocabulary for all positions."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        (self.num_tokens,), D = set(architecture.vocabulary_sizes), architecture.width
        self.embedding = nn.Embedding(self.num_tokens + 1, D)  # the last one stands for the beginning
        self.blocks = nn.ModuleList(CausalBlock(architecture) for _ in range(architecture.layers))
        self.norm = nn.RMSNorm(D, eps=1e-5)
        self.bias = nn.Parameter(torch.zeros(self.num_tokens))
        cosine, sine = rotary(architecture.length, D // architecture.heads)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self._initialise(architecture.layers)

    def _initialise(self, layers: int) -> None:
        """As GPT-2: normal of 0.02, less by depth where a residual branch ends."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                is_end = name.endswith(("out.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=0.02 * ((2 * layers) ** -0.5 if is_end else 1.0))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of each token given those before it, of ids [B, L]: [B, L, V] float32."""
        L = tokens.shape[1]
        beginning = tokens.new_full((len(tokens), 1), self.num_tokens)
        x = self.embedding(torch.cat([beginning, tokens[:, :-1]], dim=1))
        rotation = self.get_buffer("cosine")[:L], self.get_buffer("sine")[:L]
        for block in self.blocks:
            x = block(x, rotation)
        return F.linear(self.norm(x), self.embedding.weight[: self.num_tokens], self.bias).float()

    def loss(self, tokens: Tensor) -> Tensor:
        """Minus the log-likelihood of each token given those before it, of ids [B, L]: [B, L] nats."""
        return F.cross_entropy(self(tokens).flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)


def rotary(length: int, size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angles, [L, size / 2] each (equation 15 of arXiv 2104.09864)."""
    frequencies = _ROTARY_BASE ** (-torch.arange(0, size, 2).float() / size)
    angles = torch.arange(length).float()[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """The halves of each vector turned against each other, [B, H, L, E] -> [B, H, L, E]."""
    cosine, sine = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


def train_causal(architecture: Architecture, rows: Tensor, settings: CausalSettings) -> tuple[CausalTransformer, int]:
    """The network after `settings.seconds` on clean canvases [N, L], and the number of its steps."""
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    net = CausalTransformer(architecture)
    optimizers = optimizers_of(net, settings)
    num_steps, start, used = 0, time.process_time(), 0.0
    order = torch.empty(0, dtype=torch.long)
    while used < settings.seconds:
        if len(order) < settings.batch_size:
            order = torch.cat([order, torch.randperm(len(rows), generator=generator)])
        chosen, order = order[: settings.batch_size], order[settings.batch_size :]
        for optimizer, peak in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * settings.share(used / settings.seconds)
        loss = net.loss(rows[chosen].long()).mean()
        net.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
        for optimizer, _ in optimizers:
            optimizer.step()
        num_steps += 1
        used = time.process_time() - start
    return net.eval(), num_steps


def optimizers_of(net: CausalTransformer, settings: CausalSettings) -> list[tuple[torch.optim.Optimizer, float]]:
    """Each with its peak rate."""
    blocks = [parameter for parameter in net.blocks.parameters() if parameter.ndim == 2]
    others = [parameter for name, parameter in net.named_parameters() if not name.startswith("blocks.")]
    others += [parameter for parameter in net.blocks.parameters() if parameter.ndim != 2]
    has_muon, decay = settings.matrix_rate > 0.0, settings.weight_decay
    matrices = [parameter for parameter in others if parameter.ndim == 2] + ([] if has_muon else blocks)
    vectors = [parameter for parameter in others if parameter.ndim != 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)
    muon = [(Muon([{"params": blocks}]), settings.matrix_rate)] if has_muon else []
    return [(adamw, settings.learning_rate), *muon]


@torch.inference_mode()
def causal_nats(net: CausalTransformer, rows: Tensor) -> Tensor:
    """Minus the exact log-likelihood of each token of canvases [N, L], each canvas read by itself: [N, L] float64."""
    return torch.cat([net.loss(batch).double() for batch in torch.split(rows, _BATCH_ROWS)])
