"""From a finished run to an artifact: figures, card, picture, folder."""

from pathlib import Path
from typing import Any

import pydantic_core

from unveil.model.artifact.folder import Artifact, save_artifact
from unveil.model.artifact.manifest import ORDER_PICTURE, Manifest
from unveil.model.network.architecture import ImportedArchitecture
from unveil.model.network.base import Network
from unveil.model.tokenizers.base import Tokenizer
from unveil.training.config import ModelConfig, Recipe
from unveil.training.data.dataset import Dataset
from unveil.training.evaluation.likelihood import Advance
from unveil.training.evaluation.report import Metrics, evaluate_model
from unveil.training.publishing.card import write_card
from unveil.training.publishing.order_account import describe_order
from unveil.training.trainer import Trained


def recipe_as_run(recipe: Recipe, denoiser: Network) -> dict[str, Any]:
    """The recipe as JSON, with the network that was trained: an artifact to start from brought its own along."""
    if recipe.start.artifact is None:
        return recipe.model_dump(mode="json")
    if isinstance(denoiser.architecture, ImportedArchitecture):
        return recipe.model_dump(mode="json", exclude={"model"})
    own = denoiser.architecture.model_dump()
    network = recipe.model.model_copy(update={name: own[name] for name in ModelConfig.model_fields})
    return recipe.model_copy(update={"model": network}).model_dump(mode="json")


def publish(
    trained: Trained, recipe: Recipe, dataset: Dataset, *, out: Path, recipe_text: str, advance: Advance | None = None
) -> Manifest:
    """Evaluates on the test split, on the device that trained, and writes the artifact to `out`.

    Raises ArtifactError if it cannot stand there.
    """
    denoiser = trained.denoiser.to(trained.device)
    metrics = evaluate_model(denoiser, dataset, limit=recipe.run.evaluate_rows, advance=advance)
    training = {
        **trained.summary,
        "seed": recipe.seed,
        "recipe": recipe_as_run(recipe, denoiser),
        "data": pydantic_core.to_jsonable_python(dict(dataset.summary)),
        "data_sha256": dataset.fingerprint,
    }
    return _write(out, denoiser, dataset.tokenizer, recipe, recipe_text, training, metrics)


def update_card(folder: Path, artifact: Artifact, *, recipe: Recipe, recipe_text: str, metrics: Metrics) -> Manifest:
    """Puts new figures of the test split on an artifact's card and into its configuration; the weights stay.

    Raises ArtifactError as `save_artifact` does.
    """
    training = artifact.manifest.training
    return _write(folder, artifact.denoiser, artifact.tokenizer, recipe, recipe_text, training, metrics)


def _write(
    out: Path,
    denoiser: Network,
    tokenizer: Tokenizer,
    recipe: Recipe,
    recipe_text: str,
    training: dict[str, Any],
    metrics: Metrics,
) -> Manifest:
    order = describe_order(denoiser, tokenizer, name=recipe.name)
    card = write_card(
        recipe,
        data=training["data"],
        metrics=metrics,
        training=training,
        order_words=order.words,
        num_parameters=denoiser.num_parameters,
        recipe_text=recipe_text,
    )
    return save_artifact(
        out,
        denoiser=denoiser,
        tokenizer=tokenizer,
        training=training,
        metrics=metrics,
        card=card,
        extra_files={ORDER_PICTURE: order.draw()},
    )
