"""What a table's columns are, as `tokenizer.json` keeps them, and single values to ids and back.

A categorical column's ids are its levels in order; those of numbers and dates are bins in ascending order. Where the
training column had missing values, one more id at the end stands for a missing value, shown as `"[MISSING]"`; where it
had none, no such id exists, so it is neither offered nor drawn.

Bins keep values of the training column (each bin's lowest and highest at least), so an artifact is not anonymous.
"""

from bisect import bisect_right
from difflib import get_close_matches
from itertools import accumulate, pairwise
from math import ceil, floor
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from unveil.model.errors import PromptError
from unveil.model.tokenizers.base import Value
from unveil.model.tokenizers.table.dates import DIGITS_ALONE, FORMATS
from unveil.model.tokenizers.table.numbers import NumberStyle
from unveil.model.tokenizers.wording import MAX_LISTED, listed, quoted, shown

MISSING = "[MISSING]"
MAX_DECIMALS = 15
_LARGEST_LEVEL = 1e15  # numbers beyond are written in several ways
_MAX_COMPARED = 300  # levels; to look for the closest of more takes longer than a hint is worth


def outward(value: Value) -> Value | None:
    """A value as rows that go out have it: None where it is missing."""
    return None if value == MISSING else value


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Bin(_Strict):
    """One interval of a numeric column, and the law of the training values inside it.

    With `weights` (counts) the law is these very `values`; without, `values` are equally spaced quantiles (the first is
    the minimum, the last the maximum) and the quantile function between them is linear.
    """

    values: tuple[float, ...] = Field(min_length=1)
    weights: tuple[Annotated[int, Field(ge=1)], ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.values):
            raise ValueError("as many weights as values are needed")
        rises = all(a < b for a, b in pairwise(self.values))
        if not rises and (self.weights is not None or any(a > b for a, b in pairwise(self.values))):
            raise ValueError("values must ascend")
        return self

    @property
    def low(self) -> float:
        return self.values[0]

    @property
    def high(self) -> float:
        return self.values[-1]

    def quantile(self, uniform: float) -> float:
        """The value below which a share `uniform` in [0, 1] of the bin's training values lies, not yet rounded."""
        if self.weights is not None:
            cumulated = list(accumulate(self.weights))
            index = bisect_right(cumulated, uniform * cumulated[-1])
            return self.values[min(index, len(self.values) - 1)]
        place = uniform * (len(self.values) - 1)
        left, right = self.values[floor(place)], self.values[ceil(place)]
        share = place - floor(place)
        # Not left + share * (right - left): the difference may overflow.
        return min(max(left * (1 - share) + right * share, left), right)


class CategoricalColumn(_Strict):
    """A column whose values are the strings `levels`."""

    kind: Literal["categorical"] = "categorical"
    name: str
    levels: tuple[str, ...]
    missing: bool = False
    _offered: tuple[str, ...] = PrivateAttr()
    _index: dict[str, int] = PrivateAttr()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.levels)) != len(self.levels) or MISSING in self.levels:
            raise ValueError(f"levels must differ from each other and from {MISSING}")
        if self.vocabulary_size == 0:
            raise ValueError("a column needs at least one level")
        self._offered = (*self.levels, MISSING) if self.missing else self.levels
        self._index = {level: i for i, level in enumerate(self._offered)}
        return self

    @property
    def vocabulary_size(self) -> int:
        return len(self.levels) + self.missing

    def encode(self, value: object) -> int:
        """The id of a level, which a boolean or a number of JSON may name, too. Raises PromptError."""
        named = [value] if isinstance(value, str) else self._named_by(value)
        if len(named) == 1 and named[0] in self._index:
            return self._index[named[0]]
        close = []
        if isinstance(value, str) and len(value) <= 100 and MAX_LISTED < len(self._offered) <= _MAX_COMPARED:
            close = get_close_matches(value, self._offered, n=1)
        hint = f"; did you mean {shown(close[0])}?" if close else ""
        raise PromptError(f"{shown(self.name)} must be {self.expected()}, got {quoted(value)}{hint}", param=self.name)

    def _named_by(self, value: object) -> list[str]:
        """The levels that say what a value of JSON says: True for true, 1 for 1.0."""
        if isinstance(value, bool):
            return [level for level in self.levels if level.lower() == str(value).lower()]
        if not isinstance(value, int | float) or not abs(value) < _LARGEST_LEVEL:
            return []
        texts = dict.fromkeys([str(value), str(int(value)) if value == int(value) else "", str(float(value))])
        return [text for text in texts if text in self._index][:1]

    def expected(self) -> str:
        return f"one of {listed(self._offered)}"

    def token(self, token_id: int) -> str:
        return self._offered[token_id]

    def value(self, token_id: int, uniform: float) -> Value:  # noqa: ARG002  (the same call for every kind of column)
        return self.token(token_id)

    def read(self, text: str) -> Value:
        """A cell of a file as `encode` takes it."""
        return text

    def written(self, value: Value) -> str:
        """What a file of text shows for a value."""
        return str(value)

    def ids(self, cells: NDArray[Any]) -> NDArray[np.int64]:
        """[N] strings, None where missing -> [N] ids, -1 where training never saw the level."""
        missing = self._index.get(MISSING, -1)
        return np.array([missing if c is None else self._index.get(c, -1) for c in cells], dtype=np.int64)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "levels": list(self._offered)}


