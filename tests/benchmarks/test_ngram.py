"""N-gram models: distributions, counts by hand, and the choice on a validation text."""

import math
from itertools import product

import numpy as np
import pytest

from unveil.benchmarks.domains.problems.text.ngram import SMOOTHINGS, Ids, NGram, Smoothing, discounts, tuned

STORY = "the cat sat on the mat, and the dog sat on the log. "
ALPHABET = sorted(set(STORY))


def ids(text: str) -> Ids:
    """Places in the alphabet."""
    return np.array([ALPHABET.index(character) for character in text], dtype=np.int64)


@pytest.fixture(scope="module")
def model() -> NGram:
    return NGram([ids(STORY * 3), ids(STORY[5:])], vocabulary=len(ALPHABET), most=5)


@pytest.mark.parametrize(("smoothing", "order"), list(product(SMOOTHINGS, (1, 2, 4))))
def test_what_follows_any_context_sums_to_one(model: NGram, smoothing: Smoothing, order: int) -> None:
    for context in ("", "t", "og ", "mm", "the c", "dog sat"):
        known = ids(context)
        before = float(model.nats([known], order=order, smoothing=smoothing)[0]) if context else 0.0
        longer = [np.append(known, symbol) for symbol in range(len(ALPHABET) + 1)]  # one more stands between texts
        total = sum(math.exp(before - nats) for nats in model.nats(longer, order=order, smoothing=smoothing))
        assert total == pytest.approx(1.0)


def test_witten_bell_by_hand() -> None:
    model = NGram([np.array([0, 1])], vocabulary=2, most=2)  # the stream: border, 0, 1
    first = (1 + 3 / 3) / (3 + 3)  # seen once among three, with three kinds over three symbols
    assert model.nats([np.array([0])], order=2, smoothing="Witten-Bell")[0] == pytest.approx(-math.log(first))
    after = (1 + 1 * first) / (1 + 1)
    nats = model.nats([np.array([0, 1])], order=2, smoothing="Witten-Bell")[0]
    assert nats == pytest.approx(-math.log(first) - math.log(after))


def test_kneser_ney_by_hand() -> None:
    # The stream: border 0 1 0 1 2. Pairs: (border, 0), (0, 1) twice, (1, 0), (1, 2).
    model = NGram([np.array([0, 1, 0, 1, 2])], vocabulary=3, most=2)
    D = 0.5  # too few counts for an estimate
    continued = (2 - D + 3 * D / 4) / 4  # 0 follows two different symbols; of 4 distinct pairs; 3 kinds; 4 symbols
    expected = (1 - D + 2 * D * continued) / 2  # 0 after 1: once in two, which has two kinds
    before = model.nats([np.array([1])], order=2, smoothing="Kneser-Ney")[0]
    both = model.nats([np.array([1, 0])], order=2, smoothing="Kneser-Ney")[0]
    assert math.exp(before - both) == pytest.approx(expected)


def test_discounts_are_those_of_chen_and_goodman() -> None:
    counts = np.array([1] * 8 + [2] * 4 + [3] * 2 + [4] * 1)
    y = 8 / (8 + 2 * 4)
    assert discounts(counts) == pytest.approx([1 - 2 * y * 4 / 8, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2])
    assert discounts(np.array([5, 9])).tolist() == [0.5, 0.5, 0.5]
    assert discounts(np.array([1] * 8 + [2] + [3] * 10 + [4])).min() == 0.1, "nothing is impossible"


def test_each_text_is_read_by_itself(model: NGram) -> None:
    texts = [ids("the cat"), ids("sat on"), ids("mm")]
    together = model.nats(texts, order=4, smoothing="Kneser-Ney")
    alone = [float(model.nats([text], order=4, smoothing="Kneser-Ney")[0]) for text in texts]
    assert together.tolist() == pytest.approx(alone)


def test_order_and_smoothing_are_the_best_on_the_validation_text() -> None:
    generator = np.random.default_rng(0)
    pairs = np.stack([generator.integers(0, 4, 3000), np.zeros(3000, dtype=np.int64)], axis=1)
    pairs[:, 1] = (pairs[:, 0] + 1) % 4  # each second symbol is told by the one before it
    found = tuned([pairs[:2000].ravel()], [pairs[2000:].ravel()], vocabulary=4, orders=[1, 2, 3])
    assert len(found.trials) == 6
    assert found.trials[found.name] == min(found.trials.values())
    assert found.order > 1
    nats = found.nats([pairs[2000:].ravel()])
    assert float(nats[0]) / 2000 == pytest.approx(found.trials[found.name])
