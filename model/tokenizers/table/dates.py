"""Dates and times as text, and as whole numbers of a unit since the start of 1970, of times of day since midnight.

A format is written in parts: YYYY or YY; MM, M, Mon (Sep), MON, Month (September) or MONTH; DD or D; hh or h, mm, ss, a
point and up to nine f; AM or am; +hh:mm, +hhmm or +hh for an offset, Z, UTC or an offset itself at the end. M, D and h
are written without a leading zero. All of them are read with or without one.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Literal

import numpy as np

Unit = Literal["M", "D", "m", "s", "us"]

_A_DAY: Mapping[Unit, int] = {"m": 24 * 60, "s": 24 * 3600, "us": 24 * 3600 * 10**6}
_MOST_TAILS = 6
_EXACT = 2**53  # beyond it a float64 no longer tells neighbours apart
_CENTURY_BEGINS = 69  # two digits from here on are of 1900, as POSIX has it
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_NAMES = {name[:size].lower(): i for i, name in enumerate(_MONTHS, start=1) for size in (3, len(name))}
_MONTH = "|".join(sorted(_NAMES, key=len, reverse=True))

DATES = (
    *("YYYY-MM-DD", "YYYY/MM/DD", "YYYY.MM.DD", "DD.MM.YYYY", "DD/MM/YYYY", "MM/DD/YYYY", "DD-MM-YYYY", "MM-DD-YYYY"),
    *("DD.MM.YY", "DD/MM/YY", "MM/DD/YY", "DD-MM-YY", "MM-DD-YY", "DD Mon YYYY", "DD-Mon-YYYY", "DD/Mon/YYYY"),
    *("DD. Mon YYYY", "DD Mon YY", "DD-Mon-YY", "Mon DD, YYYY", "Mon DD YYYY", "YYYY-Mon-DD", "YYYY-MM", "YYYY/MM"),
    *("MM/YYYY", "MM-YYYY", "Mon YYYY", "Mon-YYYY", "Mon YY", "Mon-YY", "YYYYMMDD", "YYYYMM"),
)
DIGITS_ALONE = ("YYYYMMDD", "YYYYMM")  # numbers, unless they all are such dates
_SEPARATORS = (" ", "T", ", ")
_CLOCKS = ("hh:mm", "hh:mm:ss", "hh:mm:ss.ffffff")
_HALVES = ("", " AM", "AM")
_ZONES = ("", "Z", " UTC", "+hh:mm", "+hhmm", "+hh")

_PARTS = {
    r"\+hh:mm": r"(?P<offset>[+-][0-9]{2}:[0-9]{2})",
    r"\+hhmm": r"(?P<offset>[+-][0-9]{4})",
    r"\+hh": r"(?P<offset>[+-][0-9]{2})",
    "YYYY": r"(?P<year>[0-9]{4})",
    "YY": r"(?P<year>[0-9]{2})",
    "Month|MONTH|Mon|MON": rf"(?P<name>(?i:{_MONTH}))",
    "MM|M": r"(?P<month>[0-9]{1,2})",
    "DD|D": r"(?P<day>[0-9]{1,2})",
    "hh|h": r"(?P<hour>[0-9]{1,2})",
    "mm": r"(?P<minute>[0-9]{2})",
    "ss": r"(?P<second>[0-9]{2})",
    r"\.f{1,9}": r"(?:\.(?P<fraction>[0-9]{1,9}))?",  # some writers leave it out where it is zero
    "AM|am": r"(?P<half>[AaPp][Mm])",
}
_PART = re.compile("|".join(_PARTS))
_CLOCK = r"(?:hh?:mm(?::ss(?:\.f{1,9})?)?(?: ?(?:AM|am))?)"
_ZONE = r"(?: ?Z| UTC|\+hh:mm|\+hhmm|\+hh|[+-][0-9]{2}(?::?[0-9]{2})?)"
_FORMAT = re.compile(rf"(?P<date>[YMD].*?)(?:(?:, | |T){_CLOCK}{_ZONE}?)?|{_CLOCK}")
_TEXT = re.compile(
    r"(?P<date>.*?)(?P<separator>, | |T)??"
    r"(?:[0-9]{1,2}:[0-9]{2}(?P<second>:[0-9]{2}(?P<fraction>\.[0-9]{1,9})?)?"
    r"(?P<half> ?[AaPp][Mm])?(?P<zone> ?Z| UTC|[+-][0-9]{2}(?::?[0-9]{2})?)?)"
)


@dataclass(frozen=True)
class DateFormat:
    """One way to write a date, as `DD.MM.YYYY hh:mm`, or a time of day, as `hh:mm`."""

    name: str

    @cached_property
    def unit(self) -> Unit:
        """What counts: the smallest part that is written, fractions as microseconds."""
        found = {part[:2] for part in self._split()}
        units: dict[Unit, set[str]] = {"us": {".f"}, "s": {"ss"}, "m": {"mm", "hh", "h"}, "D": {"DD", "D"}}
        return next((unit for unit, parts in units.items() if parts & found), "M")

    @property
    def noun(self) -> str:
        return "date" if "Y" in self.name else "time"

    def parse(self, text: str) -> int | None:
        """Units since 1970-01-01 or midnight, or None for what is no date in this format, the 30th of February say. A
        time with an offset counts in UTC."""
        match = self._pattern.fullmatch(text)
        if match is None:
            return None
        parts = {name: part or "" for name, part in match.groupdict().items()}
        hour = _hour(int(parts.get("hour") or 0), parts.get("half", "").lower())
        if hour is None:
            return None
        year = _year(parts.get("year", "1970"))
        month = _NAMES[parts["name"].lower()] if "name" in parts else int(parts.get("month", 1))
        clock = f"{hour:02}:{parts.get('minute', '00')}:{parts.get('second', '00')}.{parts.get('fraction', ''):0<6.6}"
        try:
            moment = np.datetime64(f"{year:04}-{month:02}-{int(parts.get('day', 1)):02}T{clock}", "us")
        except ValueError:
            return None
        count = int((moment - _offset(parts.get("offset", ""))).astype(f"datetime64[{self.unit}]").astype(np.int64))
        return count if abs(count) < _EXACT else None

    def read(self, text: str) -> int | None:
        """As `parse`; where a time is written without an offset, a date alone is its midnight."""
        count = self.parse(text)
        if count is not None or self._day is None:
            return count
        days = self._day.parse(text)
        return None if days is None else days * _A_DAY[self.unit]

    @cached_property
    def _day(self) -> "DateFormat | None":
        """What is left without the time, if there is one."""
        match = _FORMAT.fullmatch(self.name)
        date = None if match is None else match["date"]
        has_offset = re.search(r"[+-](?:hh|[0-9]{2})(?::?(?:mm|[0-9]{2}))?$", self.name) is not None
        return None if date is None or date == self.name or has_offset else DateFormat(date)

    def show(self, count: float) -> str:
        """The text of a count that `parse` may give."""
        iso = str(np.datetime64(int(count), self.unit).astype("datetime64[us]"))
        year, month, day, hour, minute, second, fraction = re.split("[-T:.]", iso)
        name, half = _MONTHS[int(month) - 1], "PM" if int(hour) >= 12 else "AM"
        if self._is_halved:
            hour = f"{(int(hour) + 11) % 12 + 1:02}"
        texts = {"YYYY": year, "YY": year[2:], "MM": month, "M": str(int(month)), "DD": day, "D": str(int(day))}
        texts |= {"Mon": name[:3], "MON": name[:3].upper(), "Month": name, "MONTH": name.upper()}
        texts |= {"hh": hour, "h": str(int(hour)), "mm": minute, "ss": second, "AM": half, "am": half.lower()}
        texts |= {"+hh:mm": "+00:00", "+hhmm": "+0000", "+hh": "+00"}
        return "".join(
            f".{fraction:0<9}"[: len(part)] if part.startswith(".f") else texts.get(part, part)
            for part in self._split()
        )

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        pattern = "".join(_regex(part) for part in self._split())
        return re.compile(pattern.replace("{1,2}", "{2}") if self.name.startswith(DIGITS_ALONE) else pattern)

    @cached_property
    def _is_halved(self) -> bool:
        return bool({"AM", "am"} & set(self._split()))

    def _split(self) -> list[str]:
        return [part for part in re.split(f"({_PART.pattern})", self.name) if part]


def _regex(part: str) -> str:
    return next((regex for name, regex in _PARTS.items() if re.fullmatch(name, part)), re.escape(part))


def _year(digits: str) -> int:
    short = int(digits)
    return short if len(digits) > 2 else short + (1900 if short >= _CENTURY_BEGINS else 2000)


def _hour(hour: int, half: str) -> int | None:
    """Of 24, from one of 12 and am or pm; None for 0 and 13 of 12."""
    if not half:
        return hour
    return hour % 12 + 12 * (half == "pm") if 1 <= hour <= 12 else None


def _offset(text: str) -> np.timedelta64:
    digits = text[1:].replace(":", "").ljust(4, "0") if text else "0000"
    minutes = 60 * int(digits[:2]) + int(digits[2:])
    return np.timedelta64(-minutes if text.startswith("-") else minutes, "m")


class _Formats(Mapping[str, DateFormat]):
    """Every format there is, by its name. Those that are gone through differ in what they read; others read as one of
    these does, and write without leading zeros, say."""

    def __getitem__(self, name: str) -> DateFormat:
        return _known(name)

    def __iter__(self) -> Iterator[str]:
        clocks = [*(clock + half for clock, half in product(_CLOCKS, _HALVES))]
        tails = [*clocks, *(clock + zone for clock, zone in product(_CLOCKS, _ZONES) if zone)]
        yield from DATES
        days = [date for date in DATES if "D" in date]  # a month alone has no hours
        yield from (date + separator + tail for date, separator, tail in product(days, _SEPARATORS, tails))
        yield from clocks

    def __len__(self) -> int:
        return sum(1 for _ in self)


@lru_cache(maxsize=1024)
def _known(name: str) -> DateFormat:
    """Raises KeyError."""
    match = _FORMAT.fullmatch(name)
    date = None if match is None else match["date"]
    is_known = match is not None and (date is None or (date in _DATES and ("D" in date or date == name)))
    if not is_known:
        raise KeyError(name)
    return DateFormat(name)


def _date_variants(date: str) -> Iterator[str]:
    """A date's format with and without leading zeros, and with every way to write a month's name."""
    if date in DIGITS_ALONE:
        yield date
        return
    if "Mon" in date:
        parts = [*product(("Mon", "MON", "Month", "MONTH"), ("DD", "D"))]
    else:
        parts = [("MM", "DD"), ("M", "D"), ("MM", "D"), ("M", "DD")]
    for month, day in parts:
        yield date.replace("Mon" if "Mon" in date else "MM", month).replace("DD", day)


_DATES = {variant: date for date in DATES for variant in _date_variants(date)}
FORMATS: Mapping[str, DateFormat] = _Formats()


def candidates(texts: Sequence[str]) -> list[str]:
    """The formats that may read most of these texts, as far as it can be seen from where their clocks are."""
    tails = Counter(map(_tail, texts)).most_common(_MOST_TAILS)
    dates = [date for date in DATES if date not in DIGITS_ALONE]
    named = [date + tail for (tail, _), date in product(tails, ["", *dates])]
    return [name for name in named if name in FORMATS]


def _tail(text: str) -> str:
    """The format of what stands behind a text's date, a fraction's longest."""
    match = _TEXT.fullmatch(text)
    if match is None:
        return ""
    clock = "hh:mm" + (":ss" if match["second"] else "") + (".ffffff" if match["fraction"] else "")
    half = (match["half"] or "").upper().replace("P", "A")
    zone = re.sub(r"[0-9]{2}$", "mm", re.sub(r"^[+-][0-9]{2}", "+hh", match["zone"] or ""))
    return (match["separator"] or "") + clock + half + zone


def as_texts_have_it(name: str, texts: Sequence[str]) -> str:
    """Of the formats that read what one of `candidates` reads, the one that writes most of the texts as they are."""
    match = _FORMAT.fullmatch(name)
    assert match is not None
    date = match["date"] or ""
    rest = name.removeprefix(date)
    widths = sorted({len(found["fraction"]) - 1 for t in texts if (found := _TEXT.fullmatch(t)) and found["fraction"]})
    tails = [
        rest.replace("hh:mm", hour, 1).replace(".ffffff", "." + "f" * width).replace("AM", half)
        for width, hour, half in product(widths[::-1] or [6], ("hh:mm", "h:mm"), ("AM", "am") if "AM" in rest else [""])
    ]
    chosen, most = name, -1
    for variant in (d + tail for d, tail in product(_date_variants(date) if date else [""], tails)):
        form = FORMATS[variant]
        number = sum((count := form.parse(text)) is not None and form.show(count) == text for text in texts)
        if number > most:
            chosen, most = variant, number
    return chosen
