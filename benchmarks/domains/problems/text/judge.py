"""A judge of text, prompts as people write them, and text back from overlapping canvases."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unveil.benchmarks.domains.problems.text.ngram import Ids, Nats, TunedNGram, tuned

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


class Judge:
    """What it knows is a training text: its words, and an n-gram model of its characters that is tuned on another."""

    def __init__(self, train: Sequence[str], validation: Sequence[str], *, orders: Sequence[int]) -> None:
        self._ids = {character: i for i, character in enumerate(sorted(set("".join(train))))}
        self._known = frozenset(word for text in train for word in words(text))
        self.n_gram: TunedNGram = tuned(
            list(map(self._encoded, train)),
            list(map(self._encoded, validation)),
            vocabulary=len(self._ids),
            orders=orders,
        )

    def _encoded(self, text: str) -> Ids:
        return np.array([self._ids[character] for character in text], dtype=np.int64)

    def nats(self, texts: Sequence[str]) -> Nats:
        """Minus the log-likelihood of each text by the n-gram model, read by itself: [N]."""
        return self.n_gram.nats(list(map(self._encoded, texts)))

    def __call__(self, texts: Sequence[str]) -> dict[str, float]:
        """Bits a character, the share of words that are known, and of words that are different ones."""
        found = [word for text in texts for word in words(text)]
        return {
            "bits": float(self.nats(texts).sum() / np.log(2) / sum(map(len, texts))),
            "known_words": sum(word in self._known for word in found) / max(len(found), 1),
            "different_words": len(set(found)) / max(len(found), 1),
        }


def stretches(canvases: Ids, *, stride: int) -> list[Ids]:
    """The texts that canvases [N, L] were cut from, one canvas at every `stride` tokens; ascending, each text once.

    What is left over at the end of a text is in no canvas. Canvases that do not overlap stay apart.
    """
    overlap = canvases.shape[1] - stride
    if overlap <= 0:
        return list(canvases.astype(np.int64))
    goes_on = (canvases[1:, :overlap] == canvases[:-1, stride:]).all(1)
    groups = np.split(canvases, np.flatnonzero(~goes_on) + 1)
    return [np.concatenate([group[0], group[1:, overlap:].ravel()]).astype(np.int64) for group in groups]


def repeated_share(texts: Sequence[str], *, of: Sequence[str], length: int = 40) -> float:
    """Which share of the stretches of so many characters in `texts` also occurs in the texts `of`, word for word."""
    known = {hash(text[i : i + length]) for text in of for i in range(len(text) - length + 1)}
    found = [hash(text[i : i + length]) in known for text in texts for i in range(len(text) - length + 1)]
    return sum(found) / max(len(found), 1)


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
