"""The recipes for GPUs, in small on a few made-up documents: they load, train and publish.

Spread over processes: `tests/integration/test_training_processes.py`.
"""

import json
from pathlib import Path

import pytest

from tests.training.small import documents
from unveil.model.artifact.folder import load_artifact
from unveil.training.config import Recipe, load_recipe
from unveil.training.data.load import load_dataset
from unveil.training.publishing.publish import publish
from unveil.training.trainer import train

pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("default")  # of the library's own
RECIPES = sorted(Path(__file__).parents[2].glob("training/recipes/gpu/*.toml"))
SMALL = (
    "data.length=12",
    "advanced.data.validation_documents=3",
    "advanced.data.test_documents=3",
    "model.width=16",
    "model.layers=1",
    "model.heads=2",
    "model.mlp_width=32",
    "optimizer.steps=4",
    "optimizer.batch_size=8",
    "advanced.optimizer.accumulate=1",
    "run.precision=32-true",
    "advanced.run.accelerator=cpu",
    "advanced.run.compile=false",
    "run.threads=1",
    "advanced.run.validate_rows=2",
    "run.evaluate_rows=2",
)


def test_all_three_are_there_and_say_that_no_gpu_has_seen_them() -> None:
    assert [path.stem for path in RECIPES] == ["lm1b", "openwebtext", "text8"]
    for path in RECIPES:
        assert "NOT RUN AT SCALE" in path.read_text()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    for split in ("train", "validation", "test"):
        documents(folder, split=split)
    return folder


def overrides(corpus: Path) -> list[str]:
    return [f"data.path={json.dumps(str(corpus))}", *SMALL]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_trains_and_publishes_in_small(path: Path, corpus: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, overrides=overrides(corpus))
    dataset = load_dataset(recipe.data, cache=tmp_path / "cache")
    trained = train(recipe, dataset, work=tmp_path / "work")
    assert trained is not None
    publish(trained, recipe, dataset, out=tmp_path / "out", recipe_text=path.read_text())
    artifact = load_artifact(tmp_path / "out")
    assert artifact.manifest.order.kind == "global"
    assert "the cat" in "".join(artifact.tokenizer.token(0, int(i)) for i in dataset.test.ravel())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_at_scale_it_has_about_a_hundred_million_parameters(path: Path) -> None:
    recipe = load_recipe(path)
    assert 80e6 < parameters(recipe) < 120e6
    assert recipe.run.precision == "bf16-mixed"


def parameters(recipe: Recipe) -> int:
    """By the sizes of its matrices."""
    shape = recipe.model
    vocabulary = getattr(recipe.data, "vocab_size", None) or 27
    return recipe.layers * (4 * shape.width**2 + 2 * shape.width * shape.mlp_width) + vocabulary * shape.width
