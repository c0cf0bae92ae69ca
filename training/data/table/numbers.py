"""Whether a column of texts holds numbers as people write them, and in which style."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.numbers import NumberStyle, find_style, marks_of
from unveil.model.tokenizers.table.table import Cells
from unveil.model.tokenizers.wording import quoted
from unveil.training.data.config import ColumnChoice

_FEW = 16  # different numbers; no more of them among other texts may well be levels
_PLAIN = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)$"
_SHORTEST = 4  # decimals beyond which Python writes small numbers with an exponent

Refuse = Callable[[int, str], UnveilError]  # the row, from 0, and what is wrong there


@dataclass(frozen=True, slots=True)
class Written:
    """A column of numbers [N] with NaN where missing, how they are written, and what a person should know of it."""

    cells: Cells
    style: NumberStyle
    notice: str


def as_written(
    text: pl.Series, choice: ColumnChoice | None, refuse: Refuse, *, prefers_comma: bool
) -> Written | str | None:
    """Texts [N], null where missing, as numbers; or what they look like, where they are not taken as such; or None.

    Raises UnveilError for a text that is no number among those of a column that the user says to be numeric.
    """
    is_chosen = choice is not None and choice.kind == "numeric"
    marks = marks_of(choice.format) if choice is not None and choice.format is not None else None
    different = text.drop_nulls().unique(maintain_order=True).to_list()
    found = find_style(different, prefers_comma=prefers_comma, any_sign=is_chosen, marks=marks)
    if found is None:
        return _with_unit(text.name, different)
    if found.style.is_plain and marks is None:
        return None
    style = found.style
    numbers = {t: style.parse(t) for t in different}
    known = [t for t in different if numbers[t] is not None]
    if len(known) < len(different):
        row, other = next((i, t) for i, t in enumerate(text) if t is not None and numbers[t] is None)
        reason = f"{quoted(other)} is not a number as {quoted(known[0])}"
        if is_chosen:
            raise refuse(
                row, f"{reason}; correct it, add it to data.missing, or choose --categorical {quoted(text.name)}"
            )
        is_much = len(known) > _FEW
        return f"looks like numbers, but {reason}; --numeric {quoted(text.name)} says where" if is_much else None
    cells = np.array([np.nan if t is None else numbers[t] for t in text], dtype=np.float64)
    return Written(cells, style, _notice(text.name, known[0], style, found.other))


def unusual_style(text: pl.Series) -> NumberStyle | None:
    """The style of plain numbers, None where Python writes them so by itself."""
    present = text.drop_nulls()
    if not present.str.contains(_PLAIN).all():
        return None
    num_places = present.str.extract(r"\.([0-9]*)$").fill_null("").str.len_chars().to_numpy()
    least, most = int(num_places.min()), int(num_places.max())
    is_whole = bool(present.str.contains(r"^[^.]*\.?0*$").all())
    is_usual = least == most == 0 or (least == 1 and most <= _SHORTEST and not is_whole)
    return None if is_usual else NumberStyle(places=least)


def doubt(text: pl.Series) -> str | None:
    """What to say of plain numbers that another language reads otherwise, 1.234 say."""
    found = find_style(text.drop_nulls().unique(maintain_order=True).to_list(), prefers_comma=True)
    if found is None or found.other is None or not found.other.is_plain:
        return None
    first = text.drop_nulls()[0]
    option = f"--numeric {quoted(f'{text.name}={found.style.example}')}"
    return f"holds numbers as {quoted(first)}, read with a decimal point; {option} reads them otherwise"


def _notice(name: str, example: str, style: NumberStyle, other: NumberStyle | None) -> str:
    read = f"holds numbers written as {quoted(example)}, read as {_plain(style, example)}"
    if other is None:
        return f"{read}; --categorical {quoted(name)} takes them as levels"
    return f"{read}, not as {_plain(other, example)}; --numeric {quoted(f'{name}={other.example}')} reads them so"


def _plain(style: NumberStyle, text: str) -> str:
    number = style.parse(text)
    assert number is not None
    return NumberStyle().show(number, decimals=None)


def _with_unit(name: str, different: list[str]) -> str | None:
    """What to say of texts that are numbers with the same word behind each."""
    found = find_style(different, any_sign=True)
    if found is None or found.style.before or not found.style.after or len(different) <= _FEW:
        return None
    if any(found.style.parse(t) is None for t in different):
        return None
    return f"looks like numbers with {quoted(found.style.after)} behind; --numeric {quoted(name)} takes them so"
