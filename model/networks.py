"""From an architecture to the network that it describes. Knows no file and no weights."""

from model.imported import Imported
from model.manifest import Architecture, ImportedArchitecture, OrderSpec
from model.network import Network
from model.transformer import Transformer


def build_network(architecture: Architecture | ImportedArchitecture, order: OrderSpec) -> Network:
    """With fresh weights. ValueError for a fixed order of another length, ArtifactError where a package is missing."""
    if isinstance(architecture, ImportedArchitecture):
        return Imported(architecture, order)
    return Transformer(architecture, order)