class _Binned(_Strict):
    """A column of numbers in `bins`, whatever it shows them as. `span` is the range of all rows where those held out go
    beyond the bins: what stands there is taken for what the nearest bin holds."""

    name: str
    bins: tuple[Bin, ...] = Field(min_length=1)
    missing: bool = False
    span: tuple[float, float] | None = None
    _lows: list[float] = PrivateAttr()

    @model_validator(mode="after")
    def _check_bins(self) -> Self:
        if any(a.high >= b.low for a, b in pairwise(self.bins)):
            raise ValueError("bins must ascend and not overlap")
        if self.span is not None and not self.span[0] <= self.low <= self.high <= self.span[1]:
            raise ValueError("bins must lie inside the span")
        self._lows = [b.low for b in self.bins]
        return self

    @property
    def vocabulary_size(self) -> int:
        return len(self.bins) + self.missing

    @property
    def low(self) -> float:
        return self.bins[0].low

    @property
    def high(self) -> float:
        return self.bins[-1].high

    @property
    def lowest(self) -> float:
        """The lowest number that a prompt may have."""
        return self.low if self.span is None else self.span[0]

    @property
    def highest(self) -> float:
        """The highest number that a prompt may have."""
        return self.high if self.span is None else self.span[1]

    def ids(self, cells: NDArray[Any]) -> NDArray[np.int64]:
        """[N] float64, NaN where missing -> [N] ids, -1 where training had no missing value; numbers outside the
        range go to the first or the last bin."""
        lows = np.array(self._lows)
        highs = np.array([b.high for b in self.bins])
        left = np.clip(np.searchsorted(lows, cells, side="right") - 1, 0, len(lows) - 1)
        right = np.minimum(left + 1, len(lows) - 1)
        with np.errstate(over="ignore"):
            is_nearer_right = (right > left) & (lows[right] - cells < cells - highs[left])
        ids = np.where(is_nearer_right, right, left)
        return np.where(np.isnan(cells), len(self.bins) if self.missing else -1, ids).astype(np.int64)

    def is_foreign(self, cells: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[N] cells and their ids -> [N], whether no bin holds the number. Gaps between intervals hold numbers that
        could well have occurred, gaps between single values do not."""
        is_outside = (cells < self.low) | (cells > self.high)
        if any(b.low < b.high for b in self.bins):
            return np.asarray(is_outside)
        lows = np.array(self._lows)[np.minimum(ids, len(self.bins) - 1)]
        return np.asarray(~np.isnan(cells) & (cells != lows))

    def _bin(self, x: float) -> int:
        left = max(bisect_right(self._lows, x) - 1, 0)
        if left + 1 < len(self.bins) and self._lows[left + 1] - x < x - self.bins[left].high:
            return left + 1
        return left


class NumericColumn(_Binned):
    """A column of numbers. `decimals` 0 = whole numbers, None = as many decimals as a float has.

    `style` is how its file wrote them, None: as Python does. Values are numbers all the same, and texts in files.
    """

    kind: Literal["numeric"] = "numeric"
    decimals: Annotated[int, Field(ge=0, le=MAX_DECIMALS)] | None
    style: NumberStyle | None = None

    @model_validator(mode="after")
    def _check_decimals(self) -> Self:
        ends = [end for b in self.bins for end in (b.low, b.high)]
        if self.decimals is not None and any(round(end, self.decimals) != end for end in ends):
            raise ValueError(f"bins have more than {self.decimals} decimals")
        return self

    def encode(self, value: object) -> int:
        """The id of the bin that holds a number, or of the nearest bin where none does. Raises PromptError."""
        if self.missing and value == MISSING:
            return len(self.bins)
        if isinstance(value, str) and self.style is not None and (number := self.style.parse(value)) is not None:
            value = number
        # A boolean is an int in Python, but no number in JSON. NaN fails the comparison.
        if isinstance(value, int | float) and not isinstance(value, bool) and self.lowest <= value <= self.highest:
            is_whole = int(value) == value
            if is_whole or self.decimals != 0:
                return self._bin(float(value))
        raise PromptError(f"{shown(self.name)} must be {self.expected()}, got {quoted(value)}", param=self.name)

    def expected(self) -> str:
        what = "an integer" if self.decimals == 0 else "a number"
        text = f"{what} between {self.number(self.lowest)} and {self.number(self.highest)}"
        return f'{text} or "{MISSING}"' if self.missing else text

    def token(self, token_id: int) -> str:
        if token_id == len(self.bins):
            return MISSING
        b = self.bins[token_id]
        return str(self.number(b.low)) if b.low == b.high else f"{self.number(b.low)} to {self.number(b.high)}"

    def value(self, token_id: int, uniform: float) -> Value:
        if token_id == len(self.bins):
            return MISSING
        return self.number(self.drawn(token_id, uniform))

    def drawn(self, token_id: int, uniform: float) -> float:
        """The number that `value` shows."""
        b = self.bins[token_id]
        drawn = b.quantile(uniform)
        rounded = drawn if self.decimals is None else round(drawn, self.decimals)
        return min(max(rounded, b.low), b.high) + 0.0  # no -0.0

    def number(self, x: float) -> int | float:
        """As the output shows it: whole numbers are ints."""
        return int(x) if self.decimals == 0 else x

    def read(self, text: str) -> Value:
        """A cell of a file as `encode` takes it; what is no number stays text, for `encode` to refuse."""
        if self.style is not None and self.style.parse(text) is not None:
            return text
        try:
            number = float(text)
        except ValueError:
            return text
        return int(number) if number.is_integer() else number

    def written(self, value: Value) -> str:
        """What a file of text shows for a value; a text that was given stays."""
        if self.style is None or isinstance(value, str):
            return str(value)
        return self.style.show(value, decimals=self.decimals)

    def describe(self) -> dict[str, Any]:
        is_dressed = self.style is not None and not self.style.is_plain
        return {
            "name": self.name,
            "kind": self.kind,
            "low": self.number(self.lowest),
            "high": self.number(self.highest),
            "integer": self.decimals == 0,
            "decimals": self.decimals,
            "bins": len(self.bins),
            "missing": self.missing,
            **({"written": self.written(self.highest)} if is_dressed else {}),
        }


class DateColumn(_Binned):
    """A column of dates or times, written as `format` says; bins count its unit since the start of 1970. All values are
    whole numbers of `step` away from each other."""

    kind: Literal["date"] = "date"
    format: str
    step: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        if self.format not in FORMATS:
            raise ValueError(f"the format {quoted(self.format)} is not known")
        ends = [end for b in self.bins for end in (b.low, b.high)]
        if any(end != int(end) for end in ends):
            raise ValueError("bins of dates hold whole numbers")
        if any((end - self.low) % self.step for end in ends):
            raise ValueError("bins of dates do not keep their step")
        return self

    def encode(self, value: object) -> int:
        """The id of the bin that holds a date, or of the nearest bin where none does. Raises PromptError."""
        if self.missing and value == MISSING:
            return len(self.bins)
        is_number = isinstance(value, int) and not isinstance(value, bool) and self.format in DIGITS_ALONE
        count = FORMATS[self.format].read(str(value)) if is_number or isinstance(value, str) else None
        if count is None or not self.lowest <= count <= self.highest:
            raise PromptError(f"{shown(self.name)} must be {self.expected()}, got {quoted(value)}", param=self.name)
        return self._bin(float(count))

    def expected(self) -> str:
        noun, ends = FORMATS[self.format].noun, f"{self._show(self.lowest)} and {self._show(self.highest)}"
        text = f"a {noun} as {self.format} between {ends}"
        return f'{text}, or "{MISSING}"' if self.missing else text

    def token(self, token_id: int) -> str:
        if token_id == len(self.bins):
            return MISSING
        b = self.bins[token_id]
        return self._show(b.low) if b.low == b.high else f"{self._show(b.low)} to {self._show(b.high)}"

    def value(self, token_id: int, uniform: float) -> Value:
        if token_id == len(self.bins):
            return MISSING
        return self._show(self.drawn(token_id, uniform))

    def drawn(self, token_id: int, uniform: float) -> float:
        """The count of the date that `value` shows."""
        b = self.bins[token_id]
        steps = round((b.quantile(uniform) - b.low) / self.step)  # its ends are whole steps apart, so it stays inside
        return b.low + steps * self.step

    def read(self, text: str) -> Value:
        """A cell of a file as `encode` takes it."""
        return text

    def written(self, value: Value) -> str:
        """What a file of text shows for a value."""
        return str(value)

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "format": self.format,
            "low": self._show(self.lowest),
            "high": self._show(self.highest),
            "bins": len(self.bins),
            "missing": self.missing,
        }

    def _show(self, count: float) -> str:
        return FORMATS[self.format].show(count)


Column = Annotated[CategoricalColumn | NumericColumn | DateColumn, Field(discriminator="kind")]
