"""Self-attention over the positions of a canvas."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention, [B, H, L, E] each; `bias`, which broadcasts to [B, H, L, L], is added to the scores.

    On a CPU in bf16 the written-out form beats torch's fused kernel on short sequences by far; in float32, and on
    accelerators, the fused kernel is taken (`benchmarks/speed/attention.py`).
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


class PairBias(nn.Module):
    """What each head adds to the score of one position that reads another: `length ** 2` weights, one for each pair.

    For rows in which every place has a meaning of its own, as a table's columns have: which column depends on which is
    then learned directly, not through products of embeddings (`benchmarks/orders/known_order.py` says what that is
    worth). Weights are stored an eighth as large as they act, since one rate serves all and attention needs scores of
    several.
    """

    GAIN = 8.0

    def __init__(self, length: int, heads: int) -> None:
        super().__init__()
        self.length = length
        self.weight = nn.Parameter(0.02 * torch.randn(heads, length, length))  # of the reader, of the read

    def forward(self, length: int) -> Tensor:
        """[H, l, l] for canvases of `length` l."""
        return self.GAIN * self.weight[:, :length, :length]


class SlotBias(nn.Module):
    """A `RelativeBias` for rows with a slot in front that is nowhere: what each head adds where that one is read. It
    reads as evenly as itself and what is known at the start allow: nothing is added."""

    def __init__(self, length: int, heads: int) -> None:
        super().__init__()
        self.places = RelativeBias(length, heads)
        self.front = nn.Parameter(torch.zeros(heads))

    def forward(self, length: int) -> Tensor:
        """[H, l, l] for rows of `length` l slots, the one in front included."""
        read = self.front[:, None, None].expand(-1, length - 1, 1)
        return F.pad(torch.cat([read, self.places(length - 1)], -1), (0, 0, 1, 0))


PlaceBias = RelativeBias | PairBias | SlotBias


class Attention(nn.Module):
    """Multi-head self-attention in both directions, [B, L, D] -> [B, L, D]; with a `bias`, biased by place."""

    def __init__(self, width: int, heads: int, *, bias: PlaceBias | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.relative = bias

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        (B, L, D), H = x.shape, self.heads
        if self.relative is not None:
            bias = self.relative(L) if bias is None else self.relative(L) + bias
        q, k, v = self.qkv(x).view(B, L, 3, H, D // H).permute(2, 0, 3, 1, 4)  # [B, H, L, E] each
        return self.out(attend(q, k, v, bias).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def padding_bias(lengths: Tensor, L: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores so that padding is never attended to: [B] -> [B, 1, 1, L]."""
    padding = torch.arange(L, device=lengths.device) >= lengths[:, None]
    return torch.zeros_like(padding, dtype=dtype).masked_fill(padding, -torch.inf)[:, None, None]
