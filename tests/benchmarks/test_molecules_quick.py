"""Molecules: the quick variant prints what it should, scaffolds keep what they must, and the distance is one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.quick import call, run_one_seed
from tests.training.molecules import MOLECULES, molecules_dataset, textbook
from unveil.benchmarks.domains.molecules import CHAR_RNN, COLUMNS, WAYS
from unveil.benchmarks.domains.problems.chemnet import Moments, frechet, has_fcd
from unveil.benchmarks.domains.problems.molecule_judge import real_rows, share_filled
from unveil.benchmarks.domains.problems.molecules import scaffold_prompt, scaffold_prompts
from unveil.model.tokenizers.smiles import SmilesTokenizer
from unveil.training.evaluation.chemistry import contains

pytest.importorskip("rdkit")


def test_a_prompt_is_the_scaffold_with_holes_for_side_chains() -> None:
    assert scaffold_prompt("CC(=O)Oc1ccccc1C(=O)O") == ("[MASK:7]c1ccccc1[MASK:6]", "c1ccccc1")
    assert scaffold_prompt("Cc1ccc(C(N)=O)cc1") == ("[MASK]c1ccc[MASK:8]cc1", "c1ccccc1")
    assert scaffold_prompt("O=C(Nc1ccccc1)c1ccccc1Cl") == ("O=C(Nc1ccccc1)c1ccccc1[MASK]", "O=C(Nc1ccccc1)c1ccccc1")
    assert scaffold_prompt("c1ccccc1") is None
    assert scaffold_prompt("CCO") is None


def test_every_textbook_scaffold_filled_with_what_was_there_is_the_molecule() -> None:
    tokenizer = molecules_dataset().tokenizer
    assert isinstance(tokenizer, SmilesTokenizer)
    asked = [(text, found) for text in textbook() if (found := scaffold_prompt(text)) is not None]
    assert len(asked) > 100
    for text, (prompt, core) in asked:
        template, row = tokenizer.encode(prompt), tokenizer.row(text)
        assert row is not None
        given = [(i, token) for i, token in enumerate(template.tokens) if not template.hidden[i]]
        assert all(row[i] == token for i, token in given), (text, prompt)
        assert contains(text, core)


def test_scaffolds_and_references_come_from_the_whole_file_however_it_is_sorted() -> None:
    smiles = sorted(textbook(), key=len)
    place = {text: i for i, text in enumerate(smiles)}
    asked = [(text, found) for text in smiles if (found := scaffold_prompt(text)) is not None]
    of = {found: place[text] for text, found in asked}
    drawn = [of[found] for found in scaffold_prompts(smiles, count=40, seed=0)]
    assert len(drawn) == 40
    everywhere = [place[text] for text, _ in asked]
    assert abs(np.mean(drawn) - np.mean(everywhere)) < np.std(everywhere) / 2
    assert np.mean(drawn) > np.mean(everywhere[:40]) + np.std(everywhere) / 2  # the head is not like the rest
    dataset = molecules_dataset()
    dataset = replace(dataset, test=np.sort(dataset.test, axis=0), validation=np.sort(dataset.validation, axis=0))
    reference, real = real_rows(dataset, limit=6)
    for rows, split in ((reference, dataset.test), (real, dataset.validation)):
        assert len(rows) == 6
        assert not (rows == split[:6]).all()
    assert not (real_rows(dataset, limit=6)[0] != reference).any()


def test_only_molecules_with_their_scaffold_count_as_filled() -> None:
    assert share_filled(["Cc1ccccc1", "CC", "C(", "OC1CCCCC1"], ["c1ccccc1"] * 4) == 0.25
    assert share_filled([], []) is None


def test_the_distance_of_two_gaussians_is_that_of_the_formula() -> None:
    draws = np.random.default_rng(0)
    mean, cov = draws.normal(size=3), np.diag([1.0, 4.0, 9.0])
    one = Moments(mean, cov)
    assert frechet(one, one) == pytest.approx(0.0, abs=1e-9)
    assert frechet(one, Moments(mean + 2.0, cov)) == pytest.approx(12.0)
    assert frechet(one, Moments(mean, 4 * cov)) == pytest.approx(1 + 4 + 9)


def test_orders_are_chosen_for_an_artifact_and_its_own_is_among_them(tmp_path: Path) -> None:
    bundled = str(Path("checkpoints/moses").resolve())
    for arguments, line in (
        (("--infills", "-1"), "argument --infills: takes 0 or more, not -1"),
        (("--orders", "learned"), "--orders goes with --artifact"),
        (("--orders", "uniform", "--artifact", bundled), "--orders: takes learned and some of uniform, confidence"),
        (("--orders", "learned,upwards", "--artifact", bundled), "--orders: takes learned and some of uniform"),
    ):
        refused = call("molecules", "--quick", *arguments)
        assert refused.returncode == 2
        assert line in refused.stderr


def test_the_quick_variant_sets_every_way_beside_what_is_published(tmp_path: Path) -> None:
    report = run_one_seed("molecules", tmp_path, "--smiles", str(MOLECULES))
    assert list(report["ways"]) == list(WAYS)
    assert report["published"]["CharRNN"] == CHAR_RNN
    (seed,) = report["seeds"]
    assert len(set(seed["row_forwards"].values())) == 1  # equal forwards
    for label, columns in report["ways"].items():
        assert tuple(columns) == COLUMNS
        assert columns["valid"]["mean"] == seed["ways"][label]["valid"]
        assert 0 <= columns["infilled"]["mean"] <= 1
    assert report["left_out"].keys() == (set() if has_fcd() else {"fcd, fcd_real"})
    assert run_one_seed("molecules", tmp_path, "--smiles", str(MOLECULES)) == report  # found again
