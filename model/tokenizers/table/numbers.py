"""Numbers as people write them: decimal commas, thousands separators, currency and percent signs, brackets for a minus.

A style is found from the texts of a whole column, and writes numbers as they were written there.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import islice, product
from math import isfinite
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_LOOKED_AT = 200  # texts by which a column is known to hold no numbers
_SPACES = " \u00a0\u202f"
_THOUSANDS = (",", ".", "'", "’", *_SPACES)
_SIGNS = "-−"
_CURRENCY = (
    r"(?:[A-Z]{0,3}[$€£¥₹₽₩₺₫₴฿₦₱₡₪]|USD|EUR|CHF|GBP|JPY|CNY|SEK|NOK|DKK|PLN|CZK|HUF|INR|BRL|AUD|CAD|NZD|MXN|ZAR|RUB|"
    r"TRY|KRW|SGD|HKD|Fr\.|kr\.?|zł|Kč)"
)
_BODY = rf"\d(?:[\d.,'’{_SPACES}]*\d)?|[.,]\d+"


def _dressed(before: str, after: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?P<open>\()?(?P<outer>[{_SIGNS}+]?)(?P<before>{before})(?P<inner>[{_SIGNS}]?)"
        rf"(?P<body>{_BODY})(?P<after>{after})(?(open)\))"
    )


_KNOWN = _dressed(rf"(?:{_CURRENCY}[{_SPACES}]?)?", rf"(?:[{_SPACES}]?(?:{_CURRENCY}|[%‰]))?")
_ANY = _dressed(rf"[^\d.,()+{_SIGNS}]*?", r"[^\d()]*?")


class NumberStyle(BaseModel):
    """How a column writes its numbers. `before` and `after` stand around the digits, `places` is the least number of
    decimals. A minus stands before everything, behind `before`, or is written as brackets around everything."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", "'", "’", " ", "\u00a0", "\u202f"] = ""
    before: str = ""
    after: str = ""
    minus: Literal["-", "−"] = "-"
    minus_place: Literal["outside", "inside", "brackets"] = "outside"
    places: Annotated[int, Field(ge=0, le=400)] = 0

    @property
    def is_plain(self) -> bool:
        """Whether every language reads what it writes as a number."""
        return self == NumberStyle(places=self.places)

    @property
    def example(self) -> str:
        """A number that shows what separates, as `marks_of` takes it."""
        return f"1{self.thousands}234{self.decimal}5"

    def parse(self, text: str) -> float | None:
        """The number that a text says in this style, None where it says none."""
        match = self._pattern.fullmatch(text)
        if match is None:
            return None
        digits = match["body"].replace(self.thousands or "\0", "").replace(self.decimal, ".")
        is_negative = bool(match["open"]) or (match["outer"] or match["inner"] or "+") in _SIGNS
        number = float(f"-{digits}" if is_negative else digits) + 0.0
        return number if isfinite(number) else None

    def show(self, number: float, *, decimals: int | None) -> str:
        """A number of at most so many decimals as text; None: as many as it has."""
        size = abs(number)
        digits = format(Decimal(repr(float(size))), "f") if decimals is None else f"{size:.{decimals}f}"
        whole, _, fraction = digits.partition(".")
        fraction = fraction.rstrip("0").ljust(self.places, "0")
        body = f"{int(whole):,}".replace(",", self.thousands) + (fraction and self.decimal + fraction)
        if number >= 0:
            return f"{self.before}{body}{self.after}"
        if self.minus_place == "brackets":
            return f"({self.before}{body}{self.after})"
        is_inside = self.minus_place == "inside"
        return "".join(
            [
                "" if is_inside else self.minus,
                self.before,
                self.minus if is_inside else "",
                body,
                self.after,
            ]
        )

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        mark = re.escape(self.thousands)
        whole = rf"\d{{1,3}}(?:{mark}\d{{3}})+|\d+" if mark else r"\d+"
        body = rf"(?:{whole})(?:{re.escape(self.decimal)}\d+)?|{re.escape(self.decimal)}\d+"
        return re.compile(
            rf"(?P<open>\()?(?P<outer>[{_SIGNS}+]?){re.escape(self.before)}(?P<inner>[{_SIGNS}]?)"
            rf"(?P<body>{body}){re.escape(self.after)}(?(open)\))"
        )


