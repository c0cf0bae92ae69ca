"""What every metric of MOSES needs of each molecule, a chunk at a time and kept.

All definitions are those of molsets 0.3.1, and RDKit 2026.9 gives what stands in its statistics, to the last bit:
properties, fingerprints, fragments and scaffolds (`tests/benchmarks/test_moses_protocol.py`).
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unveil.benchmarks.common.runs import Fields
from unveil.benchmarks.domains.problems.chemnet import ChemNet
from unveil.benchmarks.domains.problems.moses_protocol.statistics import (
    PROPERTIES,
    TEST_SETS,
    TestSet,
    filter_smarts,
    statistics_of,
)
from unveil.training.evaluation.chemistry import canonical, read

BITS, RADIUS, CHEMNET_WIDTH = 1024, 2, 512
_ATOMS = {"C", "N", "S", "O", "F", "Cl", "Br", "H"}
_LARGEST_RING = 7
_FEWEST_RINGS = 2  # of a scaffold that is counted
_ROWS_AT_ONCE, _REFERENCES_AT_ONCE = 500, 2_000  # what fits a processor's cache


def measuring_task(smiles: Sequence[str], *, cache_folder: Path, has_chemnet: bool) -> Fields:
    """The task of one chunk for `measure_chunk`; found again by its SMILES and by RDKit's version."""
    return {
        "problem": "moses-measuring",
        "cache": str(cache_folder),
        "chemnet": has_chemnet,
        "rdkit": rdkit_version(),
        "smiles": list(smiles),
    }


def rdkit_version() -> str:
    return str(import_module("rdkit.rdBase").rdkitVersion)


def measure_chunk(task: Fields) -> Fields:
    """`measure` of the task's SMILES, by the wheel's statistics and filters."""
    torch.set_num_threads(1)
    folder = Path(task["cache"])
    references = {name: _references(name, folder) for name in TEST_SETS}
    chemnet = _chemnet() if task["chemnet"] else None
    return measure(task["smiles"], references=references, smarts=filter_smarts(folder), chemnet=chemnet)


def measure(
    smiles: Sequence[str],
    *,
    references: Mapping[TestSet, tuple[Tensor, Tensor]],
    smarts: tuple[str, ...],
    chemnet: ChemNet | None,
) -> Fields:
    """Lists with one entry a valid molecule, in order; `is_valid` has one a SMILES, and arrays are in base64.

    Valid molecules stand in canonical form, and everything is measured on that form, as MOSES does. `references` are
    the bits of each test set (`as_bits`). `chemnet` (float32, 512 a molecule) is None without a net.
    """
    forms = [canonical(text) for text in smiles]
    read_again = [None if form is None else read(form) for form in forms]
    valid = [form for form, molecule in zip(forms, read_again, strict=True) if form and molecule]
    molecules = [molecule for molecule in read_again if molecule]
    prints = fingerprints(molecules)
    return {
        "is_valid": [molecule is not None for molecule in read_again],
        "smiles": valid,
        "properties": {name: [property_of(name, m) for m in molecules] for name in PROPERTIES},
        "passes": [passes_filters(m, smarts) for m in molecules],
        "fragments": [fragments(m) for m in molecules],
        "scaffolds": [scaffold(m) for m in molecules],
        "fingerprints": packed(np.packbits(prints, axis=1)),
        "nearest": {name: nearest(prints, *found).tolist() for name, found in references.items()},
        "chemnet": None if chemnet is None else packed(chemnet.activations(valid)),
    }


def property_of(name: str, molecule: Any) -> float:
    """Crippen's logP, the synthetic accessibility score of RDKit's contributions, QED, or the weight in Daltons."""
    module, function = {
        "logP": ("rdkit.Chem.Crippen", "MolLogP"),
        "SA": ("rdkit.Contrib.SA_Score.sascorer", "calculateScore"),
        "QED": ("rdkit.Chem.QED", "qed"),
        "weight": ("rdkit.Chem.Descriptors", "MolWt"),
    }[name]
    return float(getattr(import_module(module), function)(molecule))


