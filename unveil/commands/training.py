"""`unveil train` and `evaluate`: what to call in `training`, and what to show."""

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from unveil.commands.output import UsageError, check_delimiter, print_json
from unveil.commands.progress import Bar, stderr
from unveil.commands.result_files import STANDARD, run_folder
from unveil.engine.runner import pick_device
from unveil.model.artifact.folder import Artifact, check_replaceable, load_artifact
from unveil.model.artifact.manifest import CARD, CONFIG
from unveil.model.errors import ArtifactError, UnveilError
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.tables.files import given_table
from unveil.training.budget import fit_steps, parse_time
from unveil.training.config import (
    NO_OPTIONS,
    Recipe,
    build_recipe,
    data_of,
    lines_recipe,
    load_recipe,
    settle,
    table_recipe,
)
from unveil.training.data.config import DataConfig, TableData
from unveil.training.data.dataset import Dataset
from unveil.training.data.load import load_dataset
from unveil.training.data.table.choices import ColumnOptions
from unveil.training.data.table.table import rules_found
from unveil.training.evaluation.report import evaluate_model, num_row_forwards
from unveil.training.levels import ADVANCED
from unveil.training.publishing.data_summary import describe_data
from unveil.training.publishing.metric_tables import (
    BITS_HEADER,
    FIDELITY_HEADER,
    FIDELITY_NOTE,
    ORDER_HEADER,
    PAIR_HEADER,
    PAIR_NOTE,
    PRIVACY_HEADER,
    SOLVED_HEADER,
    SOLVED_NOTE,
    bits_rows,
    consistency_lines,
    fidelity_rows,
    molecule_lines,
    notes,
    order_rows,
    pair_rows,
    privacy_notes,
    privacy_rows,
    solved_rows,
)
from unveil.training.publishing.publish import publish, recipe_as_run, update_card
from unveil.training.trainer import Trained
from unveil.training.trainer import train as run_training


def cache_folder() -> Path:
    """Where fetched packages are kept: UNVEIL_CACHE, or .cache/unveil in the home folder."""
    return Path(os.environ.get("UNVEIL_CACHE") or "~/.cache/unveil").expanduser()


@dataclass(frozen=True)
class Given:
    """What `unveil train` was given: a recipe, a table, a text a line, or none of them, and a denoiser to freeze."""

    recipe: Path | None
    table: Path | None
    lines: Path | None
    frozen: Path | None
    out: Path | None
    overrides: Sequence[str]
    columns: ColumnOptions = NO_OPTIONS
    only_schema: bool = False
    time: str | None = None

    def name(self, otherwise: str) -> str:
        return self.out.resolve().name if self.out is not None else otherwise


def csv_overrides(table: Path | None, *, delimiter: str | None, no_header: bool) -> list[str]:
    """What says how a CSV table is written, as `--set` has it. Raises UsageError without a table."""
    for option, is_given in (("--delimiter", delimiter is not None), ("--no-header", no_header)):
        if is_given and table is None:
            raise UsageError(f"{option}: is only valid with --table")
    if delimiter is not None:
        check_delimiter(delimiter)
    signs = [] if delimiter is None else [f"data.delimiter={json.dumps(delimiter)}"]
    return [*signs, *(["data.header=false"] if no_header else [])]


@contextmanager
def table_given(table: Path | None, *, out: Path | None, only_schema: bool) -> Iterator[Path | None]:
    """The table to train on; that of stdin is kept beside the artifact for as long as its checkpoints are. Raises
    UsageError where nobody says where."""
    if table is None or table != STANDARD:
        yield table
        return
    if out is None and not only_schema:
        raise UsageError("--table -: needs --out DIR")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--table -: several processes cannot read one stdin; give a file")
    with given_table(table, keep=None if only_schema or out is None else run_folder(out)) as found:
        yield found


def train(given: Given) -> None:
    """Trains a recipe, or a file by default settings, or an order alone for the denoiser of an artifact; writes the
    artifact. With `only_schema` it says what became of the data, on stdout, and stops."""
    is_main = int(os.environ.get("RANK", "0")) == 0
    loaded = _recipe(given)
    seconds = _seconds(given, loaded)
    folder = given.out or Path("runs") / loaded.name
    work = run_folder(folder)
    if not given.only_schema:
        check_replaceable(folder)  # before an hour of training, not after it
    start = None if loaded.start.artifact is None else load_artifact(loaded.start.artifact)
    dataset = load_dataset(loaded.data, cache=cache_folder(), tokenizer=None if start is None else start.tokenizer)
    loaded = settle(loaded, num_rows=len(dataset.train))
    if given.only_schema:
        print(describe_data(dataset))
        _show_rules(loaded, dataset)
        return
    if is_main:
        stderr.print(describe_data(dataset), soft_wrap=True)

    if seconds is not None:
        wanted = loaded.optimizer.num_steps
        loaded = fit_steps(loaded, dataset, seconds=seconds, work=work)
        fitting = f"{loaded.optimizer.num_steps:,} steps fit into --time {given.time}"
        enough = "all" if loaded.optimizer.num_steps == wanted else f"of {wanted:,} that would be taken without it"
        stderr.print(f"{fitting}, {enough}", soft_wrap=True)

    def finish(trained: Trained) -> None:
        total = num_row_forwards(trained.denoiser, dataset, split="test", limit=loaded.run.evaluate_rows)
        text = _recipe_text(recipe_as_run(loaded, trained.denoiser))
        with Bar("evaluating on the test split", total) as advance:
            publish(trained, loaded, dataset, out=folder, recipe_text=text, advance=advance)

    if run_training(loaded, dataset, work=work, then=finish) is not None:
        stderr.print(f"wrote {folder}; serve it with: unveil serve {folder}", soft_wrap=True)


