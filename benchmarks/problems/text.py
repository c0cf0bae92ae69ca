"""A left-to-right judge of text, prompts as people write them, and what generated text is made of. Knows no network."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


class NGram:
    """Characters from the `order` - 1 before them, counts of all shorter contexts mixed in (Witten and Bell, 1991)."""

    def __init__(self, texts: Sequence[str], *, order: int = 6) -> None:
        joined = "\0".join(texts)
        self.order, self.vocabulary = order, len(set(joined))
        self.counts = [Counter(_pieces(joined, n)) for n in range(1, order + 1)]
        self.totals: list[Counter[str]] = [Counter() for _ in range(order)]
        self.kinds: list[Counter[str]] = [Counter() for _ in range(order)]
        for n, counts in enumerate(self.counts):
            for piece, count in counts.items():
                self.totals[n][piece[:-1]] += count
                self.kinds[n][piece[:-1]] += 1

    def bits(self, text: str) -> float:
        """Of the whole text, from an empty context on."""
        return -sum(math.log2(self._probability(text[max(i - self.order + 1, 0) : i + 1])) for i in range(len(text)))

    def _probability(self, piece: str) -> float:
        """Of its last character after the others."""
        p = 1.0 / self.vocabulary
        for n in range(len(piece)):
            tail = piece[len(piece) - 1 - n :]
            total, kinds = self.totals[n][tail[:-1]], self.kinds[n][tail[:-1]]
            if total:
                p = (self.counts[n][tail] + kinds * p) / (total + kinds)
        return p


def _pieces(text: str, n: int) -> list[str]:
    return ["".join(characters) for characters in zip(*(text[i:] for i in range(n)), strict=False)]


class Judge:
    """What it knows is a training text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.n_gram = NGram(texts)
        self._known = frozenset(word for text in texts for word in words(text))

    def __call__(self, texts: Sequence[str]) -> dict[str, float]:
        """Bits a character, the share of words that are known, and of words that are different ones."""
        found = [word for text in texts for word in words(text)]
        return {
            "bits": sum(map(self.n_gram.bits, texts)) / sum(map(len, texts)),
            "known_words": sum(word in self._known for word in found) / max(len(found), 1),
            "different_words": len(set(found)) / max(len(found), 1),
        }


def words(text: str) -> list[str]:
    """The whole ones: what the text's borders may have cut is left out."""
    found = list(_WORD.finditer(text))
    return [match[0].lower() for match in found if match.start() > 0 and match.end() < len(text)]


def prompt_masks(length: int) -> dict[str, Tensor]:
    """What three kinds of prompts know, [L] bool each: the first half, the second half, all but four even holes that
    hide half of the text."""
    places = torch.arange(length)
    hole = max(length // 8, 1)
    return {
        "prefix": places < length // 2,
        "suffix": places >= length // 2,
        "holes": (places // hole) % 2 == 0,
    }
