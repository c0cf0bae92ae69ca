"""Whether a column of texts holds dates, and in which format."""

from collections.abc import Callable

import numpy as np
import polars as pl

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.dates import CLOCKS, FORMATS, UNUSUAL, DateFormat
from unveil.model.tokenizers.table.table import Cells
from unveil.model.tokenizers.wording import listed, quoted

_LOOKED_AT = 200  # different texts that a format is chosen by
_MAX_MIXED = 16  # different texts; among more of them, one that is no date is a mistake

Refuse = Callable[[int, str], UnveilError]  # the row, from 0, and what is wrong there


def typed_dates(series: pl.Series) -> tuple[pl.Series, str | None]:
    """A Parquet column of dates, times or times of day as texts of a known format; what else is said of it. Times of a
    zone are given in UTC."""
    if series.dtype == pl.Date:
        return series.dt.strftime("%Y-%m-%d"), None
    if series.dtype == pl.Time:  # since midnight, as times since 1970 are; its day is not written
        clock, notice = typed_dates(series.cast(pl.Int64).cast(pl.Datetime("ns")).alias(series.name))
        return clock.str.slice(len("1970-01-01T")), notice
    assert isinstance(series.dtype, pl.Datetime)
    notice = None
    if series.dtype.time_unit == "ns":
        rounded = series.dt.cast_time_unit("us")
        if (rounded.dt.cast_time_unit("ns") != series).any():
            notice = "holds nanoseconds, taken as microseconds"
        series = rounded
    zone = ""
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is not None:
        series, zone = series.dt.convert_time_zone("UTC"), "Z"
    fraction = "%.6f" if (series.dt.microsecond() != 0).any() else ""
    return series.dt.strftime(f"%Y-%m-%dT%H:%M:%S{fraction}{zone}"), notice


def find_format(text: pl.Series, refuse: Refuse) -> str | None:
    """The format that all texts [N] have, null where missing; None where they are no dates.

    Refuses a column of many different dates with something else among them, and one that two formats would read
    differently. Times of day are such if all texts are, each written as it would be given back: 9:00 may be a score.
    """
    different = text.drop_nulls().unique(maintain_order=True)
    for clock in (FORMATS[name] for name in CLOCKS):
        if all((count := clock.parse(t)) is not None and clock.show(count) == t for t in different):
            return clock.name
    looked_at = different.head(_LOOKED_AT).to_list()
    hits = {
        name: sum(FORMATS[name].parse(t) is not None for t in looked_at)
        for name in FORMATS
        if name not in UNUSUAL.union(CLOCKS)
    }
    most = max(hits.values())
    if 2 * most <= len(looked_at):
        return None
    candidates = [name for name, number in hits.items() if number == most]
    whole = [name for name in candidates if all(FORMATS[name].parse(t) is not None for t in different)]
    if len(whole) == 1:
        return whole[0]
    if whole:
        row = int((text == different[0]).arg_max() or 0)
        raise refuse(
            row, f"{quoted(different[0])} may be {listed(whole)}; say which one: {_option(text.name, whole[0])}"
        )
    if len(different) <= _MAX_MIXED:
        return None
    raise refuse(*_first_other(text, FORMATS[candidates[0]]))


def as_counts(text: pl.Series, format_name: str, refuse: Refuse) -> Cells:
    """Texts [N] of a format as units since 1970, float64 with NaN where missing."""
    chosen = FORMATS[format_name]
    counts = {t: chosen.parse(t) for t in text.drop_nulls().unique()}
    if None in counts.values():
        raise refuse(*_first_other(text, chosen))
    return np.array([np.nan if t is None else counts[t] for t in text], dtype=np.float64)


def _first_other(text: pl.Series, chosen: DateFormat) -> tuple[int, str]:
    """The first row that is no date of the format, and what to say of it."""
    row, found = next((i, t) for i, t in enumerate(text) if t is not None and chosen.parse(t) is None)
    return row, (
        f"{quoted(found)} is not a {chosen.noun} as {chosen.name}; add it to data.missing, or choose another format or "
        f"kind: {_option(text.name, chosen.name)}, --categorical {quoted(text.name)}"
    )


def _option(name: str, format_name: str) -> str:
    return "--date " + quoted(f"{name}={format_name}")
