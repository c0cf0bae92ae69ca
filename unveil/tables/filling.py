"""Empty cells of a DataFrame, filled in: of each row the model sees what is known, and draws the rest together."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import polars as pl

from unveil.model.artifact.manifest import Manifest
from unveil.model.decoding.canvas import ORDER_POLICIES, Canvas, OrderPolicy, SamplingParams
from unveil.model.decoding.loop import Decoded
from unveil.model.decoding.seeds import derive_seed, draw_seed
from unveil.model.errors import UnveilError
from unveil.model.tokenizers.base import Value
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.tables.cells import Encoded, encode, typed
from unveil.tables.constraints import Constraints

ORDERS = tuple(name for name in ORDER_POLICIES if name != "explicit")
_MISSING_OF_KIND = {"adult": ("?",)}  # what readers of their own take for a missing value
_MEDIAN = 0.5


class Decodes(Protocol):
    """What decodes canvases in their order: `unveil.Model`."""

    def decode(self, canvases: Iterable[Canvas], *, barred: Mapping[int, int] | None = None) -> Iterator[Decoded]:
        """See `unveil.api.Model`."""


@dataclass(frozen=True)
class Wishes:
    """How to fill: as `unveil impute` has it. `missing` None: as the model's own table had it."""

    order: str = "learned"
    seed: int | None = None
    num_samples: int = 1
    is_mode: bool = False
    missing: Collection[str] | None = None
    ignores_foreign: bool = False
    constraints: Constraints | None = None


@dataclass
class Column:
    """What one column of the model got: rows, and the values there."""

    rows: list[int] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)


@dataclass(frozen=True)
class Filled:
    """By sample and position what was filled in, by which seed; how many cells of each column the model did not know,
    which stay as they are."""

    samples: tuple[dict[int, Column], ...]
    seed: int
    foreign: Counter[str]

    @property
    def num_cells(self) -> int:
        return sum(len(column.rows) for column in self.samples[0].values())


def data_of(manifest: Manifest) -> Mapping[str, Any]:
    """The `[data]` of the recipe that a model was trained by; nothing where there is none."""
    recipe = manifest.training.get("recipe")
    data = recipe.get("data") if isinstance(recipe, dict) else None
    return data if isinstance(data, dict) else {}


def missing_texts(manifest: Manifest) -> tuple[str, ...]:
    """The cells that meant "no value" in the table that a model was trained on."""
    data = data_of(manifest)
    return tuple(data.get("missing", _MISSING_OF_KIND.get(data.get("kind", ""), ())))


def sampling_params(order: str, *, is_mode: bool, option: str) -> SamplingParams:
    """Raises UnveilError naming the option for an order that is none."""
    policy: OrderPolicy | None = next((name for name in ORDERS if name == order), None)
    if policy is None:
        raise UnveilError(f"{option}: must be one of {', '.join(ORDERS)}, got {order}", param="order")
    is_greedy = is_mode and policy == "learned"
    return SamplingParams(
        order=policy, order_temperature=0.0 if is_greedy else 1.0, temperature=0.0 if is_mode else 1.0
    )


def fill(
    model: Decodes,
    tokenizer: TableTokenizer,
    frame: pl.DataFrame,
    *,
    missing: Collection[str],
    wishes: Wishes,
    advance: Callable[[int], None] | None = None,
) -> Filled:
    """Raises UnveilError naming the argument, PromptError naming row and column. A missing value is never drawn."""
    params = sampling_params(wishes.order, is_mode=wishes.is_mode, option="order")
    foreign = Counter[str]()
    encoded = encode(
        tokenizer,
        frame,
        missing=missing if wishes.missing is None else wishes.missing,
        foreign=(lambda name: foreign.update([name])) if wishes.ignores_foreign else None,
    )
    seed = draw_seed() if wishes.seed is None else wishes.seed
    holes = {row: found for row in range(frame.height) if (found := _holes(encoded, row))}
    samples = tuple(dict[int, Column]() for _ in range(wishes.num_samples))
    canvases = _canvases(encoded, list(holes), wishes, params=params, seed=seed)
    places = ((row, sample) for row in holes for sample in samples)
    for decoded, (row, sample) in zip(model.decode(canvases, barred=tokenizer.missing_ids), places, strict=True):
        if decoded.canvas.is_unmet:
            raise UnveilError(f"row {row} (counted from 0): no values of its empty cells meet what is asked for")
        reveals = {reveal.position: reveal for reveal in decoded.reveals}
        for position in holes[row]:
            uniform = _MEDIAN if wishes.is_mode else reveals[position].uniform
            column = sample.setdefault(position, Column())
            column.rows.append(row)
            column.values.append(tokenizer.value(position, reveals[position].token_id, uniform))
        if advance is not None and sample is samples[-1]:
            advance(1)
    return Filled(samples, seed, foreign)


def _holes(encoded: Encoded, row: int) -> list[int]:
    return [position for position, cells in encoded.cells.items() if cells[row] is None]


def _canvases(
    encoded: Encoded, rows: Sequence[int], wishes: Wishes, *, params: SamplingParams, seed: int
) -> Iterator[Canvas]:
    for row in rows:
        tokens, hidden = tuple(encoded.tokens[row].tolist()), tuple((~encoded.is_known[row]).tolist())
        own = params
        if wishes.constraints is not None:
            known: dict[int, Any] = {i: cells[row] for i, cells in encoded.cells.items() if not hidden[i]}
            own = wishes.constraints.params(params, tokens, hidden, known)
        for k in range(wishes.num_samples):
            yield Canvas.start(tokens, hidden, seed=derive_seed(seed, row, k), params=own)


def filled_series(tokenizer: TableTokenizer, frame: pl.DataFrame, sample: Mapping[int, Column]) -> dict[str, pl.Series]:
    """Of each column that had empty cells what was put there, in the type of the column, one cell a filled row."""
    columns = {position: tokenizer.columns[position] for position in sample}
    return {
        column.name: typed(column, sample[position].values, frame.schema[column.name])
        for position, column in columns.items()
    }


def filled_frame(tokenizer: TableTokenizer, frame: pl.DataFrame, sample: Mapping[int, Column]) -> pl.DataFrame:
    """The whole table. A column without any value, of no type, gets the model's."""
    whole = [
        _put(frame[name], sample[position_of(tokenizer, name)].rows, series)
        for name, series in filled_series(tokenizer, frame, sample).items()
    ]
    return frame.with_columns(whole)


def position_of(tokenizer: TableTokenizer, name: str) -> int:
    """Where the model has a column."""
    return next(i for i, column in enumerate(tokenizer.columns) if column.name == name)


def _put(series: pl.Series, rows: Sequence[int], values: pl.Series) -> pl.Series:
    """A column with other values in some rows; all other cells are its own."""
    size = len(series)
    index = pl.Series(range(size), dtype=pl.UInt32).replace_strict(
        list(rows), list(range(len(rows))), default=None, return_dtype=pl.UInt32
    )
    own = series.cast(values.dtype) if series.dtype == pl.Null else series
    return pl.select(
        pl.when(index.is_not_null()).then(values.gather(index)).otherwise(own).alias(series.name)
    ).to_series()
