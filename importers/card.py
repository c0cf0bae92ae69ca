"""The model card of an imported model: where it comes from and what it takes. Knows words, no network and no file."""

from collections.abc import Mapping
from typing import Any

from unveil.model.network.architecture import ImportedArchitecture


def write_card(name: str, provenance: Mapping[str, Any], architecture: ImportedArchitecture) -> str:
    """Markdown: what it is, where it comes from, how canvases are shown to it, limits, license."""
    files = [f"- `{file}`, sha256 `{digest}`" for file, digest in provenance["files"].items()]
    left_out = provenance["tensors_left_out"]
    lines = [
        f"# {name}",
        "",
        f"`{provenance['name']}`, a masked language model of the family *{architecture.family}*, trained elsewhere and "
        "imported with `unveil import`. Its weights are unchanged; its order is uniform until one is learnt "
        "(`unveil train --freeze-denoiser`).",
        "",
        "## Provenance",
        "",
        *files,
        f"- read by transformers {provenance['transformers']}, torch {provenance['torch']}",
        *(["- read out of a pickle, tensors alone; this artifact holds safetensors"] * provenance["was_pickle"]),
        *([f"- of no use here and left out: {', '.join(left_out)}"] if left_out else []),
        "",
        "## Canvases",
        "",
        f"- Up to {architecture.length} tokens, counted from 0; the marks around them (ids {list(architecture.before)} "
        f"before, {list(architecture.after)} after) are always visible and are no positions.",
        f"- Hidden positions show the model its own mask, id {architecture.mask_id}.",
        f"- {len(architecture.absent)} ids are never drawn: special tokens, and ids without a token. "
        "Log-probabilities are over the rest.",
        "",
        "## Limits",
        "",
        "- Trained to fill in few holes at a time; with many the text may fall apart. What it was trained on, and the "
        "biases that come with it, are its makers' to say.",
        "",
        "## License",
        "",
        provenance["license"] or "Not stated in the folder. The license of the original weights applies.",
    ]
    return "\n".join(lines) + "\n"
