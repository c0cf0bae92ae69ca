"""Molecules of a trained model in its figures and its card, prompts in what is made, and exact resumption."""

from pathlib import Path

import pytest
import torch

from tests.model.artifacts import random_transformer
from tests.training.molecules import molecules_dataset, molecules_recipe
from unveil.model.artifact.folder import load_artifact
from unveil.model.decoding.canvas import SamplingParams
from unveil.model.tokenizers.smiles import SmilesTokenizer
from unveil.training.evaluation import molecules
from unveil.training.evaluation.chemistry import NEEDED
from unveil.training.evaluation.molecules import make, molecule_metrics, num_samples
from unveil.training.evaluation.report import evaluate_model, num_row_forwards
from unveil.training.publishing.metric_tables import molecule_lines
from unveil.training.publishing.publish import publish
from unveil.training.trainer import Trained, train

pytest.importorskip("rdkit")
DATASET = molecules_dataset()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    found = train(molecules_recipe(), DATASET, work=tmp_path_factory.mktemp("run"))
    assert found is not None
    return found


def test_a_killed_run_goes_on_bit_for_bit(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unveil.training.step.stepper import Stepper

    take = Stepper.take

    def dies(self: Stepper, step: int) -> object:
        if step == 4:
            raise KeyboardInterrupt
        return take(self, step)

    monkeypatch.setattr(Stepper, "take", dies)
    with pytest.raises(KeyboardInterrupt):
        train(molecules_recipe(), DATASET, work=tmp_path)
    monkeypatch.setattr(Stepper, "take", take)
    resumed = train(molecules_recipe(), DATASET, work=tmp_path)
    assert resumed is not None
    for name, value in trained.denoiser.state_dict().items():
        assert torch.equal(value, resumed.denoiser.state_dict()[name]), name


def test_the_artifact_of_molecules_loads_and_its_card_says_what_the_judge_says(
    trained: Trained, tmp_path: Path
) -> None:
    told: list[int] = []
    publish(trained, molecules_recipe(), DATASET, out=tmp_path / "a", recipe_text="", advance=told.append)
    artifact = load_artifact(tmp_path / "a")
    assert artifact.manifest.domain == artifact.tokenizer.domain == "smiles"
    assert artifact.tokenizer.describe() == DATASET.tokenizer.describe()
    metrics = artifact.manifest.metrics["molecules"]
    assert metrics["samples"] == 8
    (line,) = molecule_lines(artifact.manifest.metrics, digits=3)
    assert line in (tmp_path / "a" / "README.md").read_text()
    assert sum(told) == num_row_forwards(artifact.denoiser, DATASET, split="test", limit=8)


def test_metrics_are_the_same_every_time_and_cost_what_was_said(trained: Trained) -> None:
    told: list[int] = []
    metrics = molecule_metrics(trained.denoiser, DATASET, limit=8, advance=told.append)
    assert metrics == molecule_metrics(trained.denoiser, DATASET, limit=8)
    assert sum(told) == num_samples(DATASET, 8) * DATASET.train.shape[1]
    assert metrics["training_molecules"] == len(DATASET.train) + len(DATASET.validation)
    assert metrics["training_molecules_in_canonical_form"] == 1.0


def test_without_rdkit_it_is_said_in_metrics_and_words(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(molecules, "has_rdkit", lambda: False)
    assert num_samples(DATASET, 8) == 0
    metrics = evaluate_model(trained.denoiser, DATASET, limit=4)
    assert metrics["molecules"] == {"left_out": NEEDED}
    (line,) = molecule_lines(metrics, digits=3)
    assert line == f"Validity, uniqueness and novelty of molecules are left out: {NEEDED}."


def test_what_is_made_holds_its_prompt() -> None:
    tokenizer = DATASET.tokenizer
    assert isinstance(tokenizer, SmilesTokenizer)
    network = random_transformer(tokenizer)
    made = make(network, tokenizer, ["c1ccc([MASK:3])cc1", "CC"], params=SamplingParams(), seed=1)
    assert made[0].startswith("c1ccc(")
    assert made[0].endswith(")cc1")
    assert made[1].startswith("CC")
