"""A small network to which the order of the past matters, and what it says of every ordered prefix."""

from itertools import product

import torch
from torch import Tensor

from unveil.model.denoiser import cross_entropy
from unveil.model.network.architecture import Architecture, Attends, OrderSpec
from unveil.model.network.transformer import Transformer
from unveil.model.oracle.ordered import OrderedPrefixes, ordered_table

L, V = 4, 3
X = torch.tensor(list(product(range(V), repeat=L)))[::4]  # [21, L]


def ranked_network(
    *, layers: int = 3, length: int = L, attends: Attends = "earlier", order: OrderSpec | None = None
) -> Transformer:
    """Of random weights so large that contents tell who read whom."""
    torch.manual_seed(2)
    shape = {"length": length, "vocabulary_sizes": (V,), "width": 16, "layers": layers, "heads": 2, "mlp_width": 32}
    architecture = Architecture.model_validate({**shape, "relative_bias": True, "attends": attends})
    network = Transformer(architecture, order or OrderSpec(kind="global")).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


@torch.inference_mode()
def token_table(network: Transformer, x: Tensor, prefixes: OrderedPrefixes) -> Tensor:
    """`CE(i | prefix)`, [N, P, L], one prefix a forward, zeros where the network must not look."""

    def nats(rows: Tensor, ranks: Tensor) -> Tensor:
        hidden = (ranks == ranks.max(-1, keepdim=True).values) & (ranks > 0)
        shown = rows.masked_fill(hidden, 0)
        logits = network(shown, hidden, torch.full((len(rows),), rows.shape[1]), ranks).token_logits
        return cross_entropy(logits, rows)

    return ordered_table(nats, x, prefixes)
