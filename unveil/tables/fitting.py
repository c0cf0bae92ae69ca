"""`unveil.fit`: a model of a table, trained as `unveil train --table` trains it."""

import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil.commands.result_files import run_folder
from unveil.engine import environment
from unveil.model.errors import UnveilError
from unveil.training.data.table.choices import ColumnOptions

if TYPE_CHECKING:
    from unveil.api import Model

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_DEFAULT_NAME = "table"


def fit(
    data: Any,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    numeric: Sequence[str] | Mapping[str, str] = (),
    date: Sequence[str] | Mapping[str, str] = (),
    bins: int | Mapping[str, int] | None = None,
    rules: Sequence[str] = (),
    seed: int | None = None,
    time: str | None = None,
    **overrides: Any,
) -> "Model":
    """Trains a model of a table by default settings, as `unveil train --table` does: the same data and the same choices
    give the same weights. What becomes of each column is shown on stderr.

    `data` is a DataFrame of pandas, polars or pyarrow, a dict of columns, or the path of a file: CSV or Parquet. The
    artifact goes to `out`, checkpoints and a DataFrame's own copy to `out`.run beside it, which may be deleted; where
    training was stopped, the same call resumes it. Without `out` they live as long as the model that comes back.

    `drop`, `categorical`, `numeric`, `date` and `bins` are what the command's options are. `numeric` and `date` are
    lists of columns, or say how they are written: `date={"joined": "DD.MM.YYYY"}`. `rules` are what
    generated rows keep: `["signup <= last_login", "pair(city, country)"]`. `time`, "10m" say, is how long training may
    take at most. All else is a key of a recipe, by its table: `optimizer={"steps": 2000},
    model={"width": 96}` (docs/recipes.md). Raises UnveilError in one line.
    """
    columns = ColumnOptions(
        drop=_names("drop", drop),
        categorical=_names("categorical", categorical),
        numeric=_written("numeric", numeric),
        date=_written("date", date),
        bins=_bins(bins),
        rule=_names("rules", rules),
    )
    own = {"name": name, "seed": seed}
    settings = settings_of({**{key: value for key, value in own.items() if value is not None}, **overrides})
    if out is not None:
        return _fit(data, Path(out), name, settings, columns, time)
    place = Path(tempfile.mkdtemp(prefix="unveil-"))
    try:
        model = _fit(data, place / (name or _DEFAULT_NAME), name, settings, columns, time)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    weakref.finalize(model, shutil.rmtree, place, ignore_errors=True)
    return model


def _fit(
    data: Any, out: Path, name: str | None, settings: Sequence[str], columns: ColumnOptions, time: str | None
) -> "Model":
    environment.prepare()
    from unveil.api import load
    from unveil.commands import training as training_commands
    from unveil.tables.frames import Likeness, to_polars

    likeness = None
    if isinstance(data, str | Path):
        table = Path(data)
    else:
        frame = to_polars(data)
        likeness = Likeness.of(data, frame)
        table = run_folder(out) / f"{name or _DEFAULT_NAME}.parquet"
        table.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(table)
    try:
        training_commands.train(training_commands.Given(None, table, None, None, out, settings, columns, time=time))
    except UnveilError as error:
        raise UnveilError(str(error).removeprefix("--table: "), param=error.param) from None
    model = load(out)
    model.likeness = likeness
    return model


def settings_of(keys: Mapping[str, Any], *, place: str = "") -> list[str]:
    """Keys of a recipe, tables as mappings, as `--set` has them. Raises UnveilError for a value that TOML has not."""
    settings: list[str] = []
    for key, value in keys.items():
        path = f"{place}{key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)}"
        if isinstance(value, Mapping):
            settings += settings_of(value, place=f"{path}.")
            continue
        try:
            settings.append(f"{path}={json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)}")
        except (TypeError, ValueError):
            raise UnveilError(f"{path} must be text, a number, true or false, or a list, got {value!r}") from None
    return settings


def _plain(value: Any) -> Any:
    if value is None:
        raise TypeError
    return str(value) if isinstance(value, Path) else value


def _names(option: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UnveilError(f"{option} must be a list of columns, got {names!r}", param=option)
    return tuple(names)


def _written(option: str, columns: Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    """Columns, and how they are written, as the option has them."""
    if isinstance(columns, Mapping):
        return tuple(f"{name}={written}" for name, written in columns.items())
    return _names(option, columns)


def _bins(bins: int | Mapping[str, int] | None) -> tuple[str, ...]:
    if isinstance(bins, Mapping):
        return tuple(f"{name}={number}" for name, number in bins.items())
    return () if bins is None else (str(bins),)
