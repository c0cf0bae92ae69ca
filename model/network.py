"""What every denoiser network of this project is, whatever its inside. Knows no loss, no order and no file.

`model/transformer.py` is Unveil's own, `model/imported.py` wraps those trained elsewhere; `model/networks.py` builds
what an architecture asks for.
"""

from torch import nn

from model.manifest import Architecture, ImportedArchitecture, OrderSpec
from model.order_heads import OrderHead


class Network(nn.Module):
    """A denoiser in the sense of `model.denoiser.Denoiser` with a token head and an order head on one trunk."""

    architecture: Architecture | ImportedArchitecture
    order: OrderSpec
    order_head: OrderHead
    blocks: nn.ModuleList

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def initialise(module: nn.Module) -> None:
    """Fresh weights of a linear layer or an embedding; nothing for other modules."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
