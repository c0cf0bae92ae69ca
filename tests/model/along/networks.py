"""Small networks of late queries, in which the order of the past really matters."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import Along
from unveil.model.along.shapes import Shapes, shapes_of
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.late import LateQueries

END = 0
HIGH = 1_000  # the rank of what is hidden: above all that is known
TEXT, TABLE = (7,), (3, 5, 2, 7, 4, 6, 3, 5, 9, 2, 4, 3)
LENGTH = 12
KINDS: dict[str, dict[str, Any]] = {
    "relative bias": {"sizes": TEXT, "relative_bias": True},
    "pair bias": {"sizes": TABLE, "pair_bias": True},
    "no bias": {"sizes": TEXT, "activation": "gelu"},
    "contextual": {"sizes": TEXT, "relative_bias": True, "kind": "contextual"},
    "next cost": {"sizes": TABLE, "pair_bias": True, "kind": "contextual", "head": "next_cost"},
    "wide": {"sizes": TEXT, "relative_bias": True, "width": 256},  # products of oneDNN
    "ends": {"sizes": TEXT, "relative_bias": True, "seed": 4},  # id END ends a sequence
    "two layers": {"sizes": TEXT, "relative_bias": True, "query_layers": 2},
    "long": {"sizes": TEXT, "relative_bias": True, "length": 40},  # more than one step of columns
}


@lru_cache
def network(name: str) -> LateQueries:
    return make(**KINDS[name])


def make(
    *,
    sizes: tuple[int, ...] = TEXT,
    length: int = LENGTH,
    width: int = 32,
    kind: Any = "global",
    head: Any = "trunk",
    seed: int = 0,
    query_layers: int = 1,
    activation: Any = "squared_relu",
    **bias: bool,
) -> LateQueries:
    torch.manual_seed(seed)
    shape = {"width": width, "layers": 3, "heads": 2, "mlp_width": 2 * width, "query_layers": query_layers}
    architecture = Architecture(length=length, vocabulary_sizes=sizes, activation=activation, **shape, **bias)
    made = LateQueries(architecture, OrderSpec(kind=kind, head=head)).eval().requires_grad_(False)
    for name, parameter in made.named_parameters():
        scale = 0.1 if head == "next_cost" and "order_head" in name else 0.4  # else costs of thousands of nats
        std = 1.0 if "log_w" in name else scale * (32 / width) ** 0.5
        torch.nn.init.normal_(parameter, std=std)
    return made


@lru_cache
def _shapes(name: str, max_rows: int) -> tuple[Along, Shapes]:
    along = Along(network(name))
    shapes = shapes_of(along, max_rows)
    is_deterministic = shapes.check()
    assert is_deterministic
    return along, shapes


def denoiser(name: str, *, max_rows: int = 8) -> AlongDenoiser:
    """A fresh one, in shapes of its own."""
    along, shapes = _shapes(name, max_rows)
    return AlongDenoiser(along, shapes, max_rows=max_rows, end_id=END if name == "ends" else None)


def canvas(
    name: str, *, seed: int = 0, num_known: int = 0, length: int | None = None, params: SamplingParams | None = None
) -> Canvas:
    """A canvas some of whose positions, by chance, are known; shorter than the network's where that is allowed."""
    architecture = network(name).architecture
    L = length or architecture.length
    draws = torch.Generator().manual_seed(seed)
    known = torch.randperm(L, generator=draws)[:num_known].tolist()
    least = END + 1 if name == "ends" else 0
    tokens = tuple(torch.randint(least, size, (), generator=draws).item() for size in sizes_of(architecture)[:L])
    hidden = tuple(position not in known for position in range(L))
    return Canvas.start(tuple(map(int, tokens)), hidden, seed=seed, params=params or SamplingParams())


def sizes_of(architecture: Architecture) -> tuple[int, ...]:
    """Of every position's vocabulary."""
    sizes = architecture.vocabulary_sizes
    return sizes if len(sizes) > 1 else sizes * architecture.length


def now(model: LateQueries, canvases: Sequence[Canvas]) -> tuple[Tensor, Tensor]:
    """Token logits [B, L, V] and order logits [B, L] of hidden positions by the definition; canvases of one length."""
    tokens = torch.tensor([canvas.tokens for canvas in canvases])
    ranks = torch.tensor([[HIGH if rank < 0 else rank for rank in canvas.ranks] for canvas in canvases])
    reading = model.read_in_turn(tokens, ranks, torch.full((len(tokens),), tokens.shape[1]))
    assert reading.token_logits is not None
    return reading.token_logits, model.order_head(reading._replace(hidden=ranks == HIGH))
