"""Order heads: log-weights of the next position to reveal, read off the trunk. Know no loss and no sampler."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unveil.model.confidence import confidence_of
from unveil.model.network.architecture import Architecture, ImportedArchitecture, OrderKind, OrderSpec
from unveil.model.network.attention import Attention, padding_bias

FIXED_GAP = 64.0  # log-weights this far apart make Plackett-Luce deterministic: float64 Gumbel noise spans 40
SHARPNESS = 32.0  # log-weight of a nat of expected loss: what is sure goes first, and what is equally sure by chance
_COLUMNS = 4
_FLOOR = 1e-6  # probabilities and nats below this are all the same to a head that reads their logarithms


def read_one(head: nn.Sequential | nn.Linear, x: Tensor) -> Tensor:
    """[..., D] -> [...], by a head whose last layer has one output.

    That layer runs as a product with a few columns that are all alike: a product with a single one is another kernel,
    which rounds by how many rows there are, and so a canvas alone would not be what it is in a batch.
    """
    *layers, last = head if isinstance(head, nn.Sequential) else (head,)
    for layer in layers:
        x = layer(x)
    assert isinstance(last, nn.Linear)
    return F.linear(x, last.weight.expand(_COLUMNS, -1), last.bias.expand(_COLUMNS))[..., 0]


class Reading(NamedTuple):
    """All that an order head is given of canvases: a trunk state a position [B, L, D]; what the token head made of it
    [B, L, V], None where no head looks at that; what the trunk was shown, ids [B, L] (any where hidden), hidden [B, L]
    and lengths [B]."""

    states: Tensor
    token_logits: Tensor | None
    tokens: Tensor
    hidden: Tensor
    lengths: Tensor


class OrderHead(nn.Module):
    """Log-weights of the next position to reveal, in the gauge of mean zero over all positions.

    `uniform` has none, `fixed` has them far apart, `global` learns one a position, `contextual` adds to that what a
    small head reads off the trunk, so that the next position may depend on what is revealed.
    """

    def __init__(self, architecture: Architecture | ImportedArchitecture, order: OrderSpec) -> None:
        super().__init__()
        if order.fixed is not None and len(order.fixed) != architecture.length:
            raise ValueError(f"a fixed order of {len(order.fixed)} positions for a model of {architecture.length}")
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

    def forward(self, reading: Reading) -> Tensor:
        """Log-weights [B, L]. This head looks at the trunk's states alone."""
        B, L, _ = reading.states.shape
        log_w = self.global_log_w()[:L].expand(B, L)
        if self.kind != "contextual":
            return log_w
        return log_w + read_one(self.head, reading.states).float()

    def alone(self, states: Tensor, token_logits: Tensor | None, positions: Tensor) -> Tensor:  # noqa: ARG002
        """A contextual head's log-weights [R] of states [R, D] and, if it reads them, token logits [R, V] that stand at
        `positions` [R]. For heads that look at one position at a time."""
        return self.global_log_w()[positions] + read_one(self.head, states).float()


class Foreseen(NamedTuple):
    """What revealing each position is expected to cost, [B, L] each: the logarithm of its own nats, and the whole cost
    that decides, in nats up to a constant a canvas."""

    log_loss: Tensor
    cost: Tensor


class NextCostHead(OrderHead):
    """A contextual head that foresees what each reveal will cost, and takes the cheapest first.

    It reads the trunk's state and what the token head says of the position (likeliest id, its lead, entropy), and
    learns nothing back into them. What it corrects is the entropy, the loss that a calibrated token head should expect;
    fresh, it hardly does. Its log-weights are minus the expected loss, times `SHARPNESS`.
    """

    def __init__(self, architecture: Architecture | ImportedArchitecture, order: OrderSpec) -> None:
        super().__init__(architecture, OrderSpec(kind="uniform"))
        self.kind = order.kind
        D = architecture.width
        self.state_norm = nn.RMSNorm(D, eps=1e-5)
        self.head = nn.Sequential(nn.Linear(D + _NUM_FEATURES, D), nn.GELU(), nn.Linear(D, 1))

    def foresee(self, reading: Reading) -> Foreseen:
        """Takes a reading with token logits."""
        log_loss, _ = self._look(reading)
        return Foreseen(log_loss, log_loss.exp())

    def forward(self, reading: Reading) -> Tensor:
        """Log-weights [B, L]."""
        return self.log_weights(self.foresee(reading).cost)

    def alone(self, states: Tensor, token_logits: Tensor | None, positions: Tensor) -> Tensor:
        """See `OrderHead.alone`."""
        everything = torch.zeros_like(positions, dtype=torch.bool)
        return self(Reading(states, token_logits, positions, everything, positions))  # type: ignore[no-any-return]

    def log_weights(self, cost: Tensor) -> Tensor:
        """Of the next position: minus the expected cost, in units of 1 / `SHARPNESS` nats."""
        return -SHARPNESS * cost

    def _look(self, reading: Reading) -> tuple[Tensor, Tensor]:
        """The logarithm of each position's own expected nats [B, L], and what it is read from [B, L, D + F]."""
        assert reading.token_logits is not None
        x, sure = reading.states.detach(), _features(reading.token_logits.detach())
        seen = torch.cat([self.state_norm(x), sure.to(x.dtype)], -1)
        return sure[..., 0] + read_one(self.head, seen).float(), seen


