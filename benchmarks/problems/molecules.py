"""What molecules are asked and judged by: scaffolds with holes for what hangs on them, and the Fréchet ChemNet
Distance. Knows no training. RDKit is needed; fcd_torch, which carries ChemNet's weights, is asked for by name.
"""

import re
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.tokenizers.smiles import split_smiles
from training.chemistry import NEEDED, has_rdkit, read, scaffold

FCD_NEEDED = "fcd_torch is not installed: pip install 'unveil[fcd]'"
_ATOM = re.compile(r"\[.*\]|[A-Za-z]+")


def require_rdkit() -> None:
    """Exits with one line where it is not installed."""
    if not has_rdkit():
        raise SystemExit(f"error: {NEEDED}")


def has_fcd() -> bool:
    return find_spec("fcd_torch") is not None


def scaffold_prompt(smiles: str) -> tuple[str, str] | None:
    """The molecule with a hole, of its own number of tokens, for everything that is not scaffold; and the scaffold.

    None where there is no scaffold or nothing else.
    """
    core, tokens = scaffold(smiles), split_smiles(smiles)
    molecule = read(smiles)
    atoms = [i for i, token in enumerate(tokens) if _ATOM.fullmatch(token)]
    if not core or molecule is None or molecule.GetNumAtoms() != len(atoms):  # an explicit [H] is no atom to RDKit
        return None
    kept = {atoms[number] for number in molecule.GetSubstructMatch(read(core))}
    hidden = _hidden(tokens, kept)
    return (_template(tokens, hidden), core) if any(hidden) and kept else None


def _hidden(tokens: Sequence[str], kept: set[int]) -> list[bool]:
    """Atoms that are not kept, the bonds before them, and the brackets of branches without a kept atom."""
    hidden = [False] * len(tokens)
    opened: list[int] = []
    following = False  # whether the next atom to the right is hidden
    for i in range(len(tokens) - 1, -1, -1):
        if _ATOM.fullmatch(tokens[i]):
            hidden[i] = following = i not in kept
        elif tokens[i] in "-=#:/\\":
            hidden[i] = following and not tokens[i + 1][0].isdigit()
    for i, token in enumerate(tokens):
        if token == "(":
            opened.append(i)
        elif token == ")":
            start = opened.pop()
            hidden[start] = hidden[i] = not any(start < atom < i for atom in kept)
    return hidden


def _template(tokens: Sequence[str], hidden: Sequence[bool]) -> str:
    parts, size = [], 0
    for token, is_hidden in zip([*tokens, ""], [*hidden, False], strict=True):
        if is_hidden:
            size += 1
            continue
        hole = "[MASK]" if size == 1 else f"[MASK:{size}]"
        parts += [hole] * (size > 0) + [token]
        size = 0
    return "".join(parts)


class ChemNet:
    """Distances to one set of molecules, as fcd_torch's ChemNet sees them."""

    def __init__(self, reference: Sequence[str]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._net = import_module("fcd_torch").FCD(device="cpu", n_jobs=1)
        self._reference = self._moments(reference)

    def distance(self, smiles: Sequence[str]) -> float:
        """The squared Fréchet distance between two Gaussians: of valid SMILES, two at least, and of the reference."""
        return frechet(self._moments(smiles), self._reference)

    def _moments(self, smiles: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self._net.precalc(list(smiles))
        return found["mu"], found["sigma"]


def frechet(a: tuple[NDArray[Any], NDArray[Any]], b: tuple[NDArray[Any], NDArray[Any]]) -> float:
    """`|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2))`; the root's trace is that of a symmetric matrix."""
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    middle = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * middle)
