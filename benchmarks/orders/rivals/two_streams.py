"""Two streams, contents and questions, as XLNet has them (arXiv 1906.08237): a rival of late queries, served nowhere.

Both streams go through all layers with the same weights. Each reads the contents that were revealed before it, and
itself; a question is a mask at the place that is asked for.
"""

import torch
from torch import Tensor, nn

from unveil.model.network.architecture import Architecture
from unveil.model.network.attention import RelativeBias, attend
from unveil.model.network.base import initialise
from unveil.model.network.transformer import Block, TokenHead


class TwoStreams(nn.Module):
    """Of the width, layers, heads and MLP of an `architecture`, with a relative bias."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        D, L = architecture.width, architecture.length
        self.embedding = nn.Embedding(sum(architecture.vocabulary_sizes), D)
        self.position, self.mask = nn.Parameter(torch.empty(L, D)), nn.Parameter(torch.empty(D))
        biases = [RelativeBias(L, architecture.heads) for _ in range(architecture.layers)]
        self.blocks = nn.ModuleList(Block(architecture, bias) for bias in biases)
        self.token_head = TokenHead(architecture)
        self.apply(initialise)
        for parameter in (self.position, self.mask):
            nn.init.normal_(parameter, std=0.02)

    def in_turn(self, tokens: Tensor, ranks: Tensor, lengths: Tensor) -> Tensor:
        """See `model.network.base.Network.in_turn`."""
        is_there = (torch.arange(tokens.shape[1]) < lengths[:, None])[:, None]
        reader, read = ranks[:, :, None], ranks[:, None, :]
        itself = torch.eye(tokens.shape[1], dtype=torch.bool)
        contents = ((read < reader) | (read == 0)) & is_there | itself
        questions = torch.cat([(read < reader) & is_there & ~itself, itself.expand(len(tokens), -1, -1)], -1)
        bias = [_against(contents), _against(questions)]
        x = self.embedding(tokens) + self.position
        asked = (self.mask + self.position).expand_as(x)
        for block in self.blocks:
            assert isinstance(block, Block)
            x, asked = _step(block, x, asked, bias)
        logits: Tensor = self.token_head(asked, self.embedding.weight)
        return logits


def _step(block: Block, x: Tensor, asked: Tensor, bias: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Contents and questions [B, L, D] after a block."""
    (B, L, D), attention = x.shape, block.attention
    assert attention.relative is not None
    places = attention.relative(L)
    both = attention.qkv(block.attention_norm(torch.cat([x, asked])))
    q, k, v = both.view(2 * B, L, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)  # [2 B, H, L, E]
    own = attend(q[:B], k[:B], v[:B], bias[0] + places)
    keys, values = torch.cat([k[:B], k[B:]], 2), torch.cat([v[:B], v[B:]], 2)
    of_asked = attend(q[B:], keys, values, bias[1] + torch.cat([places, places], -1))
    attended = attention.out(torch.cat([own, of_asked]).transpose(1, 2).reshape(2 * B, L, D))
    after = torch.cat([x, asked]) + attended
    after = after + block.mlp(block.mlp_norm(after))
    return after[:B], after[B:]


def _against(is_read: Tensor) -> Tensor:
    return torch.zeros(is_read.shape).masked_fill(~is_read, -torch.inf)[:, None]
