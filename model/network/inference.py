"""The transformer's forward as it is served: the same function in fewer operations, and in two stages.

What is exact to leave out, and left out: gains and scales are folded into the weights behind them, positions into the
embeddings; a table's first projection is looked up, since it follows from a position's value alone; and where the order
does not look at the last states (every order but a contextual one), the last block is finished only at the positions
whose tokens are asked for. Sums are associated otherwise than in `model.network.transformer`, so the last bits differ
from it.

On a CPU wide networks run in oneDNN, which is faster than MKL there and does the activation within the product; its
products cost more to call, so narrow ones do without. The rule depends on the width alone: a result must not depend on
what was measured on the day.
"""

from collections.abc import Callable
from copy import copy
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unveil.model.confidence import LANES
from unveil.model.denoiser import Begun
from unveil.model.network.attention import attend
from unveil.model.network.order_heads import NextCostHead, Reading
from unveil.model.network.transformer import Block, Transformer, reading_bias

_WIDE = 256
_GELU = 2 * (2 / torch.pi) ** 0.5  # tanh GELU is x * sigmoid(_GELU * (x + _CUBIC * x**3))
_CUBIC = 0.044715
_MANY_IDS = 4096  # over all columns: beyond, each position's own head is gathered instead of computing all

Product = Callable[[Tensor], Tensor]


class _Layer(NamedTuple):
    qkv: Product
    out: Product
    widen: Product  # the activation included
    narrow: Product
    relative: Tensor | None  # [H, L, L], by distance or by pair
    shapes: tuple[torch.Size, ...]  # of all parameters: layers of the same ones run the same kernels


