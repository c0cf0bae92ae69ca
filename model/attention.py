"""Self-attention over the positions of a canvas. Knows no network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        B, L, D = x.shape
        q, k, v = self.qkv(x).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)  # [B, H, L, E] each
        return self.out(attend(q, k, v, bias).transpose(1, 2).reshape(B, L, D))  # type: ignore[no-any-return]


def padding_bias(lengths: Tensor, L: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores so that padding is never attended to: [B] -> [B, 1, 1, L]."""
    padding = torch.arange(L, device=lengths.device) >= lengths[:, None]
    return torch.zeros_like(padding, dtype=dtype).masked_fill(padding, -torch.inf)[:, None, None]