def _show_rules(recipe: Recipe, dataset: Dataset) -> None:
    """What holds in every row of a table, for the person to choose from."""
    if isinstance(recipe.data, TableData) and isinstance(dataset.tokenizer, TableTokenizer):
        found = [rule for rule in rules_found(recipe.data, dataset.tokenizer) if rule not in recipe.data.rules]
        if found:
            print("rules that hold in every row; to have generated rows keep them, add")
        for rule in found:
            print(f"  --rule {shlex.quote(rule)}")


def _seconds(given: Given, recipe: Recipe) -> float | None:
    """Of `--time`. Raises UnveilError."""
    if given.time is None:
        return None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--time: is only valid in one process; give optimizer.steps under torchrun")
    if recipe.optimizer.steps is not None:
        raise UsageError("--time: is only valid where optimizer.steps is left out")
    return parse_time(given.time)


def evaluate(
    artifact: Path,
    *,
    split: str,
    rows: int | None,
    table: Path | None,
    reference: Path | None,
    renews_card: bool,
    as_json: bool,
) -> None:
    """Evaluates an artifact on a split of the data it was trained on, beside a uniform model of the same data if given.

    Raises ArtifactError, UnveilError.
    """
    loaded = load_artifact(artifact)
    recipe = _recipe_to_renew(artifact, loaded) if renews_card else None
    other = None if reference is None else _reference(reference, loaded, artifact).denoiser
    if reference is not None and loaded.manifest.domain == "grid":
        raise UnveilError(
            "--reference: not for grids; benchmarks/domains/sudoku.py compares orders and nets on puzzles"
        )
    _, dataset = trained_on(artifact, loaded, table)
    device = pick_device("auto")
    for network in (loaded.denoiser, *([] if other is None else [other])):
        network.to(device)
    total = num_row_forwards(loaded.denoiser, dataset, split=split, limit=rows, reference=other)
    with Bar(f"evaluating on the {split} split", total) as advance:
        metrics = evaluate_model(loaded.denoiser, dataset, split=split, limit=rows, reference=other, advance=advance)
    if as_json:
        print_json(metrics)
    else:
        _show_metrics(metrics)
    if recipe is not None:  # last: what was printed is not lost where a folder cannot be written
        text = _recipe_text(_recipe_fields(artifact, loaded))
        update_card(artifact, loaded, recipe=recipe, recipe_text=text, metrics=metrics)
        stderr.print(f"wrote {artifact / CARD}, and the figures into {artifact / CONFIG}", soft_wrap=True)


def _recipe_to_renew(folder: Path, artifact: Artifact) -> Recipe:
    """What a new card needs, asked for before the evaluation takes its time."""
    check_replaceable(folder)
    if not isinstance(artifact.manifest.training.get("data"), dict):
        raise ArtifactError(f"{folder}: its configuration does not say what data it was trained on (training.data)")
    return build_recipe(dict(_recipe_fields(folder, artifact)), source=str(folder))


_KEPT = ("data", "prompts", "optimizer")  # of an artifact's recipe, where an order alone is learned for it
_OF_A_DENOISER_THAT_TRAINS = ("backward_loops", "matrix_rate")


def _recipe(given: Given) -> Recipe:
    overrides, frozen = list(given.overrides), given.frozen
    if frozen is not None:
        overrides = [f"start.artifact={json.dumps(str(frozen))}", "start.freeze_denoiser=true", *overrides]
    if given.recipe is not None:
        return load_recipe(given.recipe, overrides=overrides, columns=given.columns)
    if given.table is not None:
        return table_recipe(
            given.table, name=given.name(_as_name(given.table.stem)), overrides=overrides, columns=given.columns
        )
    if given.lines is not None:
        return lines_recipe(given.lines, name=given.name(_as_name(given.lines.stem)), overrides=overrides)
    assert frozen is not None
    fields: dict[str, Any] = _recipe_fields(frozen, load_artifact(frozen))
    kept = {
        "seed": fields.get("seed", 0),
        **_for_an_order(fields),
        "advanced": _for_an_order(fields.get("advanced", {})),
    }
    name = given.name(f"{frozen.resolve().name}-order")
    return build_recipe({"name": name, **kept}, overrides=overrides, columns=given.columns, source="--freeze-denoiser")


