"""Artifacts: the folder that training gives and the service loads. Safetensors only; no pickle is ever read.

Knows the files inside the folder, not where folders are kept.
"""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from unveil.model.artifact.manifest import (
    CARD,
    CONFIG,
    ORDER_PICTURE,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    check_file,
    read_manifest,
)
from unveil.model.errors import ArtifactError
from unveil.model.network.base import Network
from unveil.model.network.build import build_network
from unveil.model.tokenizers import load_tokenizer
from unveil.model.tokenizers.base import Tokenizer

_FILES = {CONFIG, WEIGHTS, TOKENIZER, CARD, ORDER_PICTURE}


@dataclass(frozen=True)
class Artifact:
    """A loaded artifact; the denoiser is in evaluation mode, in float32, on the CPU."""

    manifest: Manifest
    denoiser: Network
    tokenizer: Tokenizer


def save_artifact(
    folder: Path,
    *,
    denoiser: Network,
    tokenizer: Tokenizer,
    training: dict[str, Any],
    metrics: dict[str, Any],
    card: str,
    extra_files: dict[str, bytes] | None = None,
) -> Manifest:
    """Writes a whole artifact beside `folder`, then puts it in its place, replacing an artifact that stands there.

    A crash leaves the old one or the new one under the name, never a mixture (between two renames the old one stands
    as `.NAME.old` for an instant). Raises ArtifactError as `check_replaceable` does.
    """
    check_replaceable(folder)
    folder = folder.absolute()  # "." has no name
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        manifest = _write(staging, denoiser, tokenizer, training, metrics, {CARD: card.encode(), **(extra_files or {})})
        staging.chmod(0o755)
        _replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def check_replaceable(folder: Path) -> None:
    """Raises ArtifactError unless nothing stands at `folder`, or an empty folder, or an artifact and nothing else.

    Many a model's folder has a config.json, and what is replaced is gone.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file; an artifact is a folder")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    try:
        read_manifest(folder)
    except ArtifactError:
        raise ArtifactError(f"{folder}: holds something that is not an artifact, so it is not replaced") from None
    if foreign := sorted(names - _FILES):
        raise ArtifactError(f"{folder}: holds {foreign[0]}, which is no part of an artifact, so it is not replaced")


def load_artifact(folder: Path) -> Artifact:
    """Loads and checks an artifact. Raises ArtifactError, in one line, for every damage."""
    manifest = read_manifest(folder)
    check_file(folder, manifest, TOKENIZER)
    tokenizer = load_tokenizer(
        folder,
        manifest.domain,
        length=manifest.length,
        default_length=manifest.default_length,
        mask_id=manifest.mask_id,
    )
    if tuple(tokenizer.vocabulary_sizes) != manifest.architecture.vocabulary_sizes:
        raise ArtifactError(f"{folder}: {TOKENIZER} and {CONFIG} disagree about the vocabulary")
    try:
        denoiser = build_network(manifest.architecture, manifest.order)
        weights = safetensors.torch.load(check_file(folder, manifest, WEIGHTS))
        _put(denoiser, weights)
    except (safetensors.SafetensorError, RuntimeError, ValueError) as error:
        if isinstance(error, ArtifactError):
            raise
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{folder / WEIGHTS}: does not hold the network of {CONFIG} ({reason[:200]})") from None
    return Artifact(manifest, denoiser.eval(), tokenizer)


def _write(
    staging: Path,
    denoiser: Network,
    tokenizer: Tokenizer,
    training: dict[str, Any],
    metrics: dict[str, Any],
    files: dict[str, bytes],
) -> Manifest:
    weights = {name: tensor.detach().cpu().float().contiguous() for name, tensor in _once(denoiser).items()}
    (staging / WEIGHTS).write_bytes(safetensors.torch.save(weights, metadata={"format": "pt"}))
    tokenizer.save(staging / TOKENIZER)
    manifest = Manifest(
        domain=tokenizer.domain,
        architecture=denoiser.architecture,
        order=denoiser.order,
        default_length=tokenizer.default_length,
        num_parameters=denoiser.num_parameters,
        files={name: hashlib.sha256((staging / name).read_bytes()).hexdigest() for name in (WEIGHTS, TOKENIZER)},
        training=training,
        metrics=metrics,
    )
    for name, content in files.items():
        (staging / name).write_bytes(content)
    (staging / CONFIG).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for path in staging.iterdir():
        _sync(path)
    return manifest


def _once(denoiser: Network) -> dict[str, Tensor]:
    """The state of a network, each tensor under one name: an imported network may tie its token head's to another's."""
    found: dict[tuple[int, torch.Size], str] = {}
    state = denoiser.state_dict()
    for name, tensor in state.items():
        found.setdefault((tensor.data_ptr(), tensor.shape), name)
    return {name: state[name] for name in found.values()}


def _put(denoiser: Network, weights: dict[str, Tensor]) -> None:
    """Raises RuntimeError unless `weights` are the whole state of the network."""
    names = _once(denoiser).keys()
    if len(names) < len(denoiser.state_dict()) and weights.keys() == names:
        denoiser.load_state_dict(weights, strict=False)
    else:
        denoiser.load_state_dict(weights)


def _replace(staging: Path, folder: Path) -> None:
    """Renames `staging` to `folder`. A folder cannot be renamed over a full one, so an old one steps aside first."""
    aside = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    staging.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
