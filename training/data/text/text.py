"""Text files to a `Dataset`: each file split in three contiguous parts, each part cut into canvases.

Only the training parts make the vocabulary. A stretch of an evaluation part with a character that training never saw is
left out, and counted.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.text import TextTokenizer
from unveil.model.tokenizers.wording import quoted
from unveil.training.data.config import HubData, KjvData, TextData
from unveil.training.data.dataset import Dataset, Rows
from unveil.training.data.files import named, read_bytes
from unveil.training.data.packing import decode

_DEFAULT_VOCAB_SIZE = 1024


def load_text(config: TextData) -> Dataset:
    """Raises UnveilError."""
    raw = {path: read_bytes(path) for path in config.files}
    texts = [decode(content, path) for path, content in raw.items()]
    ranges = [_ranges(len(text), config) for text in texts]
    train, validation, test = (
        [text[slice(*ends[split])] for text, ends in zip(texts, ranges, strict=True)]
        for split in ("train", "validation", "test")
    )
    if sum(map(len, train)) < config.length:
        raise UnveilError(f"{config.files[0]}: the train part gives no canvas of {config.length} tokens")
    tokenizer = fit_tokenizer(train, config, name=str(config.files[0]))
    rows, fates = {}, {}
    for name, split in (("train", train), ("validation", validation), ("test", test)):
        rows[name], fates[name] = cut(split, tokenizer)
        if not len(rows[name]):
            raise UnveilError(f"{config.files[0]}: the {name} part gives no canvas of {config.length} tokens")
    return Dataset(
        name=config.files[0].stem,
        tokenizer=tokenizer,
        train=rows["train"],
        validation=rows["validation"],
        test=rows["test"],
        summary={
            "source": ", ".join(named(config.files)),
            "license": "not stated",
            "sha256": {name: hashlib.sha256(raw[path]).hexdigest() for name, path in named(config.files).items()},
            **fates,
            "notices": _notices(fates, lambda split: _first_unknown(config, texts, tokenizer.alphabet, split)),
        },
    )


def _notices(fates: Mapping[str, Mapping[str, int]], first: Callable[[str], str]) -> list[str]:
    """One line for each split of which something had to be left out; `first` says what comes first in it, and where."""
    return [
        f"{fate['unknown_characters']} of {fate['characters']} characters of the {split} part are not in the training"
        f" part: left out, and the text cut there (the first: {first(split)})"
        for split, fate in fates.items()
        if fate["unknown_characters"]
    ]


def _first_unknown(config: TextData, texts: Sequence[str], alphabet: Collection[str], split: str) -> str:
    """The first character of a split that training never saw, with its file and line."""
    unknown = re.compile(f"[^{re.escape(''.join(sorted(alphabet)))}]")
    for path, text in zip(config.files, texts, strict=True):
        start, end = _ranges(len(text), config)[split]
        found = unknown.search(text, start, end)
        if found is not None:
            return f"{quoted(found[0])}, {path} line {text.count(chr(10), 0, found.start()) + 1}"
    raise AssertionError("called for a split that has one")


def _ranges(length: int, config: TextData) -> dict[str, tuple[int, int]]:
    """Where the splits of a text begin and end."""
    second = round(length * (1 - config.validation_share - config.test_share))
    third = round(length * (1 - config.test_share))
    return {"train": (0, second), "validation": (second, third), "test": (third, length)}


def fit_tokenizer(texts: Sequence[str], config: TextData | KjvData | HubData, *, name: str) -> TextTokenizer:
    """The vocabulary of the training texts; `name` says whose they are where it cannot be had. Raises UnveilError."""
    default_length = config.default_length or max(config.length // 2, 1)
    if config.tokenizer == "characters":
        return TextTokenizer.train_characters(texts, length=config.length, default_length=default_length)
    size = config.vocab_size or _DEFAULT_VOCAB_SIZE
    num_characters = len(set().union(*texts))
    if num_characters > size:
        raise UnveilError(f"{name}: {num_characters} different characters, data.vocab_size is {size}")
    return TextTokenizer.train_bpe(texts, vocab_size=size, length=config.length, default_length=default_length)


def cut(texts: Sequence[str], tokenizer: TextTokenizer, *, stride: int | None = None) -> tuple[Rows, dict[str, int]]:
    """[N, L] ids, a canvas at every `stride` (default L) tokens of a text; what is left over at its end is not used."""
    known = re.escape("".join(sorted(tokenizer.alphabet)))
    stretches = [stretch for text in texts for stretch in re.findall(f"[{known}]+", text)]
    L = tokenizer.length
    ids = [tokenizer.ids(stretch) for stretch in stretches]
    rows = [sliding_window_view(stretch, L)[:: stride or L] for stretch in ids if len(stretch) >= L]
    tokens = np.concatenate(rows) if rows else np.empty((0, L), dtype=np.int64)  # [N, L]
    num_unknown = sum(map(len, texts)) - sum(map(len, stretches))
    return tokens, {"rows": len(tokens), "characters": sum(map(len, texts)), "unknown_characters": num_unknown}
