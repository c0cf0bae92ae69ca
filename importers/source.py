"""A Hugging Face folder as it stands: its configuration, family, weights and license. Runs no code out of it.

Weights are read from safetensors. An old folder may hold a pickle instead: it is read with `weights_only=True`, which
takes tensors and plain containers and nothing that could run, here alone in the project; no artifact ever holds one.
"""

import hashlib
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, get_args

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from unveil.model.errors import ArtifactError
from unveil.model.network.architecture import Family

CONFIG, SAFE, INDEX, LEGACY = "config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
FAMILIES: dict[str, Family] = {name: name for name in get_args(Family)}
_OLD_MAGIC, _OLD_PICKLES = bytes.fromhex("80028a0a6cfc9c46f9206aa85019"), 5  # torch's before 1.6
_CAUSAL = re.compile(r"(ForCausalLM|LMHeadModel)$")
_LICENSE = re.compile(r"\A---\n(?:.*\n)*?license:[ \t]*(\S[^\n]*)\n(?:.*\n)*?---", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """`files` holds the sha256 of each file that weights were read from; `is_legacy`: out of a pickle."""

    folder: Path
    config: Mapping[str, Any]
    family: Family
    weights: dict[str, Tensor]
    files: Mapping[str, str]
    is_legacy: bool
    license: str | None


def read_source(folder: Path) -> Source:
    """Raises ArtifactError, in one line, for what is no masked LM that can be imported."""
    config = read_config(folder)
    family = family_of(config, folder)
    weights, names, is_legacy = _weights(folder)
    files = {name: _sha256(folder / name) for name in names}
    return Source(folder, config, family, weights, files, is_legacy, _license(folder))


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json`. Raises ArtifactError."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; a model of the hub is taken with --hub")
    if not (folder / CONFIG).is_file():
        raise ArtifactError(f"{folder / CONFIG}: missing, so this folder is no Hugging Face model")
    return read_json(folder / CONFIG)


def read_json(path: Path) -> dict[str, Any]:
    """An object in a JSON file. Raises ArtifactError."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not readable as JSON ({' '.join(str(error).split())})") from None
    if not isinstance(fields, dict):
        raise ArtifactError(f"{path}: not a JSON object")
    return fields


def family_of(config: Mapping[str, Any], folder: Path) -> Family:
    """Raises ArtifactError for a causal LM and for an architecture that is not known here."""
    place = folder / CONFIG
    model_type = str(config.get("model_type", ""))
    architectures = [str(name) for name in config.get("architectures") or ()]
    family = FAMILIES.get(model_type.lower())
    causal = next((name for name in architectures if _CAUSAL.search(name)), None)
    if causal is not None or config.get("is_decoder"):
        raise ArtifactError(
            f"{place}: architectures: {causal or 'a decoder'} is a causal language model, which sees only what stands "
            "to the left; a masked one is needed"
        )
    if family is None:
        what = f'"{model_type}"' if model_type else "not given"
        raise ArtifactError(f"{place}: model_type: {what}; {', '.join(FAMILIES)} can be imported")
    return family


def _weights(folder: Path) -> tuple[dict[str, Tensor], list[str], bool]:
    """Tensors by name, the files they come from, and whether those are pickles."""
    if (folder / SAFE).is_file():
        return _read_safe(folder / SAFE), [SAFE], False
    if (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        parts = [_read_safe(folder / Path(name).name) for name in names]
        return {name: tensor for part in parts for name, tensor in part.items()}, names, False
    if (folder / LEGACY).is_file():
        return _read_legacy(folder / LEGACY), [LEGACY], True
    raise ArtifactError(
        f"{folder}: no {SAFE}; load the model with the transformers library and save_pretrained it, which writes one"
    )


def _read_safe(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ArtifactError(f"{path}: not readable as safetensors ({' '.join(str(error).split())})") from None


def _read_legacy(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # torch and the restricted reader raise whatever a file makes them
        if isinstance(error, EOFError | RuntimeError) or not _is_whole_pickle(path):
            raise ArtifactError(f"{path}: damaged or truncated, or no file of weights; fetch it again") from None
        state = None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ArtifactError(
            f"{path}: a pickle that holds more than tensors, so it is not read; load the model with the transformers "
            f"library where you trust it and save_pretrained it, which writes {SAFE}"
        )
    return state


def _is_whole_pickle(path: Path) -> bool:
    """Whether all instructions of the file can be told apart; none is carried out."""
    try:
        with path.open("rb") as file:
            for stream in _pickles(file):
                for _ in pickletools.genops(stream):
                    pass
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return True


def _pickles(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """What torch writes into a file: one in an archive, or before 1.6 five in a row, bytes of tensors after them. Of
    another pickle the first."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield from (archive.open(name) for name in archive.namelist() if name.endswith("data.pkl"))
        return
    file.seek(0)
    is_old = file.read(len(_OLD_MAGIC)) == _OLD_MAGIC
    file.seek(0)
    yield from [file] * (_OLD_PICKLES if is_old else 1)


def _license(folder: Path) -> str | None:
    """What the folder's model card says, if it does."""
    card = folder / "README.md"
    found = _LICENSE.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    return found[1].strip() if found else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
