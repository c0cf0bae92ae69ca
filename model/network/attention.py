"""Self-attention over the positions of a canvas."""

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Streams(Enum):
    """What a batch is of, and what is wanted back."""

    ONE = "canvases"
    BOTH = "contents, then questions: both"
    QUESTIONS = "contents, then questions: the questions"


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention, [B, H, L, E] each; `bias`, which broadcasts to [B, H, L, L], is added to the scores.

    On a CPU in bf16 the written-out form beats torch's fused kernel on short sequences by far; in float32, and on
    accelerators, the fused kernel is taken (`benchmarks/speed/attention.py`).
    """
    if _is_fused(q):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, H, L, L]
    if bias is not None:
        scores = scores + bias.to(q.dtype)
    attended: Tensor = scores.softmax(-1).to(v.dtype) @ v
    return attended


def _is_fused(q: Tensor) -> bool:
    return q.device.type != "cpu" or q.dtype == torch.float32


def attend_streams(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """`attend` for two streams, contents first, [2 B, H, L, E] each; `bias` [2 B, H or 1, L, L] forbids what is not to
    be read yet. XLNet's two-stream attention, arXiv 1906.08237."""
    B = len(q) // 2
    return torch.cat([attend(q[:B], k[:B], v[:B], bias[:B]), attend_questions(q[B:], k, v, bias[B:])])


def attend_questions(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """The questions' half of it: queries [B, H, L, E] and bias [B, H or 1, L, L] of theirs, keys and values of both.

    They read the contents, and every position itself in place of its content, so that a question of a position does
    not see its answer, not even by rounding.
    """
    B, _, L, E = q.shape
    itself = torch.eye(L, dtype=torch.bool, device=q.device)
    if _is_fused(q):
        keys, values = torch.cat([k[:B], k[B:]], -2), torch.cat([v[:B], v[B:]], -2)
        asks = torch.cat([bias.masked_fill(itself, -torch.inf), bias.masked_fill(~itself, -torch.inf)], -1)
        return attend(q, keys, values, asks)
    q = q * E**-0.5
    scores = torch.where(itself, (q * k[B:]).sum(-1, keepdim=True), q @ k[:B].transpose(-2, -1))  # [B, H, L, L]
    weights = (scores + bias.to(q.dtype)).softmax(-1).to(v.dtype)
    attended: Tensor = weights.masked_fill(itself, 0.0) @ v[:B] + weights.diagonal(dim1=-2, dim2=-1)[..., None] * v[B:]
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
    """A `RelativeBias` for rows with a slot in front that is nowhere: what each head adds where that one reads or is
    read."""

    def __init__(self, length: int, heads: int) -> None:
        super().__init__()
        self.places = RelativeBias(length, heads)
        self.front = nn.Parameter(torch.zeros(heads, 2))  # where it is read, and where it reads

    def forward(self, length: int) -> Tensor:
        """[H, l, l] for rows of `length` l slots, the one in front included."""
        read, reads = self.front[:, :1, None], self.front[:, 1:, None].expand(-1, 1, length)
        below = torch.cat([read.expand(-1, length - 1, 1), self.places(length - 1)], -1)
        return torch.cat([reads, below], 1)


PlaceBias = RelativeBias | PairBias | SlotBias


class Attention(nn.Module):
    """Multi-head self-attention in both directions, [B, L, D] -> [B, L, D]; with a `bias`, biased by place."""

    def __init__(self, width: int, heads: int, *, bias: PlaceBias | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.relative = bias

    def forward(self, x: Tensor, bias: Tensor | None, *, streams: Streams = Streams.ONE) -> Tensor:
        """Of two streams, [2 B, L, D], `bias` says who may read what; of questions alone [B, L, D] come back."""
        (B, L, D), H = x.shape, self.heads
        if self.relative is not None:
            bias = self.relative(L) if bias is None else self.relative(L) + bias
        q, k, v = self.qkv(x).view(B, L, 3, H, D // H).permute(2, 0, 3, 1, 4)  # [B, H, L, E] each
        if streams is Streams.ONE:
            attended = attend(q, k, v, bias)
        elif streams is Streams.BOTH:
            assert bias is not None
            attended = attend_streams(q, k, v, bias)
        else:
            assert bias is not None
            attended = attend_questions(q[B // 2 :], k, v, bias[B // 2 :])
        return self.out(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def visible_bias(hidden: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor:
    """Added to the scores so that each position reads what is visible, itself, and nothing else: hidden [B, L] and
    lengths [B] -> [B, 1, L, L]. What it says of a position then does not depend on which others are hidden with it."""
    L = hidden.shape[1]
    places = torch.arange(L, device=hidden.device)
    is_read = (~hidden & (places < lengths[:, None]))[:, None, :] | (places == places[:, None])
    return torch.zeros_like(is_read, dtype=dtype).masked_fill(~is_read, -torch.inf)[:, None]


def stream_bias(ranks: Tensor, lengths: Tensor, dtype: torch.dtype) -> Tensor:
    """The same for two streams, contents and questions, [B, L] -> [2 B, 1, L, L]: both read what was revealed before
    them, and themselves. `ranks` are 0 where a row was visible from the start, and all that was is read by all; then
    1, 2, ..., and positions of one rank do not read each other."""
    places = torch.arange(ranks.shape[1], device=ranks.device)
    reader, read = ranks[:, :, None], ranks[:, None, :]
    is_read = torch.cat([(read < reader) | (read == 0), read < reader]) & (places < lengths[:, None])[
        :, None, :
    ].repeat(2, 1, 1)
    is_read = is_read | (places == places[:, None])
    return torch.zeros_like(is_read, dtype=dtype).masked_fill(~is_read, -torch.inf)[:, None]


def padding_bias(lengths: Tensor, L: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores so that padding is never attended to: [B] -> [B, 1, 1, L]."""
    padding = torch.arange(L, device=lengths.device) >= lengths[:, None]
    return torch.zeros_like(padding, dtype=dtype).masked_fill(padding, -torch.inf)[:, None, None]
