"""`config.json` of an artifact: what the network is and how it was made. Torch-free, so the HTTP side may read it."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from unveil.model.errors import ArtifactError
from unveil.model.network.architecture import IMPORTED, OWN, AnyArchitecture, ImportedArchitecture, OrderSpec, _Frozen
from unveil.model.tokenizers.base import Domain

FORMAT_VERSION: Literal[1] = 1
CONFIG, WEIGHTS, TOKENIZER, CARD = "config.json", "model.safetensors", "tokenizer.json", "README.md"
ORDER_PICTURE = "order.svg"


class Manifest(_Frozen):
    """Everything in `config.json`. `files` holds the sha256 of each file beside it that the service reads."""

    format_version: Literal[1] = FORMAT_VERSION
    domain: Domain
    architecture: AnyArchitecture
    order: OrderSpec
    default_length: int = Field(ge=1)
    num_parameters: int = Field(ge=0)
    files: dict[str, str]
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)

    @property
    def length(self) -> int:
        return self.architecture.length

    @property
    def mask_id(self) -> int | None:
        """The mask's own token, where the tokenizer has one: that of an imported model."""
        return self.architecture.mask_id if isinstance(self.architecture, ImportedArchitecture) else None

    @property
    def weights_sha256(self) -> str:
        return self.files[WEIGHTS]


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks `config.json`. Raises ArtifactError, in one line, for whatever is wrong with it."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such artifact folder")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing, so this folder is no artifact") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not readable as JSON ({_first_line(error)})") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("format_version"), int):
        raise ArtifactError(f"{path}: format_version is missing")
    if fields["format_version"] > FORMAT_VERSION:
        found = fields["format_version"]
        raise ArtifactError(
            f"{path}: format_version {found} is newer than {FORMAT_VERSION}, the newest this Unveil reads"
        )
    try:
        manifest = Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part not in (OWN, IMPORTED)]
        raise ArtifactError(f"{path}: {'.'.join(place) or 'config'}: {_said(first['msg'])}") from None
    for name in (WEIGHTS, TOKENIZER):
        if name not in manifest.files:
            raise ArtifactError(f"{path}: files: the sha256 of {name} is missing")
    return manifest


def check_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of one file of the artifact, once their sha256 is the manifest's. Raises ArtifactError."""
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise ArtifactError(f"{path}: truncated or altered (its sha256 is not the one in {CONFIG})")
    return content


def _said(message: str) -> str:
    return message.removeprefix("Value error, ")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
