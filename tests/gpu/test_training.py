"""Training on a device: the losses of the CPU, and the bundled models' recipes for a few steps as they ship.

Rows are made up in the shapes of the bundled models: nothing is fetched.
"""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.gpu.places import DEVICES
from unveil.model.artifact.folder import load_artifact
from unveil.training.config import Recipe, build_recipe
from unveil.training.data.dataset import Dataset
from unveil.training.run.devices import make_fabric
from unveil.training.trainer import Run, train

ROOT = Path(__file__).parents[2]
NAMES = ("adult", "moses")
STEPS = 5
HAS_COMPILER = shutil.which("cc") is not None or shutil.which("gcc") is not None
REL_LOSS, REL_NORM = 1e-3, 2e-2  # float32 on two devices: a step's loss, and the norm of its gradient
SMALL = {"adult": (), "moses": ("model.layers=2", "model.width=32", "model.mlp_width=64")}  # on a CPU


def recipe_of(name: str, device: str, *overrides: str) -> Recipe:
    """As it ships, but for its start, which is not fetched, and its number of steps."""
    fields: dict[str, Any] = tomllib.loads((ROOT / "training/recipes" / f"{name}.toml").read_text(encoding="utf-8"))
    fields.pop("start", None)
    small = SMALL[name] if device == "cpu" else ()
    every = ("validate_rows=16", "log_every=1", f"accelerator='{device}'")
    settings = [*small, "optimizer.batch_size=32", *(f"advanced.run.{own}" for own in every), *overrides]
    return build_recipe(fields, overrides=settings, source=name)


def dataset_of(name: str) -> Dataset:
    """Rows whose values are the likelier the smaller their ids are."""
    artifact = load_artifact(ROOT / "checkpoints" / name)
    architecture = artifact.manifest.architecture
    sizes, length, draws = architecture.vocabulary_sizes, architecture.length, np.random.default_rng(0)
    every = sizes if len(sizes) > 1 else sizes * length
    ids = np.stack([np.minimum(draws.geometric(0.5, 192) - 1, size - 1) for size in every], 1)
    train_, validation, test = np.split(ids, [128, 160])
    summary = {"source": "made up"}
    return Dataset(
        name=name, tokenizer=artifact.tokenizer, train=train_, validation=validation, test=test, summary=summary
    )


def losses(name: str, device: str, work: Path) -> list[tuple[float, float]]:
    """Loss and norm of the gradient of each of the first steps, in float32 and without dropout."""
    precise = ("run.precision=32-true", "model.dropout=0.0", f"optimizer.steps={STEPS}", *SMALL[name])
    recipe = recipe_of(name, device, *precise)
    run = Run(make_fabric(recipe.run), recipe, dataset_of(name), work)
    taken = [run.stepper.metrics(run.stepper.take(step)) for step in range(STEPS)]
    return [(own["loss"], own["gradient_norm"]) for own in taken]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_the_first_steps_have_the_losses_of_the_cpu(name: str, device: str, tmp_path: Path) -> None:
    expected, found = losses(name, "cpu", tmp_path / "cpu"), losses(name, device, tmp_path / "device")
    assert expected[-1] != expected[0]
    for (loss, norm), (own_loss, own_norm) in zip(expected, found, strict=True):
        assert own_loss == pytest.approx(loss, rel=REL_LOSS)
        assert own_norm == pytest.approx(norm, rel=REL_NORM)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_in_bf16_and_its_loss_falls(name: str, device: str, tmp_path: Path) -> None:
    """On CUDA compiled, too."""
    if device == "cuda" and not HAS_COMPILER:
        pytest.skip("compiling needs a C compiler")
    num, is_compiled = (12, "false") if device == "cpu" else (60, "true")
    settings = ("run.precision=bf16-mixed", f"advanced.run.compile={is_compiled}", f"optimizer.steps={num}")
    recipe = recipe_of(name, device, *settings, "advanced.optimizer.warmup_steps=2")
    trained = train(recipe, dataset_of(name), work=tmp_path)
    assert trained is not None
    assert (trained.summary["device"], trained.summary["precision"]) == (device, "bf16-mixed")
    assert all(torch.isfinite(parameter).all() for parameter in trained.denoiser.parameters())
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    nats = [line["loss"] for line in logged if line["kind"] == "train"]
    third = len(nats) // 3
    assert np.mean(nats[-third:]) < np.mean(nats[:third])
