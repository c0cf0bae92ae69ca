"""From a finished run to an artifact: figures, card, picture, folder."""

from dataclasses import dataclass
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
from unveil.training.publishing import order_report, policy_report, sudoku_order
from unveil.training.publishing.card import write_card
from unveil.training.publishing.policy_picture import heat_map
from unveil.training.trainer import Trained


@dataclass(frozen=True)
class OrderAccount:
    """An order for a reader: in words, as JSON and as an SVG picture."""

    words: str
    value: dict[str, Any]
    picture: bytes


def describe_order(denoiser: Network, tokenizer: Tokenizer, *, name: str) -> OrderAccount:
    """The learned order of a model; a contextual one is seen in rows that the model generates for it."""
    kind = denoiser.order.kind
    title = f"{name}: {kind} order"
    if kind == "contextual" and tokenizer.domain == "grid":
        cells, prompt = sudoku_order.example_order(denoiser, tokenizer), tokenizer.example_prompt()
        return OrderAccount(
            sudoku_order.in_words(cells, prompt),
            sudoku_order.as_json(cells, prompt),
            sudoku_order.picture(cells, prompt, title=f"{title}, on the example puzzle"),
        )
    if kind == "contextual":
        order = policy_report.look_at_policy(denoiser, tokenizer)
        return OrderAccount(
            policy_report.in_words(order, tokenizer),
            policy_report.as_json(order, tokenizer),
            heat_map(order, policy_report.example_words(order, tokenizer), title=title),
        )
    log_w = denoiser.order_head.global_log_w().detach().cpu()
    names = [tokenizer.name(position) for position in range(len(log_w))]
    return OrderAccount(
        order_report.in_words(kind, log_w, names),
        order_report.as_json(kind, log_w, names),
        order_report.chart(log_w, names, title=title),
    )


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
        extra_files={ORDER_PICTURE: order.picture},
    )
