"""Where training starts from: fresh weights, or those of an artifact."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from unveil.model.artifact.folder import Artifact, load_artifact
from unveil.model.artifact.manifest import TOKENIZER
from unveil.model.errors import ArtifactError, UnveilError
from unveil.model.network.architecture import Architecture, ImportedArchitecture, OrderSpec
from unveil.model.network.base import Network
from unveil.model.network.build import build_network
from unveil.model.tokenizers.base import Tokenizer
from unveil.training.config import ModelConfig, Recipe
from unveil.training.data.dataset import Dataset
from unveil.training.levels import is_advanced

_ORDER_HEAD = "order_head."
_MOST_PAIRED = 64  # columns: a bias for each pair of more is most of a small network
_FREE = ("num_loops", "dropout")  # what a network may be given anew: no weight's shape depends on it


def load_start(recipe: Recipe, dataset: Dataset) -> Artifact | None:
    """The artifact that the recipe starts from, None for fresh weights.

    Raises ArtifactError for a damaged artifact or one with another tokenizer, UnveilError for a recipe that wants
    another network.
    """
    if recipe.start.artifact is None:
        return None
    artifact = load_artifact(recipe.start.artifact)
    if _sha256(dataset.tokenizer) != artifact.manifest.files[TOKENIZER]:
        raise ArtifactError(f"{recipe.start.artifact}: its tokenizer is not that of {dataset.name}, so it cannot start")
    is_imported = isinstance(artifact.manifest.architecture, ImportedArchitecture)
    if is_imported and "model" in recipe.model_fields_set:
        raise UnveilError("model: start.artifact is an imported model, whose network is what it is; leave it out")
    if dataset.train.shape[1] != artifact.manifest.length and not is_imported:
        length = artifact.manifest.length
        raise UnveilError(f"data.length: {dataset.train.shape[1]}, but start.artifact has {length}; leave it out")
    wanted, own = recipe.model.model_dump(exclude_none=True), artifact.manifest.architecture.model_dump()
    if own.get("query_layers"):
        _check_late(recipe)
    if is_imported and recipe.optimizer.matrix_rate is not None:
        raise UnveilError("advanced.optimizer.matrix_rate: start.artifact is an imported model, for AdamW alone")
    for name in wanted.keys() & recipe.model.model_fields_set if "model" in recipe.model_fields_set else ():
        if wanted[name] != own[name] and (recipe.is_frozen or name not in _FREE):
            key = f"advanced.model.{name}" if is_advanced(ModelConfig, name) else f"model.{name}"
            raise UnveilError(f"{key}: {wanted[name]}, but start.artifact has {own[name]}; leave it out")
    return artifact


def _check_late(recipe: Recipe) -> None:
    """Refuses what an artifact with late queries cannot do."""
    if recipe.order.head == "cost_to_go":
        raise UnveilError('order.method: "cost_to_go" is not valid with late queries in start.artifact; "next_cost" is')
    if recipe.order.shows_bare_rows:
        raise UnveilError("advanced.order.bare: is not valid with late queries in start.artifact")
    if recipe.model.num_loops > 1:
        raise UnveilError("advanced.model.num_loops: must be 1 with late queries in start.artifact")


def _sha256(tokenizer: Tokenizer) -> str:
    """Of the file it would be saved as: it alone holds all that ids mean, the ends of bins too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / TOKENIZER
        tokenizer.save(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def make_denoiser(recipe: Recipe, dataset: Dataset, start: Artifact | None) -> Network:
    """The network as training finds it: all of it trains, or with a frozen denoiser its order head alone.

    An order head comes along from the artifact if it is of the recipe's kind; otherwise the order is learned anew.
    An imported network may be taken for shorter canvases than the artifact's, one of our own for other loops.
    """
    if start is None:
        fresh = fresh_architecture(recipe, dataset)
        _check_loops(recipe, fresh.num_loops)
        return build_network(fresh, _order(recipe, fresh.length))
    anew = {"length": dataset.train.shape[1], **given_anew(recipe)}
    architecture = start.manifest.architecture.model_copy(update=anew)
    _check_loops(recipe, architecture.num_loops)
    denoiser = build_network(architecture, _order(recipe, architecture.length))
    old, new = start.manifest.order, denoiser.order
    keeps_order = architecture.length == start.manifest.length and (old.kind, old.head) == (new.kind, new.head)
    weights = start.denoiser.state_dict().items()
    denoiser.load_state_dict({n: w for n, w in weights if keeps_order or not n.startswith(_ORDER_HEAD)}, strict=False)
    if recipe.is_frozen:
        _freeze_all_but(denoiser, _ORDER_HEAD)
    return denoiser


def given_anew(recipe: Recipe) -> dict[str, Any]:
    """What the recipe says of an artifact's network that no weight's shape depends on."""
    given = recipe.model.model_fields_set if "model" in recipe.model_fields_set else ()
    return {name: getattr(recipe.model, name) for name in _FREE if name in given}


def _check_loops(recipe: Recipe, num_loops: int) -> None:
    if recipe.optimizer.backward_loops is not None and recipe.optimizer.backward_loops >= num_loops:
        raise UnveilError(
            "advanced.optimizer.backward_loops: must be less than advanced.model.num_loops,"
            f" the network's loops, which are {num_loops}"
        )


def _order(recipe: Recipe, length: int) -> OrderSpec:
    """Raises UnveilError."""
    fixed = recipe.order.fixed_order(length)
    if fixed is not None and sorted(fixed) != list(range(length)):
        raise UnveilError(f"order.positions: must list every position once, each of 0 to {length - 1}")
    return OrderSpec(kind=recipe.order.kind, fixed=fixed, head=recipe.order.head)


def fresh_architecture(recipe: Recipe, dataset: Dataset) -> Architecture:
    """The recipe's network at the data's length and vocabulary. Raises UnveilError for one that cannot be."""
    length, sizes = dataset.train.shape[1], tuple(dataset.tokenizer.vocabulary_sizes)
    model = {name: value for name, value in recipe.model.model_dump().items() if value is not None}
    if recipe.query_layers and not {"relative_bias", "pair_bias"} & model.keys():
        is_sequence = len(sizes) < length
        model |= {"relative_bias": is_sequence, "pair_bias": not is_sequence and length <= _MOST_PAIRED}
    try:
        return Architecture(
            length=length,
            vocabulary_sizes=sizes,
            trunk="planes" if dataset.tokenizer.domain == "grid" else "attention",
            activation="squared_relu" if recipe.query_layers else "gelu",
            **{**model, "layers": recipe.layers, "query_layers": recipe.query_layers},
        )
    except ValidationError as error:
        raise UnveilError(f"model: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _freeze_all_but(module: nn.Module, prefix: str) -> None:
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith(prefix))
