"""`unveil train`, `evaluate` and `order`: what to call in `training`, and what to show."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model.artifact import Artifact, load_artifact
from model.errors import ArtifactError, DataError
from training.config import Recipe, RecipeError, load_recipe, settle, table_recipe
from training.data.config import DataConfig, TableData
from training.data.dataset import Dataset
from training.data.load import load_dataset
from training.evaluate import Advance
from training.order_report import as_json as order_as_json
from training.order_report import chart, in_words
from training.publish import describe_data, publish
from training.report import evaluate_model, num_row_forwards
from training.trainer import train as run_training
from unveil.output import print_json

_stderr = Console(stderr=True, highlight=False, markup=False)


def cache_folder() -> Path:
    """Where fetched packages are kept: UNVEIL_CACHE, or .cache/unveil in the home folder."""
    return Path(os.environ.get("UNVEIL_CACHE") or "~/.cache/unveil").expanduser()


def train(*, recipe: Path | None, table: Path | None, out: Path | None, overrides: list[str]) -> None:
    """Trains a recipe, or a table by default settings, and writes the artifact."""
    is_main = int(os.environ.get("RANK", "0")) == 0
    loaded = _recipe(recipe, table, out, overrides)
    folder = out or Path("runs") / loaded.name
    dataset = load_dataset(loaded.data, cache=cache_folder())
    loaded = settle(loaded, num_rows=len(dataset.train))
    if is_main:
        _stderr.print(describe_data(dataset), soft_wrap=True)
    trained = run_training(loaded, dataset, work=folder.with_name(folder.name + ".run"))
    if trained is None:
        return
    total = num_row_forwards(dataset, split="test", limit=loaded.run.evaluate_rows)
    with _Bar("evaluating on the test split", total) as advance:
        publish(trained, loaded, dataset, out=folder, recipe_text=_recipe_text(loaded), advance=advance)
    _stderr.print(f"wrote {folder}; serve it with: unveil serve {folder}", soft_wrap=True)


def evaluate(artifact: Path, *, split: str, rows: int | None, table: Path | None, as_json: bool) -> None:
    """Evaluates an artifact on a split of the data it was trained on."""
    loaded = load_artifact(artifact)
    dataset = _dataset_of(artifact, loaded, table)
    total = num_row_forwards(dataset, split=split, limit=rows)
    with _Bar(f"evaluating on the {split} split", total) as advance:
        figures = evaluate_model(loaded.denoiser, dataset, split=split, limit=rows, advance=advance)
    if as_json:
        print_json(figures)
    else:
        _show_figures(figures)


def order(artifact: Path, *, plot: Path | None, as_json: bool) -> None:
    """Prints the learned order, and draws it where a file is given."""
    loaded = load_artifact(artifact)
    log_w = loaded.denoiser.order_head.global_log_w().detach()
    names = [loaded.tokenizer.name(i) for i in range(loaded.manifest.length)]
    kind = loaded.manifest.order.kind
    if plot is not None:
        plot.write_bytes(chart(log_w, names, title=f"{artifact.resolve().name}: {kind} order"))
    if as_json:
        print_json(order_as_json(kind, log_w, names))
    else:
        print(in_words(kind, log_w, names))


def _recipe(recipe: Path | None, table: Path | None, out: Path | None, overrides: list[str]) -> Recipe:
    if recipe is not None:
        return load_recipe(recipe, overrides=overrides)
    assert table is not None
    return table_recipe(table, name=out.resolve().name if out is not None else table.stem, overrides=overrides)


def _recipe_text(recipe: Recipe) -> str:
    """The recipe as it was run, defaults and overrides included, in TOML."""
    fields = recipe.model_dump(mode="json", exclude_none=True)
    tables = {name: part for name, part in fields.items() if isinstance(part, dict)}
    lines = [f"{name} = {_toml(value)}" for name, value in fields.items() if name not in tables]
    for name, part in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in part.items())]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _dataset_of(folder: Path, artifact: Artifact, table: Path | None) -> Dataset:
    """The data the artifact was trained on, read anew and recognised by its fingerprint."""
    try:
        config = TypeAdapter[Any](DataConfig).validate_python(artifact.manifest.training["recipe"]["data"])
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(f"{folder}: does not say what data it was trained on") from None
    if table is not None:
        if not isinstance(config, TableData):
            raise RecipeError(f"--table: this artifact was trained on {config.kind}, not on a table of yours")
        config = config.model_copy(update={"path": table})
    dataset = load_dataset(config, cache=cache_folder())
    if dataset.fingerprint != artifact.manifest.training.get("data_sha256"):
        raise DataError(f"{dataset.name}: not the data that {folder} was trained on (its fingerprint differs)")
    return dataset


def _show_figures(figures: dict[str, Any]) -> None:
    print(f"{figures['rows']:,} rows of the {figures['split']} split, nats a row ± one standard error")
    table = Table("order", "NELBO", "exact log-likelihood of the likeliest order")
    for name in ("learned", "uniform", "reversed", "left_to_right"):
        cells = [figures[kind].get(name) for kind in ("nelbo", "log_likelihood")]
        table.add_row(name, *("" if c is None else f"{c['mean']:.4f} ± {c['standard_error']:.4f}" for c in cells))
    console = Console()
    console.print(table)
    conditional = figures["conditional"]
    shown = f"{conditional['mean']:.4f} ± {conditional['standard_error']:.4f}"
    print(f"with a random part of the row known: {shown} nats a hidden position")
    if "imputation" in figures:
        table = Table("one column hidden", "likeliest value right", "commonest value right")
        for name, row in figures["imputation"].items():
            table.add_row(name, f"{row['accuracy']:.3f}", f"{row['commonest_level']:.3f}")
        console.print(table)


class _Bar:
    """A progress bar on stderr that disappears when done."""

    def __init__(self, title: str, total: int) -> None:
        self._progress = Progress(console=_stderr, transient=True, disable=not _stderr.is_terminal)
        self._task = self._progress.add_task(title, total=total)

    def __enter__(self) -> Advance:
        self._progress.start()
        return lambda count: self._progress.advance(self._task, count)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
