"""What the judges' figures are called, what each means in a sentence, and what is said of a value. Knows no library."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from unveil.model.errors import UnveilError

Judged = Mapping[str, Any]
"""As `judge` gives it."""


class Verdict(NamedTuple):
    """What is said where a figure is at least `least`; of figures where less is better, at most."""

    least: float
    words: str


class Figure(NamedTuple):
    """One figure: its name in options and JSON, its title, what it means, and the verdicts, the best first."""

    name: str
    title: str
    meaning: str
    verdicts: tuple[Verdict, ...]
    is_less_better: bool = False

    def words(self, value: float) -> str:
        """The verdict of a value."""
        for verdict in self.verdicts[:-1]:
            if value <= verdict.least if self.is_less_better else value >= verdict.least:
                return verdict.words
        return self.verdicts[-1].words


FIGURES: Mapping[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(
            "c2st",
            "Told from real rows, by XGBoost",
            "1 where a classifier cannot tell generated rows from training rows, 0 where it always can.",
            (
                Verdict(0.9, "can hardly be told apart"),
                Verdict(0.7, "can be told apart in part"),
                Verdict(0.0, "are easily told apart"),
            ),
        ),
        Figure(
            "logistic",
            "Told from real rows, by logistic regression",
            "The same with a classifier that sees each column by itself.",
            (
                Verdict(0.95, "single columns give nothing away"),
                Verdict(0.8, "single columns give a little away"),
                Verdict(0.0, "single columns give them away"),
            ),
        ),
        Figure(
            "shape",
            "Columns one by one (Shape)",
            "How alike the values of single columns are, 1 being the same; independent columns would have it, too.",
            (Verdict(0.98, "alike"), Verdict(0.9, "nearly alike"), Verdict(0.0, "different")),
        ),
        Figure(
            "trend",
            "Pairs of columns (Trend)",
            "How alike the joint values of two columns are, 1 being the same.",
            (Verdict(0.96, "alike"), Verdict(0.85, "nearly alike"), Verdict(0.0, "different")),
        ),
        Figure(
            "usefulness",
            "As good to learn from",
            "What a classifier or regression trained on generated rows is worth on real ones, as a share of what one "
            "trained on real rows is worth.",
            (
                Verdict(0.98, "as good as real rows"),
                Verdict(0.9, "somewhat worse than real rows"),
                Verdict(0.0, "much worse than real rows"),
            ),
        ),
        Figure(
            "precision",
            "Where real rows are (alpha-precision)",
            "Whether generated rows lie where real rows do, 1 being always.",
            (Verdict(0.95, "they do"), Verdict(0.85, "most do"), Verdict(0.0, "many do not")),
        ),
        Figure(
            "recall",
            "Everywhere real rows are (beta-recall)",
            "Whether every real row has a generated one nearby; other real rows reach about 0.5.",
            (Verdict(0.45, "nearly as other real rows"), Verdict(0.3, "less often"), Verdict(0.0, "rarely")),
        ),
        Figure(
            "attack",
            "Membership by likelihood (AUC)",
            "Whether a row's likelihood tells that it was trained on; 0.5 is a coin.",
            (
                Verdict(0.52, "no better than a coin"),
                Verdict(0.6, "a little better than a coin"),
                Verdict(1.0, "rows that were trained on can be named"),
            ),
            is_less_better=True,
        ),
        Figure(
            "closer",
            "Closer to training rows",
            "The share of generated rows that are closer to a training row than to a held-out one; 0.5: neither.",
            (
                Verdict(0.55, "no sign of copies"),
                Verdict(0.65, "a lean towards training rows"),
                Verdict(1.0, "training rows are repeated"),
            ),
            is_less_better=True,
        ),
    )
}


def generated_value(judged: Judged, name: str) -> float | None:
    """A figure of the generated rows; None where it was not to be had."""
    found = judged.get(name)
    value = found.get("generated") if isinstance(found, Mapping) else found
    return None if value is None or math.isnan(value) else float(value)


class Limit(NamedTuple):
    """What a figure must not be below, or above."""

    name: str
    value: float
    is_most: bool

    def broken_by(self, judged: Judged) -> str | None:
        """One line where a figure is beyond it, or was not to be had."""
        found, sign = generated_value(judged, self.name), "above" if self.is_most else "below"
        if found is None:
            return f"{self.name} is not known, and must not be {sign} {self.value:g}"
        is_broken = found > self.value if self.is_most else found < self.value
        return f"{self.name} is {found:.4f}, {sign} {self.value:g}" if is_broken else None


def limit_of(text: str, *, is_most: bool) -> Limit:
    """`c2st=0.8`. Raises UnveilError in one line."""
    option = "--fail-above" if is_most else "--fail-below"
    name, sign, number = text.partition("=")
    if name not in FIGURES:
        close = get_close_matches(name, FIGURES, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(FIGURES)}"
        raise UnveilError(f"{option} {text}: no such figure{hint}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not sign or not math.isfinite(value):
        raise UnveilError(f"{option} {text}: must be {name}=NUMBER")
    return Limit(name, value, is_most)