def _for_an_order(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a recipe that hold as well where an order alone is learned, without the keys that do not."""
    kept = {name: fields[name] for name in _KEPT if isinstance(fields.get(name), dict)}
    return {
        name: {key: value for key, value in part.items() if key not in _OF_A_DENOISER_THAT_TRAINS}
        for name, part in kept.items()
    }


def _as_name(stem: str) -> str:
    """A file's name as a recipe's may be: `my table (1)` becomes `my-table-1`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "data"


def _recipe_fields(folder: Path, artifact: Artifact) -> dict[str, Any]:
    """The recipe that an artifact was trained by."""
    fields = artifact.manifest.training.get("recipe")
    if "imported" in artifact.manifest.training and fields is None:
        raise ArtifactError(f"{folder}: trained elsewhere, on data it does not name; give it --lines FILE or a recipe")
    if not isinstance(fields, dict) or "data" not in fields:
        raise ArtifactError(f"{folder}: does not say what data it was trained on")
    return fields


def _recipe_text(fields: Mapping[str, Any]) -> str:
    """The recipe as it was run, defaults and overrides included, in TOML."""
    fields = dict(_without_none(fields))
    advanced = {f"{ADVANCED}.{name}": part for name, part in fields.pop(ADVANCED, {}).items()}
    tables = {name: part for name, part in fields.items() if isinstance(part, dict)}
    lines = [f"{name} = {_toml(value)}" for name, value in fields.items() if name not in tables]
    for name, part in {**tables, **advanced}.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in part.items())]
    return "\n".join(lines)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_none(part) for name, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list) else value


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def training_data(folder: Path) -> Dataset:
    """What the artifact in a folder was trained on. Raises UnveilError where it is not there any more."""
    return trained_on(folder, load_artifact(folder), None)[1]


def trained_on(folder: Path, artifact: Artifact, table: Path | None) -> tuple[DataConfig, Dataset]:
    """The data the artifact was trained on, read anew and recognised by its fingerprint."""
    try:
        config = data_of(_recipe_fields(folder, artifact))
    except ValueError:
        raise ArtifactError(f"{folder}: does not say what data it was trained on") from None
    if table is not None:
        if not isinstance(config, TableData):
            raise UnveilError(f"--table: this artifact was trained on {config.kind}, not on a table of yours")
        config = config.model_copy(update={"path": table})
    elif isinstance(config, TableData) and not config.path.is_file():
        raise UnveilError(f"{config.path}: the table that {folder} was trained on is not there; give --table FILE")
    dataset = load_dataset(config, cache=cache_folder(), tokenizer=artifact.tokenizer)
    if dataset.fingerprint != artifact.manifest.training.get("data_sha256"):
        raise UnveilError(f"{dataset.name}: not the data that {folder} was trained on (its fingerprint differs)")
    return config, dataset


def _reference(folder: Path, artifact: Artifact, of: Path) -> Artifact:
    """The model to compare with, once it is known to be one of the same data under uniform orders."""
    reference = load_artifact(folder)
    fingerprints = [a.manifest.training.get("data_sha256") for a in (artifact, reference)]
    if fingerprints[0] is None or fingerprints[0] != fingerprints[1]:
        raise UnveilError(f"--reference {folder}: not trained on the data of {of} (the fingerprints differ)")
    if (kind := reference.manifest.order.kind) != "uniform":
        raise ArtifactError(f"--reference {folder}: must be a model of uniform orders, and this one's are {kind}")
    return reference


def _show_metrics(metrics: dict[str, Any]) -> None:
    print(f"{metrics['rows']:,} rows of the {metrics['split']} split, nats a row ± one standard error")
    console = Console(markup=False)  # names of columns may have brackets
    console.print(_table(ORDER_HEADER, order_rows(metrics, digits=4)))
    for note in notes(metrics, digits=4):
        print(note)
    if "characters" in metrics:
        console.print(_table(BITS_HEADER, bits_rows(metrics, digits=4)))
    if "reference" in metrics:
        print(f"\nBeside the uniform model. {PAIR_NOTE}")
        console.print(_table(PAIR_HEADER, pair_rows(metrics, digits=4)))
    for line in molecule_lines(metrics, digits=4) if "molecules" in metrics else []:
        print(line)
    if "solved" in metrics:
        print(f"\n{SOLVED_NOTE}")
        console.print(_table(SOLVED_HEADER, solved_rows(metrics, digits=4)))
    if "imputation" in metrics:
        rows = [
            (name, f"{row['accuracy']:.3f}", f"{row['commonest_level']:.3f}")
            for name, row in metrics["imputation"].items()
        ]
        console.print(_table(("one column hidden", "likeliest value right", "commonest value right"), rows))
    if "fidelity" in metrics:
        console.print(_table(FIDELITY_HEADER, fidelity_rows(metrics)))
        print(FIDELITY_NOTE)
    for line in consistency_lines(metrics):
        print(line)
    if "privacy" in metrics:
        console.print(_table(PRIVACY_HEADER, privacy_rows(metrics)))
        for note in privacy_notes(metrics):
            print(note)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    return table
