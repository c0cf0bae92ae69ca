"""Which network an architecture means, and how it is served."""

from unveil.model.denoiser import Stages, in_stages
from unveil.model.network.architecture import Architecture, ImportedArchitecture, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.imported import Imported
from unveil.model.network.inference import Prepared
from unveil.model.network.late import LateQueries
from unveil.model.network.sudoku import PlaneNetwork
from unveil.model.network.transformer import Transformer

_NETWORKS: dict[str, type[Transformer] | type[PlaneNetwork]] = {"attention": Transformer, "planes": PlaneNetwork}


def build_network(architecture: Architecture | ImportedArchitecture, order: OrderSpec) -> Network:
    """A fresh denoiser. ValueError for an order that does not fit the architecture, ArtifactError where a package is
    missing."""
    if isinstance(architecture, ImportedArchitecture):
        return Imported(architecture, order)
    if architecture.query_layers:
        return LateQueries(architecture, order)
    return _NETWORKS[architecture.trunk](architecture, order)


def prepare(network: Network) -> Stages:
    """The network as it is served, in two stages; its weights must not change any more."""
    network.requires_grad_(False)
    return Prepared(network) if isinstance(network, Transformer) else in_stages(network)
