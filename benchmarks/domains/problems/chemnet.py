"""The Fréchet ChemNet Distance (Preuer et al., arXiv 1803.09518), and that of real molecules.

fcd_torch, which carries ChemNet's weights, is asked for by name.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

FCD_NEEDED = "fcd_torch is not installed: pip install 'unveil[fcd]'"


@dataclass(frozen=True)
class Moments:
    """Mean [512] and covariance [512, 512]; the covariance's root is taken once."""

    mean: NDArray[np.float64]
    cov: NDArray[np.float64]

    @cached_property
    def root(self) -> NDArray[np.float64]:
        values, vectors = np.linalg.eigh(self.cov)
        return np.asarray((vectors * np.sqrt(values.clip(min=0))) @ vectors.T)


def has_fcd() -> bool:
    return find_spec("fcd_torch") is not None


class ChemNet:
    """fcd_torch's ChemNet, on the CPU."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._net = import_module("fcd_torch").FCD(device="cpu", n_jobs=1)

    def activations(self, smiles: Sequence[str]) -> NDArray[np.float32]:
        """The last layer's, [N, 512], of valid SMILES."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self._net.get_predictions(list(smiles))
        return np.asarray(found, dtype=np.float32)


def moments(activations: NDArray[np.float32]) -> Moments:
    """Of two rows or more, [N, 512]."""
    return Moments(activations.mean(0, dtype=np.float64), np.cov(activations.T.astype(np.float64)))


def frechet(found: Moments, reference: Moments) -> float:
    """The Fréchet distance of two Gaussians, squared as FCD is: `|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2))`.

    The root's trace is taken as that of the symmetric `B^(1/2) A B^(1/2)`.
    """
    middle = np.sqrt(np.linalg.eigvalsh(reference.root @ found.cov @ reference.root).clip(min=0)).sum()
    between = ((found.mean - reference.mean) ** 2).sum()
    return float(between + np.trace(found.cov) + np.trace(reference.cov) - 2 * middle)


class Distances:
    """FCD of molecules to one reference, and of as many real ones to the same: the least that a model can have."""

    def __init__(self, chemnet: ChemNet, reference: Moments, *, real: Sequence[str]) -> None:
        self._chemnet, self._reference = chemnet, reference
        self._real = chemnet.activations(real)

    def of(self, smiles: Sequence[str]) -> float | None:
        """Of valid SMILES; None of fewer than two."""
        return frechet(moments(self._chemnet.activations(smiles)), self._reference) if len(smiles) > 1 else None

    def of_real(self, count: int) -> float | None:
        """Of the first so many real molecules; None of fewer than two, or where there are not as many."""
        return frechet(moments(self._real[:count]), self._reference) if 1 < count <= len(self._real) else None