def passes_filters(molecule: Any, smarts: tuple[str, ...]) -> bool:
    """No ring of eight atoms or more, no charge, only MOSES's elements, and none of the structural alerts."""
    if any(len(ring) > _LARGEST_RING for ring in molecule.GetRingInfo().AtomRings()):
        return False
    if any(atom.GetFormalCharge() or atom.GetSymbol() not in _ATOMS for atom in molecule.GetAtoms()):
        return False
    whole = _chem().AddHs(molecule)  # alerts name hydrogens
    return not any(whole.HasSubstructMatch(query) for query in _queries(smarts))


def fragments(molecule: Any) -> list[str]:
    """SMILES of the parts between BRICS bonds, with their kind of end as isotopes."""
    parts = import_module("rdkit.Chem.BRICS").BreakBRICSBonds(molecule)
    found: list[str] = _chem().MolToSmiles(parts).split(".")
    return found


def scaffold(molecule: Any) -> str | None:
    """The Bemis-Murcko scaffold's SMILES; None with fewer than two rings."""
    core = import_module("rdkit.Chem.Scaffolds.MurckoScaffold").GetScaffoldForMol(molecule)
    return str(_chem().MolToSmiles(core)) if core.GetRingInfo().NumRings() >= _FEWEST_RINGS else None


def fingerprints(molecules: Sequence[Any]) -> NDArray[np.uint8]:
    """Morgan fingerprints, [N, 1024], 0 or 1."""
    found = [_generator().GetFingerprintAsNumPy(molecule) for molecule in molecules]
    return np.array(found, dtype=np.uint8).reshape(len(molecules), BITS)


def nearest(prints: NDArray[np.uint8], references: Tensor, counts: Tensor) -> NDArray[np.float64]:
    """The largest Tanimoto similarity of each row [N, 1024] to any reference: [N]."""
    best = torch.zeros(len(prints))
    for rows, start in _blocks(prints):
        for at in range(0, len(references), _REFERENCES_AT_ONCE):
            cut = slice(at, at + _REFERENCES_AT_ONCE)
            found = tanimoto(rows, references[cut], counts[cut]).max(1).values
            block = best[start : start + len(rows)]
            torch.maximum(block, found, out=block)
    return best.double().numpy()


def tanimoto(rows: Tensor, references: Tensor, counts: Tensor) -> Tensor:
    """Similarities [N, R] of bfloat16 bits [N, 1024] and [R, 1024] with so many ones; 1 of two empty rows.

    Products of up to 256 bits in common are exact in bfloat16, and molecules of this size have fewer.
    """
    common = (rows @ references.T).float()
    either = rows.float().sum(1, keepdim=True) + counts - common
    return torch.where(either == 0, 1.0, common / either)


def as_bits(prints: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Fingerprints for `tanimoto`: bfloat16 [N, 1024], and how many ones each has [N]."""
    found = torch.from_numpy(np.ascontiguousarray(prints))
    return found.bfloat16(), found.sum(1).float()


def packed(array: NDArray[Any]) -> str:
    """An array's bytes, for JSON."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def unpacked(text: str, dtype: Any, width: int) -> NDArray[Any]:
    """[N, width] of `packed`."""
    return np.frombuffer(base64.b64decode(text), dtype=dtype).reshape(-1, width)


def _blocks(prints: NDArray[np.uint8]) -> Iterator[tuple[Tensor, int]]:
    for start in range(0, len(prints), _ROWS_AT_ONCE):
        yield as_bits(prints[start : start + _ROWS_AT_ONCE])[0], start


@cache
def _references(name: TestSet, folder: Path) -> tuple[Tensor, Tensor]:
    return as_bits(statistics_of(name, folder).fingerprints)


@cache
def _queries(smarts: tuple[str, ...]) -> list[Any]:
    return [_chem().MolFromSmarts(text) for text in smarts]


@cache
def _chemnet() -> ChemNet:
    return ChemNet()


@cache
def _generator() -> Any:
    return import_module("rdkit.Chem.rdFingerprintGenerator").GetMorganGenerator(radius=RADIUS, fpSize=BITS)


def _chem() -> Any:
    return import_module("rdkit.Chem")
