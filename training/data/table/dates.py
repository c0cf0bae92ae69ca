"""Whether a column of texts holds dates, and in which format."""

from collections.abc import Callable

import numpy as np
import polars as pl

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.dates import FORMATS, DateFormat, as_texts_have_it, candidates
from unveil.model.tokenizers.table.table import Cells
from unveil.model.tokenizers.wording import listed, quoted

_LOOKED_AT = 200  # different texts that a format is chosen by
_PLAUSIBLE = r"^(?:19|20)[0-9]{4}(?:[0-9]{2})?$"  # numbers of other years are no dates
_MOST_PLACES = 6
_DAY = 86400 * 10**9  # in nanoseconds
_UNITS = {"us": 10**3, "ms": 10**6}
_FIRST_DAY, _LAST_DAY = (int(np.datetime64(day).astype(np.int64)) for day in ("0001-01-01", "9999-12-31"))
_MAX_MIXED = 16  # different texts; among more of them, one that is no date is a mistake

Refuse = Callable[[int, str], UnveilError]  # the row, from 0, and what is wrong there


def typed_dates(series: pl.Series, refuse: Refuse) -> tuple[pl.Series, str | None]:
    """A Parquet column of dates, times or times of day as texts of a known format; what else is said of it. Times of a
    zone are given in UTC. Raises UnveilError for what no calendar has, infinity say."""
    _check_range(series, refuse)
    if series.dtype == pl.Date:
        return series.dt.strftime("%Y-%m-%d"), None
    if series.dtype == pl.Time:  # since midnight, as times since 1970 are; its day is not written
        clock, notice = typed_dates(series.cast(pl.Int64).cast(pl.Datetime("ns")).alias(series.name), refuse)
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
    parts = series.dt.microsecond()
    fraction = "" if (parts == 0).all() else "%.3f" if (parts % 1000 == 0).all() else "%.6f"
    return series.dt.strftime(f"%Y-%m-%dT%H:%M:%S{fraction}{zone}"), notice


def _check_range(series: pl.Series, refuse: Refuse) -> None:
    size = _DAY if series.dtype == pl.Date else _UNITS.get(getattr(series.dtype, "time_unit", ""))
    if size is None:  # nanoseconds have no room for others
        return
    counts = series.to_physical().cast(pl.Int64)
    is_in = counts.is_between(_FIRST_DAY * _DAY // size, (_LAST_DAY + 1) * _DAY // size, closed="left")
    if not is_in.fill_null(True).all():
        row = int((~is_in.fill_null(True)).arg_max() or 0)
        way = f"correct it, or leave the column out: --drop {quoted(series.name)}"
        raise refuse(row, f"holds a date that is not between the years 1 and 9999; {way}")


def find_format(text: pl.Series, refuse: Refuse) -> str | None:
    """The format that all texts [N] have, null where missing; None where they are no dates.

    Refuses a column of many different dates with something else among them, and one that two formats would read
    differently. Times of day are such if all texts are, each written as it would be given back: 9:00 may be a score.
    """
    different = text.drop_nulls().unique(maintain_order=True)
    looked_at = different.head(_LOOKED_AT).to_list()
    hits = {name: sum(FORMATS[name].read(t) is not None for t in looked_at) for name in candidates(looked_at)}
    clocks = {name: hits.pop(name) for name in list(hits) if FORMATS[name].noun == "time"}
    for name in (name for name, number in clocks.items() if number == len(looked_at)):
        found, is_halved = as_texts_have_it(name, looked_at), "AM" in name
        if (is_halved or found.startswith("hh")) and _is_all(different, found, is_strict=not is_halved):
            return found
    most = max(hits.values(), default=0)
    if 2 * most <= len(looked_at):
        return None
    likely = [name for name, number in hits.items() if number == most]
    whole = [name for name in likely if _is_all(different, name)]
    if len(whole) == 1:
        return _as_written(whole[0], looked_at, different)
    if whole:
        row = int((text == different[0]).arg_max() or 0)
        raise refuse(
            row, f"{quoted(different[0])} may be {listed(whole)}; say which one: {_option(text.name, whole[0])}"
        )
    if len(different) <= _MAX_MIXED:
        return None
    raise refuse(*_first_other(text, FORMATS[likely[0]]))


def number_format(numbers: pl.Series) -> str | None:
    """The format of numbers [N] that are all dates, 20240131 say, null where missing; None where one is none."""
    values = numbers.drop_nulls().unique()
    if not ((values == values.floor()) & values.is_between(0, 10**8, closed="none")).all():
        return None
    different = values.cast(pl.Int64).cast(pl.String)
    lengths = different.str.len_chars().unique().to_list()
    name = {8: "YYYYMMDD", 6: "YYYYMM"}.get(lengths[0]) if len(lengths) == 1 else None
    if name is None or not different.str.contains(_PLAUSIBLE).all():
        return None
    return name if _is_all(different, name) else None


def notice_of(format_name: str, different: pl.Series) -> str | None:
    """What is said of texts that are given back in this format otherwise than they were written."""
    chosen = FORMATS[format_name]
    if num_days := sum(chosen.parse(text) is None for text in different.drop_nulls().unique()):
        return f"holds dates without a time ({num_days:,} different ones), taken as midnight"
    if format_name.endswith(("+hh:mm", "+hhmm", "+hh")):
        return "holds times of several offsets, taken and given back in UTC"
    longest = len(format_name) - len(format_name.replace("f", ""))
    return "holds nanoseconds, taken as microseconds" if longest > _MOST_PLACES else None


def _is_all(different: pl.Series, name: str, *, is_strict: bool = False) -> bool:
    """Whether all are of a format, strictly: written as they would be given back."""
    chosen = FORMATS[name]
    counts = ((t, chosen.read(t)) for t in different)
    return all(count is not None and (not is_strict or chosen.show(count) == t) for t, count in counts)


def _as_written(name: str, looked_at: list[str], different: pl.Series) -> str:
    """A format as the texts have it, with their offset where they share one."""
    offset = next((part for part in ("+hh:mm", "+hhmm", "+hh") if name.endswith(part)), None)
    chosen = as_texts_have_it(name, looked_at)
    if offset is None:
        return chosen
    length = len(offset.replace("hh", "00").replace("mm", "00"))
    shared = different.str.slice(-length).unique().to_list()
    return chosen.removesuffix(offset) + shared[0] if len(shared) == 1 else chosen


def as_counts(text: pl.Series, format_name: str, refuse: Refuse) -> Cells:
    """Texts [N] of a format as units since 1970, float64 with NaN where missing."""
    chosen = FORMATS[format_name]
    counts = {t: chosen.read(t) for t in text.drop_nulls().unique()}
    if None in counts.values():
        raise refuse(*_first_other(text, chosen))
    return np.array([np.nan if t is None else counts[t] for t in text], dtype=np.float64)


def _first_other(text: pl.Series, chosen: DateFormat) -> tuple[int, str]:
    """The first row that is no date of the format, and what to say of it."""
    row, found = next((i, t) for i, t in enumerate(text) if t is not None and chosen.read(t) is None)
    return row, (
        f"{quoted(found)} is not a {chosen.noun} as {chosen.name}; add it to data.missing, or choose another format or "
        f"kind: {_option(text.name, chosen.name)}, --categorical {quoted(text.name)}"
    )


def _option(name: str, format_name: str) -> str:
    return "--date " + quoted(f"{name}={format_name}")