class CostToGoHead(NextCostHead):
    """A contextual head that foresees the whole rest of the decoding: what a reveal costs, and what will be left to pay
    once it is made, `Q(x_S, l) = E[CE(l | x_S) + min_j Q(x_{S + l}, j)]`, up to a constant of the canvas.

    The second part is not a matter of one position, so it is read by attention over all of them, and not of what the
    trunk cares for: it was trained for tokens, and forgets of what it is shown what they do not need. So this head sees
    the canvas itself as well, by an embedding of its own for every id, and for the mask at every position.
    """

    def __init__(self, architecture: Architecture | ImportedArchitecture, order: OrderSpec) -> None:
        super().__init__(architecture, order)
        width, sizes = max(architecture.width, _LEAST_WIDTH), torch.tensor(architecture.vocabulary_sizes)
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)  # [L] or [1]
        self.num_ids = int(sizes.sum())
        self.embedding = nn.Embedding(self.num_ids + architecture.length, _SHOWN_WIDTH)
        self.embedding_norm = nn.RMSNorm(_SHOWN_WIDTH, eps=1e-5)
        self.seen = nn.Linear(architecture.width + _NUM_FEATURES + _SHOWN_WIDTH, width)
        self.mixers = nn.ModuleList(_Mixer(width) for _ in range(_MIXERS))
        self.own = nn.Sequential(nn.RMSNorm(width, eps=1e-5), nn.Linear(width, 1))
        self.left = nn.Sequential(nn.RMSNorm(width, eps=1e-5), nn.Linear(width, 1))

    def foresee(self, reading: Reading) -> Foreseen:
        """See `NextCostHead.foresee`."""
        log_loss, seen = self._look(reading)
        mixed = self.seen(torch.cat([seen, self._shown(reading).to(seen.dtype)], -1))
        bias = padding_bias(reading.lengths, seen.shape[1], seen.dtype)
        for mixer in self.mixers:
            mixed = mixer(mixed, bias)
        log_loss = log_loss + read_one(self.own, mixed).float()
        return Foreseen(log_loss, log_loss.detach().exp() + read_one(self.left, mixed).float())

    def _shown(self, reading: Reading) -> Tensor:
        """The canvas as it is, [B, L, E]."""
        masks = self.num_ids + torch.arange(reading.tokens.shape[1], device=reading.tokens.device)
        ids = torch.where(reading.hidden, masks, reading.tokens + self.get_buffer("offsets"))
        return self.embedding_norm(self.embedding(ids))  # type: ignore[no-any-return]


class _Mixer(nn.Module):
    """Attention and an MLP, each behind a norm and a residual: [B, L, W] -> [B, L, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.attention = Attention(width, _HEADS if width % _HEADS == 0 else 1)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), bias)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


_LEAST_WIDTH, _SHOWN_WIDTH, _MIXERS, _HEADS = 64, 32, 2, 4
_NUM_FEATURES = 4


def _features(token_logits: Tensor) -> Tensor:
    """Logarithms of the entropy, of the doubt in the likeliest id and of its lead over the second; the doubt itself."""
    sure = confidence_of(token_logits)
    doubt = 1 - sure.confidence
    logs = [torch.log(value.clamp(min=0) + _FLOOR) for value in (sure.entropy, doubt, sure.margin)]
    return torch.stack([*logs, doubt], -1).float()


_HEAD_TYPES = {"trunk": OrderHead, "next_cost": NextCostHead, "cost_to_go": CostToGoHead}


def make_order_head(architecture: Architecture | ImportedArchitecture, order: OrderSpec) -> OrderHead:
    """The head that an order asks for. ValueError for a fixed order of another length, and for a head that reads all
    positions' states together, on a network whose states are each as of a turn of its own."""
    if order.head == "cost_to_go" and isinstance(architecture, Architecture) and architecture.query_layers:
        raise ValueError("an order's head cost_to_go is not valid with query_layers")
    return _HEAD_TYPES[order.head](architecture, order)
