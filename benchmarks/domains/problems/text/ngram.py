"""N-gram models of symbols, with order and smoothing tuned on validation texts.

Kneser-Ney smoothing is the interpolated, modified one, with three discounts a level (Chen and Goodman, 1999);
Witten-Bell smoothing (1991) is the other choice. A text to be scored is read by itself: its first symbols have shorter
contexts, and each is scored by the model of that lower order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Nats = NDArray[np.float64]
Smoothing = Literal["Kneser-Ney", "Witten-Bell"]
SMOOTHINGS: tuple[Smoothing, ...] = ("Kneser-Ney", "Witten-Bell")


class Counts:
    """How often symbols follow contexts 0..C-1: distinct `pairs` (context times `vocabulary` plus symbol), ascending,
    with their counts."""

    def __init__(self, pairs: Ids, counts: Ids, *, num_contexts: int, vocabulary: int) -> None:
        self.pairs, self.counts = pairs, counts
        owners = pairs // vocabulary
        self.totals = np.bincount(owners, weights=counts, minlength=num_contexts)  # [C]
        kinds = (owners[counts == 1], owners[counts == 2], owners[counts > 2])
        self.kinds = np.stack([np.bincount(kind, minlength=num_contexts) for kind in kinds], axis=1)  # [C, 3]
        self.discounts = discounts(counts)

    def mixed(self, pairs: Ids, contexts: Ids, lower: Nats, smoothing: Smoothing) -> Nats:
        """Probabilities of `pairs` from these counts and the `lower` probabilities, [N] each.

        `contexts` are those of the pairs. One that never occurred takes the lower probabilities as they are.
        """
        places = np.searchsorted(self.pairs, pairs).clip(max=len(self.pairs) - 1)
        counts = np.where(self.pairs[places] == pairs, self.counts[places], 0)
        totals, kinds = self.totals[contexts], self.kinds[contexts]
        if smoothing == "Witten-Bell":
            mass = kinds.sum(1).astype(np.float64)
            totals = totals + mass
        else:
            mass = kinds @ self.discounts
            counts = counts - np.where(counts > 0, self.discounts[counts.clip(1, 3) - 1], 0.0)
        return np.where(totals > 0, (counts + mass * lower) / np.maximum(totals, 1), lower)


def discounts(counts: Ids) -> Nats:
    """What is taken off counts of 1, 2 and more, [3]: equation 26 of Chen and Goodman (1999), at least a tenth, so that
    nothing is impossible; a half where counts are too few for it, as those of single characters are."""
    n1, n2, n3, n4 = (int((counts == n).sum()) for n in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return np.full(3, 0.5)
    y = n1 / (n1 + 2 * n2)
    found = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return found.clip(0.1, [1.0, 2.0, 3.0])


@dataclass(frozen=True)
class Level:
    """Contexts of n symbols: distinct `keys` (the context without its first symbol, times the vocabulary, plus that
    symbol), ascending. `occurrences` count what follows each; `continuations` count the different symbols before a
    context and what follows it, for contexts that are not the longest."""

    keys: Ids
    occurrences: Counts
    continuations: Counts | None = None

    def find(self, keys: Ids) -> Ids:
        """The contexts of these keys, -1 for those that never occurred."""
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)


class NGram:
    """All n-gram models up to the order `most` of symbols 0..vocabulary-1, counted on `texts` of them."""

    def __init__(self, texts: Sequence[Ids], *, vocabulary: int, most: int) -> None:
        self._size = vocabulary + 1  # one more symbol stands before each text
        stream = np.concatenate([np.append(vocabulary, text).astype(np.int64) for text in texts])  # [T]
        contexts, keys = np.zeros(len(stream), dtype=np.int64), np.zeros(1, dtype=np.int64)
        self.levels: list[Level] = []
        for n in range(most):
            if n > 0:
                raw = contexts[1:] * self._size + stream[: len(stream) - n]  # of the symbols n..T-1
                keys, contexts = np.unique(raw, return_inverse=True)
            level = Level(keys, self._counted(contexts * self._size + stream[n:], len(keys)))
            if n > 0:
                self.levels[-1] = self._continued(self.levels[-1], by=level)
            self.levels.append(level)

    def _counted(self, pairs: Ids, num_contexts: int) -> Counts:
        distinct, counts = np.unique(pairs, return_counts=True)
        return Counts(distinct, counts, num_contexts=num_contexts, vocabulary=self._size)

    def _continued(self, level: Level, *, by: Level) -> Level:
        """With the continuations that the next longer contexts tell."""
        contexts, symbols = np.divmod(by.occurrences.pairs, self._size)
        shorter = by.keys[contexts] // self._size
        return Level(level.keys, level.occurrences, self._counted(shorter * self._size + symbols, len(level.keys)))

    def nats(self, texts: Sequence[Ids], *, order: int, smoothing: Smoothing) -> Nats:
        """Minus the log-likelihood of each text, read by itself, by the model of this order: [N]."""
        x = np.concatenate(texts)
        lengths = [len(text) for text in texts]
        place = np.concatenate([np.arange(length) for length in lengths])
        p = np.full(len(x), 1.0 / self._size)
        contexts = np.zeros(len(x), dtype=np.int64)
        for n, level in enumerate(self.levels[:order]):
            if n > 0:
                before = np.roll(x, n)
                contexts = np.where(contexts < 0, -1, level.find(contexts * self._size + before))
                contexts = np.where(place < n, -1, contexts)
            is_longest = place.clip(max=order - 1) == n
            for counts, chosen in ((level.occurrences, is_longest), (level.continuations, ~is_longest)):
                used = level.occurrences if counts is None or smoothing == "Witten-Bell" else counts
                at = np.flatnonzero(chosen & (contexts >= 0))
                p[at] = used.mixed(contexts[at] * self._size + x[at], contexts[at], p[at], smoothing)
        return -np.add.reduceat(np.log(p), np.cumsum([0, *lengths[:-1]]))


@dataclass(frozen=True)
class TunedNGram:
    """The model that is best on validation texts; `trials` has what each costs there, in nats a symbol."""

    model: NGram
    order: int
    smoothing: Smoothing
    trials: Mapping[str, float]

    def nats(self, texts: Sequence[Ids]) -> Nats:
        """Minus the log-likelihood of each text, read by itself: [N]."""
        return self.model.nats(texts, order=self.order, smoothing=self.smoothing)

    @property
    def name(self) -> str:
        """As a reader would name it."""
        return f"order {self.order}, {self.smoothing}"


def tuned(train: Sequence[Ids], validation: Sequence[Ids], *, vocabulary: int, orders: Sequence[int]) -> TunedNGram:
    """Counted on `train`; order and smoothing are the best of all `orders` and smoothings on `validation`."""
    model = NGram(train, vocabulary=vocabulary, most=max(orders))
    num_symbols = sum(map(len, validation))
    trials = {
        (order, smoothing): float(model.nats(validation, order=order, smoothing=smoothing).sum()) / num_symbols
        for smoothing in SMOOTHINGS
        for order in orders
    }
    order, smoothing = min(trials, key=trials.__getitem__)
    return TunedNGram(model, order, smoothing, {f"order {o}, {s}": nats for (o, s), nats in trials.items()})
