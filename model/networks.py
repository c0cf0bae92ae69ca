"""Which network an architecture means."""

from model.manifest import Architecture, OrderSpec
from model.network import Network
from model.planes import PlaneNetwork
from model.transformer import Transformer

_NETWORKS: dict[str, type[Transformer] | type[PlaneNetwork]] = {"attention": Transformer, "planes": PlaneNetwork}


def build_network(architecture: Architecture, order: OrderSpec) -> Network:
    """A fresh denoiser. ValueError for an order that does not fit the architecture."""
    return _NETWORKS[architecture.trunk](architecture, order)
