"""What RDKit says of molecules, by MOSES's definitions."""

import pytest

from unveil.training.evaluation.chemistry import canonical, contains, judge, scaffold, unique_share

pytest.importorskip("rdkit")


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