Marks = tuple[str, str]  # the decimal separator and that of thousands


@dataclass(frozen=True, slots=True)
class Found:
    """The style that most texts have; `other` is one that reads them as well, as other numbers."""

    style: NumberStyle
    other: NumberStyle | None = None


def find_style(
    texts: Collection[str], *, prefers_comma: bool = False, any_sign: bool = False, marks: Marks | None = None
) -> Found | None:
    """The style of texts that differ, None where less than half of them are numbers, or those in no common style.

    Where each number has one separator with three digits behind it, `prefers_comma` decides that a comma is the decimal
    one. With `any_sign` any text may stand around numbers, a unit say, the same around all of them. `marks` are those
    to take, where they are known.
    """
    dressed = _ANY if any_sign else _KNOWN
    looked_at = list(islice(texts, _LOOKED_AT))
    if 2 * sum(dressed.fullmatch(text) is not None for text in looked_at) < len(looked_at):
        return None
    matches = [match for match in map(dressed.fullmatch, texts) if match is not None]
    around = Counter((match["before"], match["after"]) for match in matches)
    ((most, _),) = around.most_common(1)
    parts = [match for match in matches if (match["before"], match["after"]) == most]
    if 2 * len(parts) < len(texts):
        return None
    bodies = [part["body"] for part in parts]
    candidates = list(_marks(bodies)) if marks is None else [marks] if _fit(bodies, *marks, is_strict=False) else []
    candidates.sort(key=lambda found: (found[0] == ",") != prefers_comma)
    styles = [_style(parts, *found) for found in candidates]
    return Found(styles[0], *styles[1:2]) if styles else None


def marks_of(example: str) -> Marks | None:
    """What separates in a number that shows it, as 1.234,56 does; None where that does not follow from it."""
    match = _ANY.fullmatch(example)
    found = [] if match is None else list(_marks([match["body"]]))
    return found[0] if len(found) == 1 else None


def _marks(bodies: Collection[str]) -> Iterator[Marks]:
    """What may separate in all of them, each mark used somewhere."""
    for decimal, thousands in product(".,", ("", *_THOUSANDS)):
        is_used = decimal == "." or thousands == "." or any(decimal in body for body in bodies)
        is_used = is_used and (not thousands or any(thousands in body for body in bodies))
        if thousands != decimal and is_used and _fit(bodies, decimal, thousands, is_strict=True):
            yield decimal, thousands


def _fit(bodies: Collection[str], decimal: str, thousands: str, *, is_strict: bool) -> bool:
    """Strictly, no zero leads, and thousands are separated wherever there are some."""
    mark, point = re.escape(thousands), re.escape(decimal)
    group = rf"(?:{mark}\d{{3}})" if mark else ""
    whole = (
        rf"0|[1-9]\d{{0,2}}{group}*"
        if mark and is_strict
        else r"0|[1-9]\d*"
        if is_strict
        else rf"\d{{1,3}}{group}+|\d+"
        if mark
        else r"\d+"
    )
    pattern = re.compile(rf"(?:{whole})(?:{point}\d+)?|{point}\d+")
    return all(pattern.fullmatch(body) for body in bodies)


def _style(parts: Collection[re.Match[str]], decimal: str, thousands: str) -> NumberStyle:
    first = next(iter(parts))
    is_inside = bool(first["before"]) and any(part["inner"] for part in parts)
    return NumberStyle.model_validate(
        {
            "decimal": decimal,
            "thousands": thousands,
            "before": first["before"],
            "after": first["after"],
            "minus": "−" if any("−" in (part["outer"], part["inner"]) for part in parts) else "-",
            "minus_place": "brackets" if any(part["open"] for part in parts) else "inside" if is_inside else "outside",
            "places": min(len(part["body"].partition(decimal)[2]) for part in parts),
        }
    )
