"""The transformer's forward over whole canvases as it is served: in fewer operations, and in two stages.

What is exact to leave out beside `model.network.folded`, and left out: positions are folded into the embeddings; a
table's first projection is looked up, since it follows from a position's value alone; and where the order does not look
at the last states (every order but a contextual one), the last block is finished only at the positions whose tokens are
asked for.
"""

from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from unveil.model.denoiser import Begun
from unveil.model.network.attention import attend
from unveil.model.network.folded import Folded, Layer, folded, product
from unveil.model.network.order_heads import NextCostHead, Reading
from unveil.model.network.transformer import Block, Transformer, reading_bias


class Prepared(Folded):
    """`model.denoiser.Stages` of a transformer, whose weights must not change any more."""

    def __init__(self, network: Transformer) -> None:
        super().__init__(network)
        self._looks = network.order_head.kind == "contextual"  # the order looks at the last states
        self._is_next_cost = isinstance(network.order_head, NextCostHead)
        with torch.no_grad():
            self._set_embeddings(network, self.blocks[0])
            biases = [block.attention.relative for block in self.blocks]
            self._relative = [None if bias is None else bias(bias.length) for bias in biases]  # [H, L, L] each

    def _set_embeddings(self, network: Transformer, first: Block) -> None:
        """A row an id, the mask's last; of a table a row a value or mask of a column, and its projection beside it."""
        sizes, position = torch.tensor(network.architecture.vocabulary_sizes), network.position
        if not self._has_own:
            self._position = position
            self._embedding = torch.cat([network.embedding.weight, network.mask[None]])
            return
        columns = torch.arange(len(sizes)).repeat_interleave(sizes).to(position.device)
        rows = torch.cat([network.embedding.weight + position[columns], network.mask + position])  # [ids + L, D]
        project = product(*folded(first.attention_norm, first.attention.qkv))
        self._embedding = torch.cat([rows, project(self.norm(rows))], 1)
        self._masked = int(sizes.sum()) + torch.arange(len(sizes), device=position.device)
        self._offsets = network.get_buffer("offsets")

    def sketch(self) -> "Prepared":
        """See `model.denoiser.sketch_of`: of the layers before the last one each shape once."""
        first = dict[tuple[torch.Size, ...], int]()
        for number, layer in enumerate(self.layers[:-1]):
            first.setdefault(layer.shapes, number)
        kept = [*first.values(), len(self.layers) - 1]
        sketch = copy(self)
        sketch.layers = [self.layers[number] for number in kept]
        sketch._relative = [self._relative[number] for number in kept]
        return sketch

    def begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Begun:
        """See `model.denoiser.Stages`."""
        x, qkv = self._embed(tokens, hidden)
        bias = reading_bias(self.architecture, lengths, tokens.shape[1], self._embedding.dtype)
        *layers, last = zip(self.layers, self._relative, strict=True)
        for layer, relative in layers:
            x = self.finished(layer, x, self._attended(layer, relative, x, qkv, bias))
            qkv = None
        attended = self._attended(*last, x, qkv, bias)
        if not self._looks:
            order_logits = self.log_w[: tokens.shape[1]].expand(tokens.shape)
            return Begun(order_logits, torch.cat([x, attended], -1))
        x = self.finished(self.layers[-1], x, attended)
        if not self._is_next_cost:
            return Begun(self.order_head(Reading(x, None, tokens, hidden, lengths)), x)
        B, L, _ = x.shape
        logits = self.logits(x.flatten(0, 1), torch.arange(L, device=x.device).repeat(B)).view(B, L, -1)
        return Begun(self.order_head(Reading(x, logits, tokens, hidden, lengths)), logits)

    def finish(self, states: Tensor, positions: Tensor) -> Tensor:
        """See `model.denoiser.Stages`."""
        if self._is_next_cost:
            return states
        if not self._looks:
            x, attended = states.chunk(2, -1)
            states = self.finished(self.layers[-1], x, attended)
        return self.logits(states, positions)

    def rounded(self, num: int) -> int:
        """See `model.denoiser.Stages`."""
        return num

    def _embed(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """States [B, L, D], and the first projection [B, L, 3 D] where it was looked up."""
        if not self._has_own:
            ids = tokens.masked_fill(hidden, len(self._embedding) - 1)
            return F.embedding(ids, self._embedding) + self._position[: tokens.shape[1]], None
        found = F.embedding(torch.where(hidden, self._masked, tokens + self._offsets), self._embedding)
        D = self.architecture.width
        return found[..., :D], found[..., D:]

    def _attended(
        self, layer: Layer, relative: Tensor | None, x: Tensor, qkv: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        B, L, D = x.shape
        if qkv is None:
            qkv = layer.qkv(self.norm(x))
        if relative is not None:
            near = relative[:, :L, :L]
            bias = near if bias is None else near + bias
        q, k, v = qkv.view(B, L, 3, self.architecture.heads, -1).permute(2, 0, 3, 1, 4)
        return attend(q, k, v, bias).transpose(1, 2).reshape(B, L, D)
