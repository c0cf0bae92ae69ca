"""Documents through the `datasets` library to a `Dataset`: streamed, encoded once into the cache, then read off the
disk as they are needed.

The library is an extra: it is imported where it is used. Of a data set on a hub nothing but its files is read; no code
of it is run.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.text import TextTokenizer
from unveil.model.tokenizers.wording import listed
from unveil.training.data.config import HubData
from unveil.training.data.dataset import Dataset, Rows
from unveil.training.data.text.text import fit_tokenizer

NEEDED = "data.kind datasets needs the extra datasets: pip install 'unveil[datasets]'"
PARTS = ("train", "validation", "test")
_BATCH_DOCUMENTS = 1_000


@dataclass(frozen=True)
class Stretch:
    """Documents `start` to `stop` (None: the last) of one split of the data set."""

    split: str
    start: int = 0
    stop: int | None = None


def load_hub(config: HubData, *, cache: Path) -> Dataset:
    """Raises UnveilError."""
    folder = _encoded(config, cache)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    default_length = config.default_length or max(config.length // 2, 1)
    tokenizer = TextTokenizer.load(folder / "tokenizer.json", length=config.length, default_length=default_length)
    rows = {part: _rows(folder / f"{part}.ids", part, config, tokenizer) for part in PARTS}
    for part in PARTS:
        summary[part]["rows"] = len(rows[part])
    return Dataset(
        name=config.path.rstrip("/").rpartition("/")[2],
        tokenizer=tokenizer,
        train=rows["train"],
        validation=rows["validation"],
        test=rows["test"],
        summary=summary,
    )


def stretches(config: HubData) -> dict[str, Stretch]:
    """Which documents are whose; what has no split of its own comes off the beginning of the train split."""
    found, start = {}, 0
    for part, split, count in (
        ("validation", config.validation, config.validation_documents),
        ("test", config.test, config.test_documents),
    ):
        found[part] = Stretch(config.train, start, start + count) if split is None else Stretch(split)
        start += count if split is None else 0
    stop = None if config.documents is None else start + config.documents
    return {"train": Stretch(config.train, start, stop), **found}


def _encoded(config: HubData, cache: Path) -> Path:
    """The folder with all ids. Where several processes ask at once, one makes it and the others wait."""
    meaning = config.model_dump(mode="json", exclude={"length", "default_length"})
    fields = json.dumps([meaning, _own_files(config)], sort_keys=True)
    folder = cache / f"datasets-{hashlib.sha256(fields.encode()).hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix=".datasets-") as staging:
                whole = Path(staging) / "whole"
                whole.mkdir()
                _encode(config, whole)
                os.replace(whole, folder)
    return folder


def _own_files(config: HubData) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a local folder's files, so that a changed one is read anew."""
    files = sorted(path for path in Path(config.path).rglob("*") if path.is_file())
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _encode(config: HubData, folder: Path) -> None:
    parts = stretches(config)
    first = list(islice(_documents(config, parts["train"]), config.tokenizer_documents))
    if not first:
        raise UnveilError(
            f"{config.path}: no documents in the split {config.train} (data.train) beyond the held-out ones"
        )
    tokenizer = fit_tokenizer([*first, config.separator], config, name=config.path)
    tokenizer.save(folder / "tokenizer.json")
    fates = {
        part: _write(_documents(config, stretch), folder / f"{part}.ids", config, tokenizer)
        for part, stretch in parts.items()
    }
    subset = f", {config.subset}" if config.subset else ""
    revision = f" at {config.revision}" if config.revision else ""
    summary = {"source": f"{config.path}{subset}{revision}, through datasets", "license": "not stated", **fates}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def _write(documents: Iterable[str], path: Path, config: HubData, tokenizer: TextTokenizer) -> Mapping[str, int]:
    """All ids, one after the other. Characters that the vocabulary lacks are left out, and counted."""
    dtype = _dtype(tokenizer)
    counts = {"documents": 0, "characters": 0, "unknown_characters": 0}
    with path.open("wb") as file:
        rest = iter(documents)
        while batch := list(islice(rest, _BATCH_DOCUMENTS)):
            known = ["".join(filter(tokenizer.alphabet.__contains__, text)) + config.separator for text in batch]
            for ids in tokenizer.batch_ids(known):
                file.write(ids.astype(dtype).tobytes())
            total = sum(map(len, batch))
            counts["documents"] += len(batch)
            counts["characters"] += total
            counts["unknown_characters"] += total - sum(map(len, known)) + len(batch) * len(config.separator)
    return counts


def _rows(path: Path, part: str, config: HubData, tokenizer: TextTokenizer) -> Rows:
    """[N, L] ids that stay on the disk."""
    dtype = _dtype(tokenizer)
    N = path.stat().st_size // dtype.itemsize // config.length
    if not N:
        raise UnveilError(f"{config.path}: the {part} documents give no canvas of {config.length} tokens (data.length)")
    return np.memmap(path, dtype=dtype, mode="c", shape=(N, config.length))


def _dtype(tokenizer: TextTokenizer) -> np.dtype[Any]:
    return np.dtype(np.uint16 if tokenizer.vocabulary_sizes[0] <= 2**16 else np.int32)


def _documents(config: HubData, stretch: Stretch) -> Iterator[str]:
    """The texts, one after the other, empty ones left out. Raises UnveilError naming the split or the document."""
    rows = _stream(config, stretch)
    try:
        for number, row in enumerate(rows, start=stretch.start):
            if not isinstance(row.get(config.column), str):
                columns = listed([name for name, value in row.items() if isinstance(value, str)])
                place = f"{config.path}, split {stretch.split}, document {number}"
                raise UnveilError(f"{place}: no text in {config.column} (data.column); text is in {columns or 'none'}")
            if row[config.column]:
                yield row[config.column]
    except (OSError, ValueError, RuntimeError) as error:
        raise error if isinstance(error, UnveilError) else _refusal(config, error) from None


def _stream(config: HubData, stretch: Stretch) -> Iterator[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise UnveilError(NEEDED) from None
    try:
        rows = datasets.load_dataset(
            config.path, name=config.subset, revision=config.revision, split=stretch.split, streaming=True
        )
    except Exception as error:  # hub, network, formats and splits all raise kinds of their own
        raise _refusal(config, error) from None
    rows = rows.skip(stretch.start) if stretch.start else rows
    return iter(rows if stretch.stop is None else rows.take(stretch.stop - stretch.start))


def _refusal(config: HubData, error: Exception) -> UnveilError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UnveilError(f"{config.path} cannot be read through datasets: {reason}")
