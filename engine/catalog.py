"""The served models as the HTTP side knows them: manifest and tokenizer, without weights and without torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from unveil.engine.request.errors import ServiceError
from unveil.model.artifact.manifest import CONFIG, TOKENIZER, Manifest, check_file, read_manifest
from unveil.model.errors import ArtifactError
from unveil.model.tokenizers import load_tokenizer
from unveil.model.tokenizers.base import Tokenizer


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from, and the name under which it is served."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One served model, without its weights."""

    name: str
    manifest: Manifest
    tokenizer: Tokenizer

    @property
    def weights_version(self) -> str:
        return self.manifest.weights_sha256

    def describe(self, *, is_deterministic: bool) -> dict[str, Any]:
        """This model's entry in `/v1/models`."""
        return {
            "id": self.name,
            "object": "model",
            "domain": self.manifest.domain,
            "length": self.manifest.length,
            "default_length": self.manifest.default_length,
            "order": self.manifest.order.kind,
            "weights": self.weights_version,
            "deterministic": is_deterministic,
            "example_prompt": self.tokenizer.example_prompt(),
            "metrics": self.manifest.metrics,
            **self.tokenizer.describe(),
        }


class Catalog:
    """The served models by name, in the order in which they are served; the first one is the default."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        assert models
        self._models: Mapping[str, ServedModel] = {model.name: model for model in models}
        assert len(self._models) == len(models)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get(self, name: str | None) -> ServedModel:
        """Raises ServiceError (404) for a name that is not served."""
        if name is None:
            return next(iter(self))
        if name in self._models:
            return self._models[name]
        close = get_close_matches(name, self._models, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"served are {', '.join(self._models)}"
        raise ServiceError("model_not_found", f'no model "{name[:80]}" is served; {hint}', param="model")


def find_sources(artifacts: Sequence[str], *, checkpoints: Path) -> tuple[Source, ...]:
    """`FOLDER` or `NAME=FOLDER` each, in the order given; with none, all artifacts in `checkpoints`, by name.

    Raises ArtifactError where there is nothing to serve, or two of one name.
    """
    sources = [_source(text) for text in artifacts] or [
        Source(path.parent.name, path.parent)
        for path in sorted(checkpoints.glob(f"*/{CONFIG}"))
        if not path.parent.name.startswith(".")  # what writing an artifact leaves where it is killed
    ]
    if not sources:
        raise ArtifactError(f"{checkpoints}: no artifact to serve; name one, or train one")
    names = [source.name for source in sources]
    if double := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise ArtifactError(f'two artifacts would be served as "{double}"; NAME=FOLDER gives one another name')
    return tuple(sources)


def _source(text: str) -> Source:
    name, separator, folder = text.partition("=")
    if separator and name and "/" not in name:
        return Source(name, Path(folder))
    return Source(Path(text).resolve().name, Path(text))


def load_catalog(sources: Sequence[Source]) -> Catalog:
    """Raises ArtifactError, in one line, for what is no whole artifact. The weights are the engine's to check."""
    return Catalog([_load_model(source) for source in sources])


def _load_model(source: Source) -> ServedModel:
    manifest = read_manifest(source.folder)
    check_file(source.folder, manifest, TOKENIZER)
    tokenizer = load_tokenizer(
        source.folder,
        manifest.domain,
        length=manifest.length,
        default_length=manifest.default_length,
        mask_id=manifest.mask_id,
    )
    return ServedModel(source.name, manifest, tokenizer)
