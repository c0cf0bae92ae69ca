"""What RDKit says of molecules, by MOSES's definitions, and what is said where it is not installed."""

import pytest

from model.canvas import SamplingParams
from model.tokenizers.smiles import SmilesTokenizer
from tests.model.artifacts import random_transformer
from tests.training.molecules import molecules_dataset, molecules_recipe
from training import molecule_report
from training.chemistry import NEEDED, canonical, contains, judge, scaffold, unique_share
from training.molecule_report import make, molecule_figures, num_samples
from training.trainer import train

pytest.importorskip("rdkit")
DATASET = molecules_dataset()


def test_valid_is_what_rdkit_reads_and_nothing_is_not() -> None:
    assert canonical("OCC") == "CCO"
    assert [canonical(text) for text in ("", "C(", "c1cccc1", "C=O=C", "F(C)C")] == [None] * 5


def test_the_definitions_are_those_of_moses() -> None:
    found = judge(["CCO", "OCC", "C(", "CCN", "CCCl"], train=["CCO", "CCC"])
    assert found["samples"] == 5
    assert found["valid"]["mean"] == 0.8
    assert found["valid"]["standard_error"] == pytest.approx((0.8 * 0.2 / 5) ** 0.5)
    assert found["unique"] == 3 / 4  # of the valid ones
    assert found["novel"] == 2 / 3  # of the different ones
    assert unique_share(["C(", "CCO", "OCC", "CCN"], first=2) == 1 / 2


def test_training_molecules_in_another_form_are_known_too() -> None:
    assert judge(["CCO", "CCN"], train=["OCC", "NCCC"])["novel"] == 1 / 2


def test_where_nothing_is_valid_the_rest_is_none() -> None:
    found = judge(["C(", "("], train=["CCO"])
    assert (found["valid"]["mean"], found["unique"], found["novel"]) == (0.0, None, None)


def test_a_scaffold_is_rings_and_what_links_them() -> None:
    assert scaffold("CC(=O)Oc1ccccc1C(=O)O") == "c1ccccc1"
    assert contains("Cc1ccc(O)cc1", "c1ccccc1")
    assert not contains("C1CCCCC1", "c1ccccc1")
    assert not contains("c1cc", "c1ccccc1")


def test_figures_of_a_trained_model_are_the_same_every_time_and_cost_what_was_said(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    trained = train(molecules_recipe(), DATASET, work=tmp_path_factory.mktemp("run"))
    assert trained is not None
    told: list[int] = []
    figures = molecule_figures(trained.denoiser, DATASET, limit=8, advance=told.append)
    assert figures == molecule_figures(trained.denoiser, DATASET, limit=8)
    assert sum(told) == num_samples(DATASET, 8) * DATASET.train.shape[1]
    assert figures["samples"] == 8
    assert figures["training_molecules"] == len(DATASET.train) + len(DATASET.validation)
    assert figures["training_molecules_in_canonical_form"] == 1.0


def test_without_rdkit_it_is_said_and_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(molecule_report, "has_rdkit", lambda: False)
    assert num_samples(DATASET, 8) == 0

    def never(*_: object) -> None:
        raise AssertionError

    assert molecule_figures(never, DATASET, limit=8) == {"left_out": NEEDED}  # type: ignore[arg-type]


def test_what_is_made_holds_its_prompt() -> None:
    tokenizer = DATASET.tokenizer
    assert isinstance(tokenizer, SmilesTokenizer)
    network = random_transformer(tokenizer)
    made = make(network, tokenizer, ["c1ccc([MASK:3])cc1", "CC"], params=SamplingParams(), seed=1)
    assert made[0].startswith("c1ccc(")
    assert made[0].endswith(")cc1")
    assert made[1].startswith("CC")
