"""MOSES's own statistics of its test sets, out of the wheel.

They are pickled inside an .npz, and reading a pickle can run what it holds. So each file is read only where its sha256
is the one written here, of a file that was looked through (arrays, counters, lists of numbers), as the wheel around it
is. Only this benchmark does so; no model is ever loaded from a pickle.
"""

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unveil.benchmarks.domains.problems.chemnet import Moments
from unveil.model.errors import UnveilError
from unveil.training.data.molecules.molecules import FOLDER, WHEEL
from unveil.training.data.wheels import read_member

TestSet = Literal["test", "test_scaffolds"]
TEST_SETS: tuple[TestSet, ...] = ("test", "test_scaffolds")
PROPERTIES = ("logP", "SA", "QED", "weight")
_SHA256: dict[TestSet, str] = {
    "test": "ded25073225a895d4ed17bf1d4223d27560e87ff4cb85786346ca1cc8efa03d3",
    "test_scaffolds": "7b7aba6c1474634a019bebf16f389d554cb9dd1021dfc8c1d1e54430a9f0e7f8",
}


@dataclass(frozen=True)
class Statistics:
    """Of one test set of R molecules: ChemNet's moments, Morgan fingerprints [R, 1024] uint8 (radius 2), how often each
    BRICS fragment and each Murcko scaffold with two rings or more stands in it, and the values [R] of each property."""

    chemnet: Moments
    fingerprints: NDArray[np.uint8]
    fragments: Mapping[str, int]
    scaffolds: Mapping[str, int]
    properties: Mapping[str, NDArray[np.float64]]


@cache
def statistics_of(name: TestSet, folder: Path) -> Statistics:
    """The wheel's statistics, a second to read; the wheel is fetched into `folder` if need be. Raises UnveilError."""
    content = read_member(WHEEL, f"{FOLDER}/{name}_stats.npz", cache=folder)
    found = read_statistics(content, sha256=_SHA256[name])
    return Statistics(
        chemnet=Moments(found["FCD"]["mu"].astype(np.float64), found["FCD"]["sigma"]),
        fingerprints=found["SNN"]["fps"],
        fragments=found["Frag"]["frag"],
        scaffolds=found["Scaf"]["scaf"],
        properties={name: np.array(found[name]["values"]) for name in PROPERTIES},
    )


def read_statistics(content: bytes, *, sha256: str) -> Mapping[str, Any]:
    """The one value in an .npz of `numpy.savez(stats=...)`. Raises UnveilError, before anything is read, where the
    bytes are not those that are expected: it is a pickle."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UnveilError(f"MOSES's statistics have sha256 {found}, expected {sha256}: not read")
    with np.load(io.BytesIO(content), allow_pickle=True) as kept:
        statistics: Mapping[str, Any] = kept["stats"].item()
    return statistics


@cache
def filter_smarts(folder: Path) -> tuple[str, ...]:
    """MOSES's structural alerts: its medicinal chemistry filters, then PAINS. Raises UnveilError."""
    own, pains = (_lines(f"moses/metrics/{name}.csv", folder) for name in ("mcf", "wehi_pains"))
    place = own[0].index("smarts")
    return tuple([line[place].strip() for line in own[1:]] + [line[0].strip() for line in pains])


def _lines(member: str, folder: Path) -> list[list[str]]:
    text = read_member(WHEEL, member, cache=folder).decode("utf-8")
    return [line for line in csv.reader(io.StringIO(text)) if line]
