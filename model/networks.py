"""Which network an architecture means, and how it is served."""

from model.denoiser import Stages, in_stages
from model.imported import Imported
from model.manifest import Architecture, ImportedArchitecture, OrderSpec
from model.network import Network
from model.planes import PlaneNetwork
from model.prepared import Prepared
from model.transformer import Transformer

_NETWORKS: dict[str, type[Transformer] | type[PlaneNetwork]] = {"attention": Transformer, "planes": PlaneNetwork}


def build_network(architecture: Architecture | ImportedArchitecture, order: OrderSpec) -> Network:
    """A fresh denoiser. ValueError for an order that does not fit the architecture, ArtifactError where a package is
    missing."""
    if isinstance(architecture, ImportedArchitecture):
        return Imported(architecture, order)
    return _NETWORKS[architecture.trunk](architecture, order)


def prepare(network: Network) -> Stages:
    """The network as it is served, in two stages; its weights must not change any more."""
    network.requires_grad_(False)
    return Prepared(network) if isinstance(network, Transformer) else in_stages(network)
