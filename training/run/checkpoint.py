"""Checkpoints: everything needed to resume, disposable. Atomic, pruned, found by themselves.

A checkpoint is a folder `step-00000500`: what Fabric saves of the training state (one file, or shards under FSDP) and
`meta.json`. It is written under another name and renamed when whole, so a torn one is never found.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from unveil.model.errors import UnveilError

_PREFIX, _STAGING = "step-", ".writing-"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    folder: Path
    step: int
    meta: Mapping[str, Any]


def find_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`, or None. Raises UnveilError for one that cannot be read."""
    names = sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())
    if not names:
        return None
    try:
        meta = json.loads((names[-1] / "meta.json").read_text(encoding="utf-8"))
        return Checkpoint(names[-1], int(meta["step"]), meta)
    except (OSError, ValueError, KeyError, TypeError):
        raise UnveilError(f"{names[-1]}: damaged; remove it to resume from the one before") from None


def save_checkpoint(
    folder: Path, *, fabric: Fabric, state: dict[str, Any], step: int, meta: Mapping[str, Any], keep: int
) -> Path:
    """Saves `state` (modules, optimizers, plain values), then forgets all but the newest `keep` checkpoints."""
    target = folder / f"{_PREFIX}{step:08d}"
    staging = folder / f"{_STAGING}{step:08d}"
    if fabric.is_global_zero:
        for leftover in folder.glob(f"{_STAGING}*"):
            shutil.rmtree(leftover)
        staging.mkdir(parents=True)
    fabric.barrier()
    fabric.save(staging / "state", state)
    fabric.barrier()
    if fabric.is_global_zero:
        (staging / "meta.json").write_text(json.dumps({"step": step, **meta}), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
        for old in sorted(folder.glob(f"{_PREFIX}*"))[:-keep]:
            shutil.rmtree(old)
    fabric.barrier()
    return target


def load_checkpoint(checkpoint: Checkpoint, *, fabric: Fabric, state: dict[str, Any]) -> None:
    """Loads in place what `save_checkpoint` saved. Raises UnveilError for a damaged one."""
    try:
        fabric.load(checkpoint.folder / "state", state)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # torch and the restricted reader raise whatever a file makes them
        reason = " ".join(str(error).split())[:200]
        raise UnveilError(f"{checkpoint.folder}: damaged; remove it to resume from the one before ({reason})") from None
