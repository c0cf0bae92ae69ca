"""A folder of the Hugging Face layout to an artifact.

The network and its weights stay what they are; the order is uniform until one is learnt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unveil.importers.card import write_card
from unveil.importers.layouts import config_fields, library_names, most_positions, settled
from unveil.importers.pieces import Pieces, TokenizerKind, read_pieces
from unveil.importers.source import CONFIG, Source, read_source
from unveil.model.artifact.folder import check_replaceable, save_artifact
from unveil.model.artifact.manifest import Manifest
from unveil.model.errors import ArtifactError
from unveil.model.network.architecture import ImportedArchitecture, OrderSpec
from unveil.model.network.imported import PARTS, Imported, library, library_config
from unveil.model.tokenizers.pieces import PieceTokenizer

MOST_BY_DEFAULT, NEW_BY_DEFAULT = 512, 32


@dataclass(frozen=True)
class Wishes:
    """What a user may choose: the longest canvas, new tokens after a prompt without holes, the tokenizer, a license."""

    length: int | None = None
    default_length: int | None = None
    tokenizer: TokenizerKind = "auto"
    license: str | None = None


@dataclass(frozen=True)
class Converted:
    """An imported model in memory; `provenance` is JSON for the artifact."""

    denoiser: Imported
    tokenizer: PieceTokenizer
    provenance: Mapping[str, Any]


def import_folder(folder: Path, out: Path, wishes: Wishes) -> tuple[Manifest, Converted]:
    """Writes the artifact. Raises ArtifactError, in one line, for what cannot be imported."""
    check_replaceable(out)
    converted = convert(folder, wishes)
    manifest = save_artifact(
        out,
        denoiser=converted.denoiser,
        tokenizer=converted.tokenizer,
        training={"imported": dict(converted.provenance)},
        metrics={},
        card=write_card(out.resolve().name, converted.provenance, converted.denoiser.architecture),
    )
    return manifest, converted


def convert(folder: Path, wishes: Wishes) -> Converted:
    """Raises ArtifactError."""
    library()  # before anything is read, so that a missing package is the first thing said
    source = read_source(folder)
    fields = config_fields(source.family, source.config, folder / CONFIG)
    config = library_config(source.family, fields)
    pieces = read_pieces(folder, kind=wishes.tokenizer, family=source.family, config=source.config)
    architecture, default_length = _architecture(source, settled(config), pieces, wishes)
    network, left_out = _network(source, config)
    denoiser = Imported(architecture, OrderSpec(kind="uniform"))
    denoiser.net.load_state_dict(network.state_dict())
    tokenizer = PieceTokenizer(
        pieces.library, mask_id=pieces.mask_id, length=architecture.length, default_length=default_length
    )
    return Converted(denoiser.eval(), tokenizer, _provenance(source, left_out, wishes))


def _network(source: Source, config: Any) -> tuple[Any, list[str]]:
    """The library's network with the folder's weights, and the names of those that it has no use for."""
    kind = getattr(library(), PARTS[source.family].network)
    logs = library().utils.logging
    verbosity = logs.get_verbosity()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        found, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=library_names(source.family, source.weights),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # said below, by name
        )
    except Exception as error:  # whatever the library raises: the weights come from a file
        raise ArtifactError(f"{source.folder}: {' '.join(str(error).split())[:200]}") from None
    finally:
        logs.set_verbosity(verbosity)
        logs.enable_progress_bar()
    mismatched = {name if isinstance(name, str) else name[0] for name in report["mismatched_keys"]}
    lacking = sorted({*report["missing_keys"], *mismatched})
    if lacking:
        names = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        raise ArtifactError(
            f"{source.folder}: its weights are not those of a {PARTS[source.family].network}: {names} "
            f"{'is' if len(lacking) == 1 else 'are'} missing or of another shape"
        )
    return found, sorted(report["unexpected_keys"])


def _architecture(
    source: Source, fields: dict[str, Any], pieces: Pieces, wishes: Wishes
) -> tuple[ImportedArchitecture, int]:
    """The artifact's architecture, and how many new tokens a prompt without holes gets."""
    most = most_positions(source.family, fields) - len(pieces.before) - len(pieces.after)
    length = min(most, MOST_BY_DEFAULT) if wishes.length is None else wishes.length
    if not 1 <= length <= most:
        raise ArtifactError(f"--length: must be between 1 and {most}, got {length}")
    default_length = min(length, NEW_BY_DEFAULT) if wishes.default_length is None else wishes.default_length
    if not 1 <= default_length <= length:
        raise ArtifactError(f"--default-length: must be between 1 and {length}, the length, got {default_length}")
    probe = PieceTokenizer(pieces.library, mask_id=pieces.mask_id, length=length, default_length=default_length)
    (size,) = probe.vocabulary_sizes
    if size > int(fields["vocab_size"]):
        reason = f"the tokenizer has {size} ids, the network {fields['vocab_size']}"
        raise ArtifactError(f"{source.folder}: {reason}")
    ends = _ends(source, fields)
    pad = fields.get("pad_token_id")
    return ImportedArchitecture(
        kind="hf_masked_lm",
        family=source.family,
        length=length,
        vocabulary_sizes=(size,),
        width=int(fields["hidden_size"]),
        before=pieces.before,
        after=pieces.after,
        mask_id=pieces.mask_id,
        pad_id=pad if isinstance(pad, int) else pieces.mask_id,
        absent=tuple(sorted((probe.special_ids - ends) | probe.empty_ids)),
        config=fields,
    ), default_length


def _ends(source: Source, fields: Mapping[str, Any]) -> frozenset[int]:
    """Ids by which a diffusion model says that a text is over; it was trained to, as an encoder was not."""
    end = source.config.get("eos_token_id", fields.get("eos_token_id"))
    return frozenset({end}) if source.family in ("llada", "dream") and isinstance(end, int) else frozenset()


def _provenance(source: Source, left_out: list[str], wishes: Wishes) -> dict[str, Any]:
    return {
        "name": source.folder.resolve().name,
        "family": source.family,
        "files": dict(source.files),
        "was_pickle": source.is_legacy,
        "tensors_left_out": left_out,
        "license": wishes.license or source.license,
        "transformers": library().__version__,
        "torch": torch.__version__,
    }
