"""MOSES's metrics of one set of molecules, from its measured chunks.

Definitions are those of molsets 0.3.1. All but `valid` are of the valid molecules, in canonical form and with their
duplicates. Each stands with the standard error of a jackknife that leaves out one of `NUM_GROUPS` groups of samples:
what another draw of as many samples from the same model would change, and nothing else. For unique@k, where only the
first k molecules count, it is at most root 2 too large.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unveil.benchmarks.common.runs import Fields
from unveil.benchmarks.domains.problems.chemnet import frechet, moments
from unveil.benchmarks.domains.problems.moses_protocol.measurements import (
    BITS,
    CHEMNET_WIDTH,
    as_bits,
    tanimoto,
    unpacked,
)
from unveil.benchmarks.domains.problems.moses_protocol.statistics import PROPERTIES, Statistics, TestSet

METRICS = (
    *("valid", "unique@1000", "unique@10000", "Novelty"),
    *("FCD/Test", "FCD/TestSF", "SNN/Test", "SNN/TestSF", "Frag/Test", "Frag/TestSF", "Scaf/Test", "Scaf/TestSF"),
    *("IntDiv", "IntDiv2", "Filters", *PROPERTIES),
)
NUM_GROUPS = 20
_SUFFIXES: dict[TestSet, str] = {"test": "Test", "test_scaffolds": "TestSF"}
_ROWS_AT_ONCE = 1_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A set of N samples, n of them valid. `groups` [N] and `is_valid` [N] are of all samples, the rest of valid ones.

    `pairs` [2, n, G] are, for each valid molecule, the sums of the similarities to the molecules of each group, and of
    their squares. `activations` [n, 512] are ChemNet's, None without it.
    """

    groups: NDArray[np.int64]
    is_valid: NDArray[np.bool_]
    smiles: NDArray[np.object_]
    is_known: NDArray[np.bool_]
    properties: Mapping[str, Floats]
    passes: NDArray[np.bool_]
    fragments: Sequence[Sequence[str]]
    scaffolds: Sequence[str | None]
    nearest: Mapping[TestSet, Floats]
    pairs: Floats
    activations: NDArray[np.float32] | None


