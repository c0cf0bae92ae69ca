"""What a judge that is not ours, RDKit, says of SMILES: MOSES's own definitions. Knows no network; RDKit is optional.

Valid: RDKit reads and sanitizes it (an empty one is not counted as valid). Unique: of the first k valid ones, the share
of different canonical forms. Novel: of the different valid ones, the share that the training molecules do not have.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

NEEDED = "RDKit is not installed: pip install 'unveil[rdkit]'"
_ASKED = 500  # training molecules, from which it is told whether they stand in canonical form
_CANONICAL_SHARE = 0.99


def has_rdkit() -> bool:
    return find_spec("rdkit") is not None


def canonical(smiles: str) -> str | None:
    """RDKit's own way to write the molecule; None for what it does not take for one."""
    molecule = read(smiles)
    return None if molecule is None else str(_chem().MolToSmiles(molecule))


def read(smiles: str) -> Any | None:
    """RDKit's molecule, or None."""
    if not smiles:
        return None
    with _quiet():
        return _chem().MolFromSmiles(smiles)


def scaffold(smiles: str) -> str:
    """The Bemis-Murcko scaffold, rings and what links them; empty for a molecule without rings."""
    module = import_module("rdkit.Chem.Scaffolds.MurckoScaffold")
    return str(module.MurckoScaffoldSmiles(mol=read(smiles)))


def contains(smiles: str, part: str) -> bool:
    """Whether a molecule has the part as a substructure; False where it is no molecule."""
    molecule, query = read(smiles), read(part)
    return molecule is not None and query is not None and bool(molecule.HasSubstructMatch(query))


def judge(smiles: Sequence[str], *, train: Sequence[str]) -> dict[str, Any]:
    """Validity with its standard error, uniqueness and novelty; the last two None where nothing is valid."""
    forms = [form for form in map(canonical, smiles) if form is not None]
    different = set(forms)
    share = len(forms) / len(smiles)
    known, share_canonical = _forms_of(train)
    return {
        "samples": len(smiles),
        "valid": {"mean": share, "standard_error": (share * (1 - share) / len(smiles)) ** 0.5},
        "unique": len(different) / len(forms) if forms else None,
        "novel": len(different - known) / len(different) if different else None,
        "training_molecules": len(train),
        "training_molecules_in_canonical_form": share_canonical,
    }


def unique_share(smiles: Sequence[str], *, first: int) -> float | None:
    """MOSES's unique@k: of the first k valid ones."""
    forms = [form for form in map(canonical, smiles) if form is not None][:first]
    return len(set(forms)) / len(forms) if forms else None


def _forms_of(train: Sequence[str]) -> tuple[set[str], float]:
    """The training molecules' canonical forms. Where (nearly) all stand in it already they are taken as they stand, as
    MOSES takes its own: to write a million of them anew takes a quarter of an hour."""
    asked = train[:: max(len(train) // _ASKED, 1)]
    share = sum(canonical(text) == text for text in asked) / len(asked)
    if share >= _CANONICAL_SHARE:
        return set(train), share
    return {form for form in map(canonical, train) if form is not None}, share


def _chem() -> Any:
    return import_module("rdkit.Chem")


@contextmanager
def _quiet() -> Iterator[None]:
    """RDKit says on stderr why it does not take a SMILES."""
    log = import_module("rdkit.rdBase")
    with log.BlockLogs():
        yield
