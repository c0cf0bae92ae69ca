"""`unveil import`: what to call in `importers`, and what to say. Alone in fetching from a hub, if asked to."""

from pathlib import Path

from rich.console import Console

from unveil.importers.convert import Wishes, import_folder
from unveil.model.errors import ArtifactError
from unveil.model.network.imported import library

__all__ = ["Wishes", "run"]
_stderr = Console(stderr=True, highlight=False, markup=False)
_TAKEN = ("*.json", "*.safetensors", "*.txt", "README.md")  # neither pickles nor code


def run(folder: str, out: Path, *, is_hub: bool, wishes: Wishes) -> None:
    """Writes the artifact and says what became of what. Raises ArtifactError."""
    place = _fetched(folder) if is_hub else Path(folder)
    manifest, converted = import_folder(place, out, wishes)
    provenance = converted.provenance
    lines = [
        f"{provenance['name']}: {provenance['family']}, {manifest.num_parameters:,} parameters, "
        f"{manifest.architecture.vocabulary_sizes[0]:,} tokens, canvases of up to {manifest.length}"
    ]
    if provenance["was_pickle"]:
        lines.append("note: the weights were read out of a pickle, tensors alone; the artifact holds safetensors")
    if provenance["tensors_left_out"]:
        lines.append(f"note: of no use here and left out: {', '.join(provenance['tensors_left_out'])}")
    if provenance["license"] is None:
        lines.append("note: the folder states no license; --license puts one on the card")
    _stderr.print("\n".join([*lines, f"wrote {out}; serve it with: unveil serve {out}"]), soft_wrap=True)


def _fetched(name: str) -> Path:
    """A model of the hub in the hub library's own cache."""
    library()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_TAKEN)))
    except Exception as error:  # whatever the network or the hub has to say
        raise ArtifactError(f"--hub {name}: could not be fetched ({' '.join(str(error).split())[:200]})") from None
