"""From a run to an artifact: figures, card, picture, and the order in words."""

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from tests.training.small import small_dataset, small_recipe
from unveil.model.artifact.folder import load_artifact
from unveil.training.config import Recipe
from unveil.training.evaluation.report import evaluate_model, num_row_forwards
from unveil.training.publishing.order_report import as_json, chart, in_words, places
from unveil.training.publishing.publish import publish
from unveil.training.trainer import train

DATASET = small_dataset()
NAMES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "small"
    recipe: Recipe = small_recipe("advanced.order.warmup=0.0", "advanced.order.anneal=0.0", "optimizer.steps=20")
    trained = train(recipe, DATASET, work=folder.with_name("small.run"))
    assert trained is not None
    publish(trained, recipe, DATASET, out=folder, recipe_text='name = "small"')
    return folder


def test_the_artifact_says_how_it_was_made_and_how_good_it_is(artifact: Path) -> None:
    manifest = load_artifact(artifact).manifest
    assert manifest.order.kind == "global"
    assert manifest.training["recipe"]["name"] == "small"
    assert manifest.training["data_sha256"] == DATASET.fingerprint
    assert manifest.training["row_forwards"] == 20 * 32
    assert manifest.metrics["split"] == "test"
    assert manifest.metrics["rows"] == len(DATASET.test)
    json.dumps(manifest.metrics, allow_nan=False)


def test_the_card_has_every_section_and_the_metrics_of_the_config(artifact: Path) -> None:
    card = (artifact / "README.md").read_text()
    for section in ("Data", "Figures", "Learned order", "Recipe", "Limits", "License"):
        assert f"\n## {section}\n" in card
    manifest = load_artifact(artifact).manifest
    assert f"{manifest.metrics['nelbo']['learned']['mean']:.3f}" in card
    assert f"{manifest.num_parameters:,} parameters" in card
    assert 'name = "small"' in card
    for name in NAMES:
        assert f"| {name} |" in card


def test_a_run_that_went_on_says_from_what_and_which_network_it_trained(artifact: Path, tmp_path: Path) -> None:
    fields = small_recipe("optimizer.steps=3", "seed=5", f"start.artifact={artifact}").model_dump(mode="json")
    fields["advanced"].pop("model")
    recipe = Recipe.model_validate({**{k: v for k, v in fields.items() if k != "model"}, "name": "later"})
    assert recipe.model != small_recipe().model  # the defaults, which say nothing here
    trained = train(recipe, DATASET, work=tmp_path / "later.run")
    assert trained is not None
    publish(trained, recipe, DATASET, out=tmp_path / "later", recipe_text="")
    before, manifest = load_artifact(artifact).manifest, load_artifact(tmp_path / "later").manifest
    assert manifest.training["recipe"]["model"] == before.training["recipe"]["model"]
    assert manifest.training["start"] == {"weights_sha256": before.weights_sha256, "training": before.training}
    card = (tmp_path / "later" / "README.md").read_text()
    assert "3 steps, 96 row-forwards, seed 5, torch" in card
    assert (
        f"Went on from weights {before.weights_sha256[:12]}, small: 20 steps, 640 row-forwards, seed 0, torch" in card
    )


def test_the_card_shows_the_order_as_a_picture_that_is_there(artifact: Path) -> None:
    assert "](order.svg)" in (artifact / "README.md").read_text()
    assert ElementTree.fromstring((artifact / "order.svg").read_bytes()).tag.endswith("svg")


def test_the_metrics_are_those_of_the_evaluation(artifact: Path) -> None:
    loaded = load_artifact(artifact)
    told: list[int] = []
    metrics = evaluate_model(loaded.denoiser, DATASET, advance=told.append)
    # Training computes these in the same float32, but with weights that never went through a file.
    assert metrics == loaded.manifest.metrics
    assert sum(told) == num_row_forwards(loaded.denoiser, DATASET, split="test", limit=None)
    log_likelihood = metrics["log_likelihood"]["learned"]["mean"]
    assert -metrics["nelbo"]["learned"]["mean"] == pytest.approx(log_likelihood, abs=1.0)
    assert set(metrics["imputation"]) == set(NAMES)
    assert all(0 <= row["accuracy"] <= 1 for row in metrics["imputation"].values())


def test_mean_places_are_exact_and_add_up() -> None:
    log_w = torch.tensor([math.log(3.0), 0.0, 0.0])
    found = {place.position: place for place in places(log_w, ["x", "y", "z"])}
    assert found[0].mean == pytest.approx(1 + 0.25 + 0.25)
    assert found[1].mean == pytest.approx(1 + 0.75 + 0.5)
    assert sum(place.mean for place in found.values()) == pytest.approx(1 + 2 + 3)
    assert found[0].first == pytest.approx(0.6)


def test_places_are_ranked_with_the_largest_weight_first() -> None:
    ranked = places(torch.tensor([-9.0, 9.0, 0.0]), [None, None, None])
    assert [place.name for place in ranked] == ["position 1", "position 2", "position 0"]
    assert all(place.low == place.high == rank for rank, place in enumerate(ranked, start=1))


def test_an_order_in_words_says_how_decided_it_is() -> None:
    assert "is uniform" in in_words("uniform", torch.zeros(4), NAMES)
    assert "hardly decided" in in_words("global", torch.zeros(4), NAMES)
    assert "only partly decided" in in_words("global", torch.tensor([0.0, 1.0, -1.0, 2.0]), NAMES)
    words = in_words("global", torch.tensor([0.0, 30.0, -30.0, 60.0]), NAMES)
    assert "one fixed order" in words
    assert [line.split()[1] for line in words.splitlines()[1:]] == ["d", "b", "a", "c"]


def test_an_order_as_json_can_be_written_as_json() -> None:
    value = as_json("global", torch.tensor([0.0, 1.0, -1.0, 2.0]), NAMES)
    assert [p["name"] for p in json.loads(json.dumps(value))["positions"]] == ["d", "b", "a", "c"]


def test_the_chart_names_every_position_and_is_the_same_every_time() -> None:
    log_w = torch.tensor([0.0, 1.0, -1.0, 2.0])
    picture = chart(log_w, ["age", "sex", "income", "race"], title="small: global order")
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert picture == chart(log_w, ["age", "sex", "income", "race"], title="small: global order")
