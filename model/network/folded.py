"""A transformer's weights as they are served, frozen: the same function in fewer operations.

Gains and scales are folded into the weights behind them. Sums are associated otherwise than in
`model.network.transformer` and `model.network.late`, so the last bits differ from these.

On a CPU wide products run in oneDNN, which is faster than MKL there and does the activation within the product; its
products cost more to call, so narrow ones do without. The rule depends on the shape alone: a result must not depend on
what was measured on the day.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unveil.model.confidence import LANES
from unveil.model.network.architecture import Activation
from unveil.model.network.late import LateQueries, QueryBlock
from unveil.model.network.transformer import Block, Transformer

ONEDNN_WIDTH = 128  # products of fewer columns run in MKL
_ONEDNN_WEIGHTS = 2**14  # and of fewer weights
_GELU = 2 * (2 / torch.pi) ** 0.5  # tanh GELU is x * sigmoid(_GELU * (x + _CUBIC * x**3))
_CUBIC = 0.044715
_MANY_IDS = 4096  # over all columns: beyond, each position's own head is gathered instead of computing all

Product = Callable[[Tensor], Tensor]


class Layer(NamedTuple):
    """One block's products, in the order in which they run."""

    qkv: Product
    out: Product
    widen: Product  # the activation included
    narrow: Product
    shapes: tuple[torch.Size, ...]  # of all parameters: layers of the same ones run the same kernels


class QueryLayer(NamedTuple):
    """One block of queries: its products, and the gains and shifts [L, 4, D] of its norms at each place."""

    query: Product
    out: Product
    widen: Product  # the activation included
    narrow: Product
    places: Tensor


class Folded:
    """What the served forms of transformers share: blocks position by position, and the token head."""

    def __init__(self, network: Transformer | LateQueries) -> None:
        self.architecture, self.order_head = network.architecture, network.order_head
        self.blocks = [cast(Block, block) for block in network.blocks] * network.architecture.num_loops
        with torch.no_grad():
            self.log_w = network.order_head.global_log_w()
            self._eps = torch.tensor((network.architecture.width * 1e-5) ** 0.5, device=network.position.device)
            self.layers = [_layer(block, self.architecture.activation) for block in self.blocks]
            self._set_head(network)

    def _set_head(self, network: Transformer | LateQueries) -> None:
        """Of a table, `_rows` [L, V'] says which row of the head answers each id of a column: at absent ids the last
        one, which is always minus infinity."""
        head, D = network.token_head, network.architecture.width
        weight = (network.embedding.weight * head.norm.weight * D**0.5).contiguous()
        self._has_own = network.architecture.has_own_vocabularies
        if self._has_own:
            weight = torch.cat([weight, weight.new_zeros(1, D)])
            absent = F.pad(head.get_buffer("absent"), (0, -head.get_buffer("absent").shape[1] % LANES), value=True)
            rows = F.pad(head.get_buffer("rows"), (0, absent.shape[1] - head.get_buffer("rows").shape[1]))
            self._rows = rows.masked_fill(absent, len(weight) - 1)
        bias = F.pad(head.bias, (0, len(weight) - len(head.bias)), value=-torch.inf)
        self._own = (weight, bias) if self._has_own and len(weight) > _MANY_IDS else None
        self._all_ids = product(weight, bias)

    def finished(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of a block, position by position: [..., D] each."""
        x = layer.out(attended).add_(x)
        return layer.narrow(layer.widen(self.norm(x))).add_(x)

    def norm(self, x: Tensor) -> Tensor:
        """RMSNorm, but for a gain and a factor sqrt(D), which are folded into what follows."""
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self._eps)

    def logits(self, x: Tensor, positions: Tensor) -> Tensor:
        """Last states [R, D] at positions [R] -> float32 [R, V], minus infinity at absent ids."""
        x = self.norm(x)
        if not self._has_own:
            return self._all_ids(x).float()
        rows = self._rows[positions]  # [R, V']
        if self._own is None:
            return self._all_ids(x).gather(1, rows).float()
        weight, bias = self._own
        return torch.baddbmm(bias[rows][..., None], weight[rows], x[..., None]).squeeze(-1).float()


def _layer(block: Block, activation: Activation) -> Layer:
    narrow = cast(nn.Linear, block.mlp[2])
    return Layer(
        qkv=product(*folded(block.attention_norm, block.attention.qkv)),
        out=product(block.attention.out.weight, None),
        widen=product(*folded(block.mlp_norm, cast(nn.Linear, block.mlp[0])), activation=activation),
        narrow=product(narrow.weight, narrow.bias),
        shapes=tuple(parameter.shape for parameter in block.parameters()),
    )


def query_layer(block: QueryBlock, activation: Activation) -> QueryLayer:
    """A block of queries. Its norms' own gains are folded into those of each place."""
    widen, narrow, scale = cast(nn.Linear, block.mlp[0]), cast(nn.Linear, block.mlp[2]), block.query.in_features**0.5
    gain, shift, mlp_gain, mlp_shift = block.places.unbind(1)  # [L, D] each
    gain, mlp_gain = (
        (1 + own) * norm.weight * scale for own, norm in ((gain, block.attention_norm), (mlp_gain, block.mlp_norm))
    )
    return QueryLayer(
        query=product(block.query.weight, None),
        out=product(block.out.weight, None),
        widen=product(widen.weight, widen.bias, activation=activation),
        narrow=product(narrow.weight, narrow.bias),
        places=torch.stack([gain, shift, mlp_gain, mlp_shift], 1),
    )


def folded(norm: nn.RMSNorm, linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear layer that does the gain of the norm before it, and its factor sqrt(D)."""
    weight = linear.weight * norm.weight * linear.in_features**0.5
    return weight.contiguous(), linear.bias


def _in_onednn(weight: Tensor) -> bool:
    is_cpu_float = weight.device.type == "cpu" and weight.dtype == torch.float32
    is_wide = weight.shape[1] >= ONEDNN_WIDTH and weight.numel() >= _ONEDNN_WEIGHTS
    return is_cpu_float and is_wide and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def product(weight: Tensor, bias: Tensor | None, *, activation: Activation | None = None) -> Product:
    """x -> x @ weight.T + bias, and the activation of it."""
    if _in_onednn(weight):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        name, algorithm = {None: ("none", ""), "gelu": ("gelu", "tanh"), "squared_relu": ("relu", "")}[activation]

        def computed(x: Tensor) -> Tensor:
            found: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, name, [], algorithm)
            return found.square_() if activation == "squared_relu" else found

        return computed
    if activation == "squared_relu":
        return lambda x: F.linear(x, weight, bias).relu_().square_()
    if activation == "gelu":
        slope = torch.tensor(_GELU, dtype=weight.dtype, device=weight.device)
        return lambda x: _gelu(F.linear(x, weight, bias), slope)
    return lambda x: F.linear(x, weight, bias)


def _gelu(x: Tensor, slope: Tensor) -> Tensor:
    """Passes of vectorised arithmetic, faster than torch's own tanh form on a CPU."""
    return torch.addcmul(slope, x, x, value=_GELU * _CUBIC).mul_(x).sigmoid_().mul_(x)