class Prepared:
    """`model.denoiser.Stages` of a transformer, whose weights must not change any more."""

    def __init__(self, network: Transformer) -> None:
        self._architecture, self._order_head = network.architecture, network.order_head
        self._looks = network.order_head.kind == "contextual"  # the order looks at the last states
        self._is_next_cost = isinstance(network.order_head, NextCostHead)
        blocks = [cast(Block, block) for block in network.blocks] * network.architecture.num_loops
        with torch.no_grad():
            self._log_w = network.order_head.global_log_w()
            self._eps = torch.tensor((network.architecture.width * 1e-5) ** 0.5, device=network.mask.device)
            self._set_embeddings(network, blocks[0])
            self._layers = [_layer(block) for block in blocks]
            self._set_head(network)

    def _set_embeddings(self, network: Transformer, first: Block) -> None:
        """A row an id, the mask's last; of a table a row a value or mask of a column, and its projection beside it."""
        sizes, position = torch.tensor(network.architecture.vocabulary_sizes), network.position
        self._has_own = network.architecture.has_own_vocabularies
        if not self._has_own:
            self._position = position
            self._embedding = torch.cat([network.embedding.weight, network.mask[None]])
            return
        columns = torch.arange(len(sizes)).repeat_interleave(sizes).to(position.device)
        rows = torch.cat([network.embedding.weight + position[columns], network.mask + position])  # [ids + L, D]
        project = _product(*_folded(first.attention_norm, first.attention.qkv))
        self._embedding = torch.cat([rows, project(self._norm(rows))], 1)
        self._masked = int(sizes.sum()) + torch.arange(len(sizes), device=position.device)
        self._offsets = network.get_buffer("offsets")

    def _set_head(self, network: Transformer) -> None:
        """Of a table, `_rows` [L, V'] says which row of the head answers each id of a column: at absent ids the last
        one, which is always minus infinity."""
        head, D = network.token_head, network.architecture.width
        weight = (network.embedding.weight * head.norm.weight * D**0.5).contiguous()
        if self._has_own:
            weight = torch.cat([weight, weight.new_zeros(1, D)])
            absent = F.pad(head.get_buffer("absent"), (0, -head.get_buffer("absent").shape[1] % LANES), value=True)
            rows = F.pad(head.get_buffer("rows"), (0, absent.shape[1] - head.get_buffer("rows").shape[1]))
            self._rows = rows.masked_fill(absent, len(weight) - 1)
        bias = F.pad(head.bias, (0, len(weight) - len(head.bias)), value=-torch.inf)
        self._own = (weight, bias) if self._has_own and len(weight) > _MANY_IDS else None
        self._all_ids = _product(weight, bias)

    def sketch(self) -> "Prepared":
        """See `model.denoiser.sketch_of`: of the layers before the last one each shape once."""
        first = dict[tuple[torch.Size, ...], _Layer]()
        for layer in self._layers[:-1]:
            first.setdefault(layer.shapes, layer)
        sketch = copy(self)
        sketch._layers = [*first.values(), self._layers[-1]]
        return sketch

    def begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Begun:
        """See `model.denoiser.Stages`."""
        x, qkv = self._embed(tokens, hidden)
        bias = reading_bias(self._architecture, hidden, lengths, self._embedding.dtype)
        *layers, last = self._layers
        for layer in layers:
            x = self._finished(layer, x, self._attended(layer, x, qkv, bias))
            qkv = None
        attended = self._attended(last, x, qkv, bias)
        if not self._looks:
            order_logits = self._log_w[: tokens.shape[1]].expand(tokens.shape)
            return Begun(order_logits, torch.cat([x, attended], -1))
        x = self._finished(last, x, attended)
        if not self._is_next_cost:
            return Begun(self._order_head(Reading(x, None, tokens, hidden, lengths)), x)
        B, L, _ = x.shape
        logits = self._logits(x.flatten(0, 1), torch.arange(L, device=x.device).repeat(B)).view(B, L, -1)
        return Begun(self._order_head(Reading(x, logits, tokens, hidden, lengths)), logits)

    def finish(self, states: Tensor, positions: Tensor) -> Tensor:
        """See `model.denoiser.Stages`."""
        if self._is_next_cost:
            return states
        if not self._looks:
            x, attended = states.chunk(2, -1)
            states = self._finished(self._layers[-1], x, attended)
        return self._logits(states, positions)

    def rounded(self, num: int) -> int:
        """See `model.denoiser.Stages`."""
        return num

    def _embed(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """States [B, L, D], and the first projection [B, L, 3 D] where it was looked up."""
        if not self._has_own:
            ids = tokens.masked_fill(hidden, len(self._embedding) - 1)
            return F.embedding(ids, self._embedding) + self._position[: tokens.shape[1]], None
        found = F.embedding(torch.where(hidden, self._masked, tokens + self._offsets), self._embedding)
        D = self._architecture.width
        return found[..., :D], found[..., D:]

    def _attended(self, layer: _Layer, x: Tensor, qkv: Tensor | None, bias: Tensor | None) -> Tensor:
        B, L, D = x.shape
        if qkv is None:
            qkv = layer.qkv(self._norm(x))
        if layer.relative is not None:
            near = layer.relative[:, :L, :L]
            bias = near if bias is None else near + bias
        q, k, v = qkv.view(B, L, 3, self._architecture.heads, -1).permute(2, 0, 3, 1, 4)
        return attend(q, k, v, bias).transpose(1, 2).reshape(B, L, D)

    def _finished(self, layer: _Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of a block, position by position: [..., D] each."""
        x = layer.out(attended).add_(x)
        return layer.narrow(layer.widen(self._norm(x))).add_(x)

    def _norm(self, x: Tensor) -> Tensor:
        """RMSNorm, but for a gain and a factor sqrt(D), which are folded into what follows."""
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self._eps)

    def _logits(self, x: Tensor, positions: Tensor) -> Tensor:
        """[R, D], [R] -> float32 [R, V], minus infinity at absent ids."""
        x = self._norm(x)
        if not self._has_own:
            return self._all_ids(x).float()
        rows = self._rows[positions]  # [R, V']
        if self._own is None:
            return self._all_ids(x).gather(1, rows).float()
        weight, bias = self._own
        return torch.baddbmm(bias[rows][..., None], weight[rows], x[..., None]).squeeze(-1).float()


def _layer(block: Block) -> _Layer:
    narrow, relative = cast(nn.Linear, block.mlp[2]), block.attention.relative
    return _Layer(
        qkv=_product(*_folded(block.attention_norm, block.attention.qkv)),
        out=_product(block.attention.out.weight, None),
        widen=_product(*_folded(block.mlp_norm, cast(nn.Linear, block.mlp[0])), has_gelu=True),
        narrow=_product(narrow.weight, narrow.bias),
        relative=None if relative is None else relative(relative.length),
        shapes=tuple(parameter.shape for parameter in block.parameters()),
    )


def _folded(norm: nn.RMSNorm, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear layer that does the gain of the norm before it, and its factor sqrt(D)."""
    weight = linear.weight * norm.weight * linear.in_features**0.5
    return weight.contiguous(), linear.bias


def _in_onednn(weight: Tensor) -> bool:
    is_cpu_float = weight.device.type == "cpu" and weight.dtype == torch.float32
    return is_cpu_float and weight.shape[1] >= _WIDE and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def _product(weight: Tensor, bias: Tensor | None, *, has_gelu: bool = False) -> Product:
    """x -> x @ weight.T + bias, and the tanh GELU of it."""
    if _in_onednn(weight):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        name, algorithm = ("gelu", "tanh") if has_gelu else ("none", "")
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, name, [], algorithm)
    if has_gelu:
        slope = torch.tensor(_GELU, dtype=weight.dtype, device=weight.device)
        return lambda x: _gelu(F.linear(x, weight, bias), slope)
    return lambda x: F.linear(x, weight, bias)


def _gelu(x: Tensor, slope: Tensor) -> Tensor:
    """Passes of vectorised arithmetic, faster than torch's own tanh form on a CPU."""
    return torch.addcmul(slope, x, x, value=_GELU * _CUBIC).mul_(x).sigmoid_().mul_(x)
