"""Dates and times as text, and as whole numbers of a unit since the start of 1970, of times of day since midnight."""

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np

Unit = Literal["D", "m", "s", "us"]

_EXACT = 2**53  # beyond it a float64 no longer tells neighbours apart
_DATES = ("YYYY-MM-DD", "YYYY/MM/DD", "DD.MM.YYYY", "DD/MM/YYYY", "MM/DD/YYYY", "DD-MM-YYYY", "MM-DD-YYYY", "YYYYMMDD")
_TIMES: dict[str, Unit] = {"": "D", "hh:mm": "m", "hh:mm:ss": "s", "hh:mm:ss.ffffff": "us"}
_PARTS = {
    "YYYY": (r"(?P<year>[0-9]{4})", "{year}"),
    "MM": (r"(?P<month>[0-9]{1,2})", "{month}"),
    "DD": (r"(?P<day>[0-9]{1,2})", "{day}"),
    "hh": (r"(?P<hour>[0-9]{1,2})", "{hour}"),
    "mm": (r"(?P<minute>[0-9]{2})", "{minute}"),
    "ss": (r"(?P<second>[0-9]{2})", "{second}"),
    "ffffff": (r"(?P<fraction>[0-9]{1,6})", "{fraction}"),
}

_LEFT_OUT = {
    "year": "1970",
    "month": "01",
    "day": "01",
    "hour": "0",
    "minute": "00",
    "second": "00",
    "fraction": "0",
}


@dataclass(frozen=True)
class DateFormat:
    """One way to write a date, as `DD.MM.YYYY hh:mm`, or a time of day, as `hh:mm`. Days, months and hours may lack
    their leading zero when read."""

    name: str
    unit: Unit

    @property
    def noun(self) -> str:
        return "date" if "YYYY" in self.name else "time"

    def parse(self, text: str) -> int | None:
        """Units since 1970-01-01 or midnight, or None for what is no date in this format, the 30th of February say."""
        match = self._pattern.fullmatch(text)
        if match is None:
            return None
        parts = {**_LEFT_OUT, **match.groupdict()}
        date = f"{parts['year']}-{parts['month']:0>2}-{parts['day']:0>2}"
        clock = f"{parts['hour']:0>2}:{parts['minute']}:{parts['second']}.{parts['fraction']:0<6}"
        try:
            count = int(np.datetime64(f"{date}T{clock}", "us").astype(f"datetime64[{self.unit}]").astype(np.int64))
        except ValueError:
            return None
        return count if abs(count) < _EXACT else None

    def show(self, count: float) -> str:
        """The text of a count that `parse` may give."""
        iso = str(np.datetime64(int(count), self.unit).astype("datetime64[us]"))
        year, month, day, hour, minute, second, fraction = re.split("[-T:.]", iso)
        return self._template.format(
            year=year, month=month, day=day, hour=hour, minute=minute, second=second, fraction=fraction
        )

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("".join(_PARTS[part][0] if part in _PARTS else re.escape(part) for part in self._split()))

    @cached_property
    def _template(self) -> str:
        return "".join(_PARTS[part][1] if part in _PARTS else part for part in self._split())

    def _split(self) -> list[str]:
        return [part for part in re.split(f"({'|'.join(_PARTS)})", self.name) if part]


def _all_formats() -> dict[str, DateFormat]:
    names = {
        date + (separator + clock + zone if clock else ""): unit
        for date, (clock, unit) in product(_DATES, _TIMES.items())
        for separator, zone in product(" T", ("", "Z"))
    }
    names |= {clock: unit for clock, unit in _TIMES.items() if clock}
    return {name: DateFormat(name, unit) for name, unit in names.items()}


FORMATS = _all_formats()
CLOCKS = tuple(name for name in _TIMES if name)
UNUSUAL = frozenset(name for name in FORMATS if name.startswith("YYYYMMDD"))  # numbers, unless a user says otherwise
