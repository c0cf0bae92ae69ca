"""A small network to which the order of the past matters, and what it says of every ordered prefix."""

from itertools import product

import torch
from torch import Tensor

from unveil.model.denoiser import cross_entropy
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.build import build_network
from unveil.model.oracle.ordered import OrderedPrefixes, ordered_table

L, V = 4, 3
X = torch.tensor(list(product(range(V), repeat=L)))[::4]  # [21, L]


def ranked_network(
    *, layers: int = 2, length: int = L, query_layers: int = 1, order: OrderSpec | None = None
) -> Network:
    """Of random weights so large that contents tell who read whom; without layers of queries nobody asks."""
    torch.manual_seed(2)
    shape = {"length": length, "vocabulary_sizes": (V,), "width": 16, "layers": layers, "heads": 2, "mlp_width": 32}
    architecture = Architecture.model_validate({**shape, "relative_bias": True, "query_layers": query_layers})
    network = build_network(architecture, order or OrderSpec(kind="global")).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


@torch.inference_mode()
def token_table(network: Network, x: Tensor, prefixes: OrderedPrefixes) -> Tensor:
    """`CE(i | prefix)`, [N, P, L], one prefix a forward, zeros where the network must not look."""

    def nats(rows: Tensor, ranks: Tensor) -> Tensor:
        hidden = (ranks == ranks.max(-1, keepdim=True).values) & (ranks > 0)
        shown = rows.masked_fill(hidden, 0)
        logits = network(shown, hidden, torch.full((len(rows),), rows.shape[1]), ranks).token_logits
        return cross_entropy(logits, rows)

    return ordered_table(nats, x, prefixes)
