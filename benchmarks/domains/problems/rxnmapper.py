"""A real masked LM of molecules, and real molecules, out of pinned packages.

The model is rxnmapper's (Schwaller et al. 2021, MIT): an ALBERT trained elsewhere, on reactions. The molecules are
those of MOSES (Polykovskiy et al. 2020, MIT). Both are fetched as wheels, checked and read, never imported.
"""

import gzip
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from unveil.model.errors import UnveilError
from unveil.training.data.molecules.molecules import FOLDER as MOSES_FOLDER
from unveil.training.data.molecules.molecules import WHEEL as MOSES
from unveil.training.data.wheels import Wheel, fetch_wheel, read_member

RXNMAPPER = Wheel("rxnmapper", "0.4.3", "27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5")
RXNMAPPER_FOLDER = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"


def rxnmapper(cache: Path) -> Path:
    """The model's folder as its makers ship it, in `cache`. Raises UnveilError where the package cannot be had."""
    wheel = fetch_wheel(RXNMAPPER, cache=cache)
    folder = cache / f"{RXNMAPPER.name}-{RXNMAPPER.version}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=cache, prefix=".unpack-") as place, zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(f"{RXNMAPPER_FOLDER}/")]
        if not members:
            raise UnveilError(f"{RXNMAPPER.requirement} holds no folder {RXNMAPPER_FOLDER}")
        for member in members:
            archive.extract(member, place)
        try:
            os.replace(Path(place) / RXNMAPPER_FOLDER, folder)
        except OSError:  # another process was first
            shutil.rmtree(Path(place) / RXNMAPPER_FOLDER)
    return folder


def moses(name: str, count: int, *, seed: int, cache: Path) -> list[str]:
    """So many molecules as SMILES, drawn without repeats from the file train or test. Raises UnveilError."""
    raw = read_member(MOSES, f"{MOSES_FOLDER}/{name}.csv.gz", cache=cache)
    header, *lines = gzip.decompress(raw).decode("ascii").splitlines()
    assert header.startswith("SMILES")
    chosen = np.random.default_rng(seed).choice(len(lines), count, replace=False)
    return [lines[i].partition(",")[0] for i in chosen]
