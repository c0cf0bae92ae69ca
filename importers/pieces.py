"""The tokenizer of a Hugging Face folder, in the `tokenizers` library's format: its pieces, mask and marks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Regex
from tokenizers import Tokenizer as Library
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing

from unveil.importers.source import read_json
from unveil.model.errors import ArtifactError
from unveil.model.network.architecture import Family
from unveil.model.network.imported import library

TokenizerKind = Literal["auto", "smiles"]
_FILE, _VOCABULARY = "tokenizer.json", "vocab.txt"
# Classes of the library that make one file of a family's older ones.
_CONVERTED: dict[Family, tuple[str, tuple[str, ...]]] = {
    "bert": ("BertTokenizer", (_VOCABULARY,)),
    "roberta": ("RobertaTokenizer", ("vocab.json", "merges.txt")),
    "dream": ("Qwen2Tokenizer", ("vocab.json", "merges.txt")),
}
# Schwaller et al. 2019, "Molecular Transformer": atoms in brackets, atoms, bonds, branches, rings, arrows.
_SMILES = r"\[[^\]]+\]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>>?|\*|\$|%[0-9]{2}|[0-9]"
_MASK, _UNKNOWN, _MARKS = "mask_token", "unk_token", ("cls_token", "sep_token")


@dataclass(frozen=True)
class Pieces:
    """`before` and `after` are the marks that the model expects around a text."""

    library: Library
    mask_id: int
    before: tuple[int, ...]
    after: tuple[int, ...]


def read_pieces(folder: Path, *, kind: TokenizerKind, family: Family, config: Mapping[str, Any]) -> Pieces:
    """Raises ArtifactError where there is no tokenizer that can be read, or no mask."""
    names = _special_names(folder)
    if kind == "smiles":
        tokenizer = _smiles(folder / _VOCABULARY, names)
    elif (folder / _FILE).is_file():
        tokenizer = _from_file(folder / _FILE)
    else:
        tokenizer = _converted(folder, family)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    mask_id = _mask_id(tokenizer, names.get(_MASK), config, folder)
    return Pieces(tokenizer, mask_id, *_marks(tokenizer))


def _from_file(path: Path) -> Library:
    try:
        return Library.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ArtifactError(f"{path}: not a tokenizer ({' '.join(str(error).split())[:200]})") from None


def _converted(folder: Path, family: Family) -> Library:
    name, files = _CONVERTED.get(family, ("", ()))
    if not files or not all((folder / file).is_file() for file in files):
        raise ArtifactError(
            f"{folder / _FILE}: missing; save the tokenizer with the transformers library, or, where {_VOCABULARY} "
            "lists tokens of SMILES, import with --tokenizer smiles"
        )
    try:
        found = getattr(library(), name).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return Library.from_str(found.backend_tokenizer.to_str())
    except Exception as error:  # whatever the library makes of damaged files
        raise ArtifactError(f"{folder / files[0]}: no tokenizer ({' '.join(str(error).split())[:200]})") from None


def _smiles(path: Path, names: Mapping[str, str]) -> Library:
    """One token a line of the vocabulary, texts split as chemists do, marks around them where there are any."""
    try:
        tokens = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ArtifactError(f"{path}: cannot be read, so there is no tokenizer of SMILES") from None
    ids = {token: i for i, token in enumerate(tokens)}
    if names.get(_UNKNOWN) not in ids:
        raise ArtifactError(f"{path}: has no unknown token; special_tokens_map.json names it")
    tokenizer = Library(WordLevel(ids, unk_token=names[_UNKNOWN]))
    tokenizer.pre_tokenizer = Split(Regex(_SMILES), "isolated")
    tokenizer.decoder = Fuse()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in names.values() if t in ids])
    before, after = (names.get(mark, "") for mark in _MARKS)
    if before in ids and after in ids:
        marks = [(before, ids[before]), (after, ids[after])]
        tokenizer.post_processor = TemplateProcessing(single=f"{before} $A {after}", special_tokens=marks)
    return tokenizer


def _special_names(folder: Path) -> dict[str, str]:
    """`mask_token` and the like, from the two files that may name them."""
    found: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        fields = read_json(folder / name) if (folder / name).is_file() else {}
        for key, value in fields.items():
            content = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(content, str):
                found[key] = content
    return found


def _mask_id(tokenizer: Library, name: str | None, config: Mapping[str, Any], folder: Path) -> int:
    """The configuration's mask, where it has one of its own, else the tokenizer's; a special token from now on."""
    token = name
    if isinstance(config.get("mask_token_id"), int):
        token = tokenizer.id_to_token(config["mask_token_id"])
    mask_id = None if token is None else tokenizer.token_to_id(token)
    if token is None or mask_id is None:
        raise ArtifactError(f"{folder}: has no mask token, neither mask_token_id in config.json nor the tokenizer's")
    if mask_id not in tokenizer.get_added_tokens_decoder():
        tokenizer.add_special_tokens([AddedToken(token, normalized=False)])
    return mask_id


def _marks(tokenizer: Library) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and after a text of its own accord."""
    special = tokenizer.get_added_tokens_decoder()
    for token, token_id in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        text = tokenizer.encode(token, add_special_tokens=False).ids
        if token_id in special or not text:
            continue
        framed = tokenizer.encode(token).ids
        start = next(i for i in range(len(framed)) if framed[i : i + len(text)] == text)
        return tuple(framed[:start]), tuple(framed[start + len(text) :])
    return (), ()