def measured(chunks: Sequence[Fields], known: frozenset[str]) -> Measured:
    """The chunks of one set, in order. `known` are the training molecules, in canonical form."""
    is_valid = np.array(list(_all(chunks, "is_valid")), dtype=bool)
    groups = np.arange(len(is_valid)) * NUM_GROUPS // max(len(is_valid), 1)
    smiles = list(_all(chunks, "smiles"))
    prints = np.concatenate([unpacked(chunk["fingerprints"], np.uint8, BITS // 8) for chunk in chunks])
    nets = [chunk["chemnet"] for chunk in chunks]
    has_chemnet = all(net is not None for net in nets)
    return Measured(
        groups=groups,
        is_valid=is_valid,
        smiles=np.array(smiles, dtype=object),
        is_known=np.array([text in known for text in smiles], dtype=bool),
        properties={name: np.array([v for c in chunks for v in c["properties"][name]]) for name in PROPERTIES},
        passes=np.array(list(_all(chunks, "passes")), dtype=bool),
        fragments=list(_all(chunks, "fragments")),
        scaffolds=list(_all(chunks, "scaffolds")),
        nearest={name: np.array([v for c in chunks for v in c["nearest"][name]]) for name in _SUFFIXES},
        pairs=pair_sums(np.unpackbits(prints, axis=1), groups[is_valid]),
        activations=np.concatenate([unpacked(net, np.float32, CHEMNET_WIDTH) for net in nets]) if has_chemnet else None,
    )


def _all(chunks: Sequence[Fields], key: str) -> chain[Any]:
    return chain.from_iterable(chunk[key] for chunk in chunks)


def with_errors(sample: Measured, references: Mapping[TestSet, Statistics]) -> dict[str, Fields | None]:
    """Each metric with its jackknife standard error, by the names that MOSES gives them; None where it has no value."""
    whole = metrics(sample, references)
    used = np.unique(sample.groups)
    parts = [metrics(sample, references, left_out=int(group)) for group in used]
    found: dict[str, Fields | None] = {}
    for name, value in whole.items():
        others = [part[name] for part in parts]
        known = [other for other in others if other is not None]
        is_whole = len(known) == len(others) > 1
        found[name] = None if value is None else {"value": value, "error": jackknife(known) if is_whole else None}
    return found


def jackknife(values: Sequence[float]) -> float:
    """The standard error from G values that each leave out one of G groups: `sqrt((G-1)/G sum (v - mean)^2)`."""
    spread = np.asarray(values) - np.mean(values)
    return float(np.sqrt((len(values) - 1) / len(values) * (spread**2).sum()))


def metrics(
    sample: Measured, references: Mapping[TestSet, Statistics], *, left_out: int | None = None
) -> dict[str, float | None]:
    """All of `METRICS`, without the samples of one group; None where there are too few valid molecules."""
    keep = sample.groups != left_out
    kept = keep[sample.is_valid]  # [n]
    if not kept.any():
        return dict.fromkeys(METRICS) | {"valid": 0.0}
    smiles, is_known = sample.smiles[kept], sample.is_known[kept]
    different, first = np.unique(smiles.astype(str), return_index=True)
    of_groups = np.unique(sample.groups[sample.is_valid][kept])
    found: dict[str, float | None] = {
        "valid": float(sample.is_valid[keep].mean()),
        "unique@1000": unique_at(smiles, 1_000),
        "unique@10000": unique_at(smiles, 10_000),
        "Novelty": float((~is_known[first]).sum() / len(different)),
        "IntDiv": internal_diversity(sample.pairs[:, kept][:, :, of_groups], int(kept.sum()), power=1),
        "IntDiv2": internal_diversity(sample.pairs[:, kept][:, :, of_groups], int(kept.sum()), power=2),
        "Filters": float(sample.passes[kept].mean()),
    }
    places = np.flatnonzero(kept).tolist()
    parts = Counter(part for i in places for part in sample.fragments[i])
    cores = Counter(core for i in places if (core := sample.scaffolds[i]) is not None)
    chemnet = moments(sample.activations[kept]) if sample.activations is not None and kept.sum() > 1 else None
    for name, suffix in _SUFFIXES.items():
        reference = references[name]
        found[f"FCD/{suffix}"] = None if chemnet is None else frechet(chemnet, reference.chemnet)
        found[f"SNN/{suffix}"] = float(sample.nearest[name][kept].mean())
        found[f"Frag/{suffix}"] = cosine(parts, reference.fragments)
        found[f"Scaf/{suffix}"] = cosine(cores, reference.scaffolds)
    for column in PROPERTIES:
        found[column] = wasserstein(sample.properties[column][kept], references["test"].properties[column])
    return {name: found[name] for name in METRICS}


def unique_at(smiles: Sequence[str] | NDArray[np.object_], k: int) -> float:
    """Of the first k, or of all where there are fewer, the share of different ones."""
    return len(set(smiles[:k])) / min(len(smiles), k)


def cosine(counts: Mapping[str, int], reference: Mapping[str, int]) -> float | None:
    """The cosine of two vectors of counts; None where one has nothing."""
    dot = sum(count * reference.get(key, 0) for key, count in counts.items())
    sizes = [float(np.linalg.norm(list(own.values()))) if own else 0.0 for own in (counts, reference)]
    return dot / (sizes[0] * sizes[1]) if all(sizes) else None


def wasserstein(values: Floats, reference: Floats) -> float:
    """The Wasserstein-1 distance of two sets of numbers, in their unit."""
    from scipy import stats  # as in `runs`: only benchmarks need it

    return float(stats.wasserstein_distance(values, reference))


def pair_sums(prints: NDArray[np.uint8], groups: NDArray[np.int64]) -> Floats:
    """Of fingerprints [n, 1024], groups [n] -> [2, n, G]: sums of Tanimoto similarities, and of squares, by group."""
    bits, counts = as_bits(prints)
    is_of = torch.nn.functional.one_hot(torch.from_numpy(groups), NUM_GROUPS).float()  # [n, G]
    found = np.zeros((2, len(prints), NUM_GROUPS))
    for start in range(0, len(prints), _ROWS_AT_ONCE):
        cut = slice(start, start + _ROWS_AT_ONCE)
        similar = tanimoto(bits[cut], bits, counts)
        found[0, cut], found[1, cut] = (similar @ is_of).numpy(), (similar**2 @ is_of).numpy()
    return found


def internal_diversity(pairs: Floats, num: int, *, power: int) -> float:
    """`1 - mean_i (mean_j T_ij^p)^(1/p)` over all pairs of `num` molecules, each with itself as well."""
    means = pairs[power - 1].sum(-1) / num
    return float(1 - (means ** (1 / power)).mean())
