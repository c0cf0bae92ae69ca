"""Choices of late queries: the quick variant trains every arm, and an arm changes what its name says."""

from pathlib import Path

import pytest

from tests.benchmarks.quick import run_one_seed
from tests.training.molecules import MOLECULES
from unveil.benchmarks.orders.choices import ARMS, BUNDLED, KINDS, as_text, settings_of, shape
from unveil.benchmarks.orders.late_queries import RECIPES
from unveil.model.network.architecture import Architecture
from unveil.training.config import load_recipe


def test_the_quick_variant_sets_every_choice_beside_the_bundled_one(tmp_path: Path) -> None:
    report = run_one_seed("choices", tmp_path, "--smiles", str(MOLECULES), "--problems", "moses")
    (arms,) = report["problems"].values()
    assert list(arms) == list(ARMS)
    for found in arms.values():
        for kind in KINDS:
            less = found["nats"][kind]["mean"] - arms[BUNDLED]["nats"][kind]["mean"]
            assert found["minus_bundled"][kind]["mean"] == pytest.approx(less)
    assert len({found["nats"]["uniform"]["mean"] for found in arms.values()}) > len(ARMS) // 2
    assert "minus as bundled" in as_text(report)


SHAPE = {
    "length": 8,
    "vocabulary_sizes": (5,),
    "layers": 2,
    "query_layers": 2,
    "relative_bias": True,
    "activation": "squared_relu",
}


def test_an_arm_changes_one_thing() -> None:
    recipe = load_recipe(RECIPES / "moses.toml")
    architecture = Architecture.model_validate(SHAPE)
    bundled = settings_of(BUNDLED, recipe, seconds=1.0, seed=0)
    assert bundled.matrix_rate == recipe.matrix_rate
    for arm in ARMS[1:]:
        settings, own = settings_of(arm, recipe, seconds=1.0, seed=0), shape(arm, architecture)
        is_training, is_shape = settings != bundled, own != architecture
        assert is_training or is_shape or arm == "two layers ask", "the shape that is asked for here"
        assert not (is_training and is_shape)
        assert own.layers + own.query_layers == 4
    half = settings_of("half of the batch", recipe, seconds=1.0, seed=0)
    assert half.batch_size == recipe.optimizer.batch_size // 2
