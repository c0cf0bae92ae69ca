"""What a SMILES opens, it closes."""

import pytest

from tests.training.molecules import textbook
from unveil.training.data.molecules.smiles_syntax import first_unpaired

VALID = (
    "C",
    "C1CC1C1CC1",  # a ring number used twice
    "C1CCC2CCCCC2C1",
    "C12CC1CC2",
    "C%10CC%10",
    "C=1CCCCC=1",
    "C1.C1",  # a ring closed across a dot is a bond
    "CC(C)(C(=O)O)c1ccc(cc1)[N+](=O)[O-]",
    "[13CH3][C@@H]([NH3+])C(=O)[O-]",  # digits in a bracket are no rings
    "F/C=C\\F",
    "[Na+].[Cl-]",
    "[Fe+2]",
    "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
)
UNPAIRED = (
    ("C[nH", '"[" is not closed', 2),
    ("C[[nH]]", '"[" is not closed', 2),
    ("C]", '"]" closes nothing', 2),
    ("[]", '"[" is not closed', 1),
    ("CC(C", '"(" is not closed', 3),
    ("C(C(C)", '"(" is not closed', 2),
    ("CC)C", '")" closes nothing', 3),
    ("C(C))(", '")" closes nothing', 5),
    ("c1ccccc", "ring 1 is not closed", 2),
    ("C1CC1C1", "ring 1 is not closed", 7),
    ("BrC%12CC", "ring 12 is not closed", 4),
    ("C1CC2CC1(", "ring 2 is not closed", 5),
)


@pytest.mark.parametrize("smiles", VALID)
def test_what_is_whole_is_left_alone(smiles: str) -> None:
    assert first_unpaired(smiles) is None


def test_a_ring_number_in_either_way_of_writing_is_the_same_ring() -> None:
    assert first_unpaired("C%01CC1") is None  # as OpenSMILES has it; RDKit does not read it


def test_the_textbook_is_left_alone() -> None:
    assert [text for text in textbook() if first_unpaired(text) is not None] == []


@pytest.mark.parametrize(("smiles", "problem", "character"), UNPAIRED)
def test_the_first_piece_without_another_end_is_named(smiles: str, problem: str, character: int) -> None:
    assert first_unpaired(smiles) == (problem, character)


def test_rdkit_reads_what_is_whole_and_refuses_what_is_not() -> None:
    chem = pytest.importorskip("rdkit.Chem")
    block = pytest.importorskip("rdkit.rdBase").BlockLogs()
    assert all(chem.MolFromSmiles(smiles) is not None for smiles in VALID)
    assert [smiles for smiles, _, _ in UNPAIRED if chem.MolFromSmiles(smiles) is not None] == []
    del block
