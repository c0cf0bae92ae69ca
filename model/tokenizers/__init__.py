"""Prompt to canvas, canvas to output: one module a domain. Torch-free, so the HTTP side may use them."""

from pathlib import Path

from unveil.model.errors import ArtifactError
from unveil.model.tokenizers.base import Domain, Tokenizer
from unveil.model.tokenizers.grid import GridTokenizer
from unveil.model.tokenizers.pieces import PieceTokenizer
from unveil.model.tokenizers.smiles import SmilesTokenizer
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.text import TextTokenizer

FILE_NAME = "tokenizer.json"


def load_tokenizer(
    folder: Path, domain: Domain, *, length: int, default_length: int, mask_id: int | None = None
) -> Tokenizer:
    """The tokenizer of an artifact's folder; all else is what the artifact's config says, `mask_id` if it is imported.

    Raises ArtifactError, in one line, where the file is damaged or does not fit them.
    """
    if mask_id is not None:
        return PieceTokenizer.load(folder / FILE_NAME, mask_id=mask_id, length=length, default_length=default_length)
    return _LOADERS[domain](folder / FILE_NAME, length, default_length)


def _load_table(path: Path, length: int, default_length: int) -> Tokenizer:
    tokenizer = TableTokenizer.load(path)
    if not length == default_length == tokenizer.length:
        raise ArtifactError(f"{path.name} has {tokenizer.length} columns, the artifact's config says {length}")
    return tokenizer


def _load_text(path: Path, length: int, default_length: int) -> Tokenizer:
    return TextTokenizer.load(path, length=length, default_length=default_length)


def _load_smiles(path: Path, length: int, default_length: int) -> Tokenizer:
    return SmilesTokenizer.load(path, length=length, default_length=default_length)


def _load_grid(path: Path, length: int, default_length: int) -> Tokenizer:
    tokenizer = GridTokenizer.load(path)
    if not length == default_length == tokenizer.length:
        raise ArtifactError(f"{path.name} has {tokenizer.length} cells, the artifact's config says {length}")
    return tokenizer


_LOADERS = {"table": _load_table, "text": _load_text, "smiles": _load_smiles, "grid": _load_grid}
