"""Molecules as SMILES to a `Dataset`: MOSES as the molsets package carries it, and any file of SMILES.

Rows are as many tokens as the model is long, one byte each; past its end a molecule holds the end token. Only training
rows make the vocabulary. A row that is too long or holds a token that training never saw is left out, and counted.
"""

import gzip
import hashlib
import os
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.smiles import SmilesTokenizer, first_foreign, split_smiles
from unveil.model.tokenizers.wording import listed, quoted
from unveil.training.data.config import MosesData, SmilesData
from unveil.training.data.dataset import Dataset
from unveil.training.data.files import read_bytes, read_table
from unveil.training.data.molecules.smiles_syntax import first_unpaired
from unveil.training.data.packing import decode
from unveil.training.data.splits import Index, draw_out, left_out
from unveil.training.data.wheels import Wheel, read_member

WHEEL = Wheel("molsets", "0.3.1", "7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34")
FOLDER, FILES = "moses/dataset/data", ("train", "test", "test_scaffolds")
MIN_ROWS = 10
_BLOCK_ROWS = 20_000
_MOST_TOKENS = 255  # and the end token: what a byte can tell apart
_ENCODING = 1  # of the kept array
_UNKNOWN = "hold a token that no training row has"


@dataclass(frozen=True, slots=True)
class Encoded:
    """`rows` [N, longest] uint8: 0 past a molecule's end, else one more than the place in `tokens`."""

    tokens: tuple[str, ...]
    rows: NDArray[np.uint8]


def load_moses(config: MosesData, *, cache: Path) -> Dataset:
    """The package's own test file is the test split; validation is drawn from its train file. Raises UnveilError."""
    encoded, counts = _moses(cache)
    starts = np.cumsum([0, *counts])
    train, validation = draw_out(counts[0], shares=(config.validation_rows / counts[0],), seed=config.seed)
    test = FILES.index(config.test)

    def place(row: int) -> str:
        file = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{FILES[file]}.csv.gz line {row - starts[file] + 2}"

    parts = {"train": train, "validation": validation, "test": np.arange(starts[test], starts[test + 1])}
    summary = {
        "source": f"MOSES (Polykovskiy et al., 2020; molecules from ZINC), files of the {WHEEL.requirement} wheel",
        "license": "MIT (molsets)",
        "sha256": {f"{WHEEL.requirement} wheel": WHEEL.sha256},
    }
    return _dataset(encoded, parts, place, name="moses", length=config.length, summary=summary)


def load_smiles(config: SmilesData) -> Dataset:
    """A user's file. Raises UnveilError, in one line, naming the file, the row and the character."""
    smiles, places, sha256 = _read(config)
    if len(smiles) < MIN_ROWS:
        raise UnveilError(f"{config.path}: {len(smiles)} molecules, at least {MIN_ROWS} are needed")
    for text, place in zip(smiles, places, strict=True):
        _check(text, place, has_column=config.column is not None)
    shares = (config.validation_share, config.test_share)
    train, validation, test = draw_out(len(smiles), shares=shares, seed=config.seed)
    return _dataset(
        encode(smiles),
        {"train": train, "validation": validation, "test": test},
        places.__getitem__,
        name=config.path.stem,
        length=config.length,
        summary={"source": config.path.name, "license": "not stated", "sha256": {config.path.name: sha256}},
    )


def encode(smiles: Sequence[str]) -> Encoded:
    """Raises UnveilError for more different tokens than a byte tells apart."""
    ids: defaultdict[str, int] = defaultdict(count().__next__)
    blocks = []
    for start in range(0, len(smiles), _BLOCK_ROWS):
        found = split_smiles("\n".join([*smiles[start : start + _BLOCK_ROWS], ""]))
        blocks.append(np.fromiter(map(ids.__getitem__, found), dtype=np.uint16, count=len(found)))
    ends = ids.pop("\n")
    tokens = tuple(sorted(ids))
    if len(tokens) > _MOST_TOKENS:
        raise UnveilError(f"{len(tokens)} different tokens, at most {_MOST_TOKENS} are taken")
    new = np.zeros(len(ids) + 1, dtype=np.uint8)
    new[[ids[token] for token in tokens]] = np.arange(1, len(tokens) + 1)
    matrices = [_matrix(new[block], np.flatnonzero(block == ends)) for block in blocks]
    longest = max(matrix.shape[1] for matrix in matrices)
    return Encoded(tokens, np.concatenate([np.pad(m, ((0, 0), (0, longest - m.shape[1]))) for m in matrices]))


def _matrix(ids: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Ids of many rows, each with a separator after it -> [N, longest], 0 past each row's end."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts
    filled = np.zeros((len(ends), max(int(lengths.max()), 1)), dtype=np.uint8)
    is_inside = np.arange(filled.shape[1]) < lengths[:, None]
    keep = np.ones(len(ids), dtype=bool)
    keep[ends] = False
    filled[is_inside] = ids[keep]
    return filled


def _moses(cache: Path) -> tuple[Encoded, list[int]]:
    """All three files encoded together, and how many rows each has. Kept: splitting 2 million SMILES takes a minute."""
    path = cache / f"{WHEEL.name}-{WHEEL.version}-{WHEEL.sha256[:8]}-tokens-{_ENCODING}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return Encoded(tuple(kept["tokens"].tolist()), kept["rows"]), kept["counts"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there yet, or torn: it is made anew from the wheel, whose sha256 is checked
    files = [moses_smiles(name, cache=cache) for name in FILES]
    encoded = encode([text for file in files for text in file])
    counts = [len(file) for file in files]
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, delete=False) as staging:
        np.savez(staging, tokens=np.array(encoded.tokens), rows=encoded.rows, counts=np.array(counts))
    os.replace(staging.name, path)
    return encoded, counts


def moses_smiles(name: str, *, cache: Path) -> list[str]:
    """The first column of one of the package's `FILES`, in its order, which is not a random one. Raises UnveilError."""
    content = gzip.decompress(read_member(WHEEL, f"{FOLDER}/{name}.csv.gz", cache=cache)).decode("ascii")
    header, *lines = content.splitlines()
    if header.split(",")[0] != "SMILES":
        raise UnveilError(f"{WHEEL.requirement}: {name}.csv.gz has no column SMILES first")
    return [line.partition(",")[0] for line in lines]


def _read(config: SmilesData) -> tuple[list[str], list[str], str]:
    """SMILES, where each stands, and the file's sha256."""
    if config.column is None:
        raw = read_bytes(config.path)
        lines = [(i, line.strip()) for i, line in enumerate(decode(raw, config.path).splitlines(), start=1)]
        found = [(line, f"{config.path} line {i}") for i, line in lines if line]
        return [text for text, _ in found], [place for _, place in found], hashlib.sha256(raw).hexdigest()
    table = read_table(config.path, delimiter=config.delimiter)
    if config.column not in table.frame.columns:
        names = listed(table.frame.columns)
        raise UnveilError(f'{config.path} has no column "{config.column}" (data.column); the columns are {names}')
    cells = ["" if cell is None else str(cell).strip() for cell in table.frame[config.column].to_list()]
    return cells, [table.place(row) for row in range(len(cells))], table.sha256


def _check(text: str, place: str, *, has_column: bool) -> None:
    if not text:
        raise UnveilError(f"{place}: no SMILES")
    foreign = first_foreign(text)
    if foreign is not None and foreign[0] not in ("[", "]"):
        hint = "" if has_column else "; a table takes data.column"
        raise UnveilError(f"{place}: {quoted(foreign[0])} is no part of a SMILES (character {foreign[1]}){hint}")
    unpaired = first_unpaired(text)
    if unpaired is not None:
        raise UnveilError(f"{place}: {unpaired[0]} (character {unpaired[1]})")


def _dataset(
    encoded: Encoded,
    parts: Mapping[str, Index],
    place: Callable[[int], str],
    *,
    name: str,
    length: int | None,
    summary: Mapping[str, Any],
) -> Dataset:
    """Rows of three splits in the vocabulary and the length of the training rows; `place` says where a row stands."""
    lengths = (encoded.rows > 0).sum(1)  # [N]
    L = length or int(lengths[parts["train"]].max())
    of_train = encoded.rows[parts["train"]][lengths[parts["train"]] <= L]
    counts = np.bincount(of_train.ravel(), minlength=len(encoded.tokens) + 1)
    is_used = counts > 0
    is_used[0] = True
    new = np.where(is_used, is_used.cumsum() - 1, 0).astype(np.uint8)  # by old id
    rows, fates, notices = {}, {}, []
    for part, index in parts.items():
        fits, known = lengths[index] <= L, is_used[encoded.rows[index]].all(1)
        kept = encoded.rows[index][fits & known][:, :L]
        rows[part] = new[np.pad(kept, ((0, 0), (0, L - kept.shape[1])))]
        fates[part] = {"rows": len(kept), "too_long": int((~fits).sum()), "unknown_tokens": int((fits & ~known).sum())}
        for is_out, reason in ((~fits, f"are longer than {L} tokens"), (fits & ~known, _UNKNOWN)):
            if is_out.any():
                said = f"{is_out.sum()} of {len(index)} {part} rows {reason}"
                notices.append(left_out(said, place(index[is_out.argmax()])))
        if not len(kept):
            raise UnveilError(f"{name}: none of the {part} rows fits a model of {L} tokens")
    tokens = [token for token, used in zip(encoded.tokens, is_used[1:], strict=True) if used]
    return Dataset(
        name=name,
        tokenizer=SmilesTokenizer(tokens, length=L),
        train=rows["train"],
        validation=rows["validation"],
        test=rows["test"],
        summary={**summary, **fates, "notices": notices},
    )
