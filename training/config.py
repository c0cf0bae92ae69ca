"""The recipe: one frozen, validated config for a training run. Unknown keys are errors. Knows no data and no torch."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from unveil.model.errors import UnveilError
from unveil.training.data.config import DataConfig, LinesData, TableData
from unveil.training.data.table.choices import ColumnOptions
from unveil.training.levels import ADVANCED, Advanced, fold, is_advanced, tables, unfold
from unveil.training.order_config import GlobalOrder, OrderConfig, Share

NO_OPTIONS = ColumnOptions()
_OVERRIDE = re.compile(r"""((?:"(?:\\.|[^"\\])*"|'[^']*'|[^="'])+)=(.*)""", re.DOTALL)
EPOCHS, WHOLE_EPOCHS, FEWEST_STEPS, MOST_STEPS = 60, 24, 500, 8000
ROWS_A_PLACE, SMALLEST_BATCH = (
    64,
    32,
)  # of a batch left to the data, a power of two: so many rows for each of its places
MATRIX_RATE = 0.02
PATIENCE, VALIDATIONS = 3, 10  # of a table
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
_MOST_SEED = 10**12  # streams of draws are numbered by its multiples, and have 64 bits


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Frozen):
    """The denoiser's shape, as in `model.network.architecture.Architecture`; length, vocabulary and trunk follow from
    the data.

    `query_layers`: so many layers beside the `layers` ask for hidden positions (`model/network/late.py`), and all steps
    of a row's order are trained in one forward. 0: a masked network whose positions all read each other, trained a
    prefix at a time. Left out it is 2, but 0 where `num_loops` is above 1, and for grids; `layers` left out is 1 with
    query layers, else 2. With `num_loops`, the tokens of every loop are trained, not of the last one alone (deep
    supervision). With query layers and neither bias named, sequences have a `relative_bias`, and tables of up to 64
    columns a `pair_bias`.
    """

    width: int = Field(default=96, ge=2)
    layers: int | None = Field(default=None, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_width: int = Field(default=288, ge=2)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    num_loops: Advanced[int] = Field(default=1, ge=1)
    relative_bias: Advanced[bool | None] = None
    pair_bias: Advanced[bool | None] = None
    query_layers: Advanced[int | None] = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class PromptConfig(_Frozen):
    """`share` of the training rows carry a random known set, uniform in size and in place; of the first ones
    `first_share`, of those between in proportion to the steps done.

    `spans`: this share of them knows whole stretches instead, as people write prompts: a beginning, an end, a text
    with holes (`training.data.rows.known_spans`).
    """

    share: Share = 0.25
    first_share: Advanced[Share | None] = None
    spans: Advanced[Share] = 0.0

    def share_at(self, progress: float) -> float:
        """After this share of all steps."""
        first = self.share if self.first_share is None else self.first_share
        return first + (self.share - first) * progress


class StartConfig(_Frozen):
    """`artifact`: start from its weights instead of fresh ones; the network is then the artifact's, but for `num_loops`
    and `dropout` where the recipe's `[model]` gives others and the denoiser is not frozen.

    `freeze_denoiser` keeps them as they are and learns an order for them alone. Left out, it follows from the method of
    the order: `next_cost` and `cost_to_go` are for a frozen denoiser.
    """

    artifact: Path | None = None
    freeze_denoiser: bool | None = None


class OptimizerConfig(_Frozen):
    """Warm-up and cosine decay: Muon for the matrices of a network, at `matrix_rate`, and AdamW for all else, at
    `learning_rate`; AdamW alone where `matrix_rate` is 0. Left out it is 0.02, but 0 for grids, with `num_loops` above
    1, and for imported models. `batch_size` is the global batch of one update, over all processes.

    `steps` left out: as many as show every training row 24 times where all steps of its order are trained, else 60
    times; but 500 at least and 8000 at most. A table trained for longer is learned by heart. `batch_size` is then
    smaller for fewer than 16,384 rows, down to 32, unless it is given. `backward_loops`: gradients go back through so
    many of a network's loops at most (`model.num_loops`), and a sudoku grid that is learned goes through no more of
    them.

    `patience`: training ends after so many validations in turn that are no better, and the best weights are taken; 0:
    the last ones are, whatever they cost. Left out it is 3 for a table of one's own whose `steps` are left out, too;
    else it is 0. A tenth of the steps lies between two of these validations, whatever `run.validate_every` is.
    """

    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=256, ge=1)
    accumulate: Advanced[int] = Field(default=1, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0.0)
    final_rate: Advanced[Share] = 0.02
    warmup_steps: Advanced[int] = Field(default=200, ge=0)
    weight_decay: Advanced[float] = Field(default=0.1, ge=0.0)
    betas: Advanced[tuple[Beta, Beta]] = (0.9, 0.98)
    clip: Advanced[float] = Field(default=1.0, gt=0.0)
    ema_decay: Advanced[float] = Field(default=0.998, ge=0.0, lt=1.0)
    backward_loops: Advanced[int | None] = Field(default=None, ge=1)
    matrix_rate: Advanced[float | None] = Field(default=None, ge=0.0)
    patience: Advanced[int | None] = Field(default=None, ge=0)

    @property
    def num_steps(self) -> int:
        """`steps`, once they are settled."""
        assert self.steps is not None, "settle the recipe first"
        return self.steps

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}")
        return self


class RunConfig(_Frozen):
    """Where and how it runs. Nothing here changes what is learned but for rounding, so a resumed run may change it.

    `precision` auto is bf16-mixed where the processor has bfloat16 arithmetic, float32 elsewhere: a CPU that only
    imitates it is many times slower.
    """

    accelerator: Advanced[Literal["auto", "cpu", "cuda"]] = "auto"
    strategy: Advanced[Literal["auto", "ddp", "fsdp"]] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)
    compile: Advanced[bool] = False
    log_every: Advanced[int] = Field(default=20, ge=1)
    validate_every: Advanced[int] = Field(default=1000, ge=1)
    validate_rows: Advanced[int] = Field(default=2048, ge=1)
    checkpoint_every: Advanced[int] = Field(default=500, ge=1)
    checkpoint_seconds: Advanced[float] = Field(default=60.0, ge=0.0)
    keep_checkpoints: Advanced[int] = Field(default=2, ge=1)
    evaluate_rows: int | None = Field(default=None, ge=2)


class Recipe(_Frozen):
    """Everything a training run is: `unveil train RECIPE.toml`. It is read and dumped as its file is written, with some
    keys under `[advanced]` (`training/levels.py`)."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    license: str = ""
    seed: int = Field(default=0, ge=0, le=_MOST_SEED)
    data: DataConfig
    model: ModelConfig = ModelConfig()
    order: OrderConfig = GlobalOrder()
    prompts: PromptConfig = PromptConfig()
    start: StartConfig = StartConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()

    @property
    def is_frozen(self) -> bool:
        """Whether an order is learned alone, for a denoiser that stays as it is."""
        return bool(self.start.freeze_denoiser) or self.order.is_walked

    @property
    def query_layers(self) -> int:
        """Of a fresh network: one that starts from an artifact has the artifact's."""
        if self.model.query_layers is not None:
            return self.model.query_layers
        return 0 if self.is_looped else 2

    @property
    def layers(self) -> int:
        """Of a fresh network, beside those of its queries."""
        if self.model.layers is not None:
            return self.model.layers
        return 1 if self.query_layers else 2

    @property
    def is_looped(self) -> bool:
        """Of grids, and networks that go through their layers more than once."""
        return self.data.kind == "sudoku" or self.model.num_loops > 1

    @property
    def matrix_rate(self) -> float:
        """Muon's, 0 without it."""
        if self.optimizer.matrix_rate is not None:
            return self.optimizer.matrix_rate
        return 0.0 if self.is_looped else MATRIX_RATE

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Of tables that hold all of their keys, for code that makes recipes: none stands under `[advanced]`."""
        return cls.model_validate(unfold(cls, fields))

    @model_validator(mode="before")
    @classmethod
    def _read(cls, fields: Any) -> Any:
        return fold(cls, _with_method(fields)) if isinstance(fields, Mapping) else fields

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return unfold(type(self), handler(self))

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        order, start = self.order, self.start
        if self.is_frozen and start.artifact is None:
            raise ValueError("start.artifact: an order alone is learned for the denoiser of an artifact; name one")
        if self.is_frozen and not (order.is_walked or order.has_critic):
            raise ValueError(f'start.freeze_denoiser: is not valid with order.method = "{order.method}"')
        if order.is_walked and start.freeze_denoiser is False:
            raise ValueError(f'start.freeze_denoiser: must be true with order.method = "{order.method}"')
        if isinstance(self.data, LinesData) and start.artifact is None:
            raise ValueError("start.artifact: data.kind lines needs one, for its tokenizer")
        return self

    @model_validator(mode="after")
    def _frozen_ignores_nothing(self) -> Self:
        if not self.is_frozen:
            return self
        ignored = {
            "optimizer.backward_loops": self.optimizer.backward_loops is not None,
            "optimizer.matrix_rate": self.optimizer.matrix_rate is not None,
            "order.spread": isinstance(self.order, GlobalOrder) and self.order.spread is not None,
        }
        for key in [key for key, is_given in ignored.items() if is_given]:
            raise ValueError(f"advanced.{key}: is not valid with a frozen denoiser")
        return self

    @property
    def validate_every(self) -> int:
        """Steps between two validations, once they are settled."""
        if self.optimizer.patience:
            return max(self.optimizer.num_steps // VALIDATIONS, 1)
        return self.run.validate_every

    @model_validator(mode="after")
    def _is_whole_where_it_is_patient(self) -> Self:
        if self.optimizer.patience and self.run.strategy == "fsdp":
            raise ValueError("advanced.optimizer.patience: is not valid with fsdp, whose weights are in parts")
        return self

    @model_validator(mode="after")
    def _queries_fit(self) -> Self:
        if self.model.query_layers and self.model.num_loops > 1:
            raise ValueError("advanced.model.query_layers: must be 0 with advanced.model.num_loops above 1")
        if self.model.query_layers and self.data.kind == "sudoku":
            raise ValueError('advanced.model.query_layers: must be 0 with data.kind = "sudoku"')
        if self.start.artifact is None and self.query_layers and self.order.shows_bare_rows:
            raise ValueError("advanced.order.bare: is only valid with advanced.model.query_layers = 0")
        return self

    def fingerprint(self) -> str:
        """sha256 of all that decides what is learned: everything but `run`, the description and the license."""
        fields = self.model_dump(mode="json", exclude={"run", "description", "license"})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _with_method(fields: Mapping[str, Any]) -> dict[str, Any]:
    """An `[order]` without a method is global."""
    order = fields.get("order", {})
    return {**fields, "order": {"method": "global", **order} if isinstance(order, Mapping) else order}


def settle(recipe: Recipe, *, num_rows: int) -> Recipe:
    """The recipe with the number of steps decided, and of few rows the batch, where that was left to the data."""
    optimizer = recipe.optimizer
    if optimizer.steps is not None:
        return recipe
    batch_size = optimizer.batch_size
    if recipe.query_layers and not {"batch_size", "accumulate"} & optimizer.model_fields_set:
        batch_size = min(fitting_batch(num_rows), batch_size)
    epochs = WHOLE_EPOCHS if recipe.query_layers else EPOCHS
    steps = min(max(epochs * num_rows // batch_size, FEWEST_STEPS), MOST_STEPS)
    settled: dict[str, int] = {"steps": steps, "batch_size": batch_size}
    if optimizer.patience is None and isinstance(recipe.data, TableData) and recipe.run.strategy != "fsdp":
        settled["patience"] = PATIENCE
    return recipe.model_copy(update={"optimizer": optimizer.model_copy(update=settled)})


def fitting_batch(num_rows: int) -> int:
    """The batch that so many training rows are learned in, if it is not given."""
    return max(1 << (max(num_rows // ROWS_A_PLACE, 1).bit_length() - 1), SMALLEST_BATCH)


def data_of(fields: Mapping[str, Any]) -> DataConfig:
    """The `[data]` of a recipe's fields, whatever the rest of them is. Raises ValueError."""
    return TypeAdapter[DataConfig](DataConfig).validate_python(fold(Recipe, fields)["data"])


def load_recipe(path: Path, *, overrides: Sequence[str] = (), columns: ColumnOptions = NO_OPTIONS) -> Recipe:
    """Reads a TOML recipe and applies `key.sub=value` overrides (TOML values). Raises UnveilError."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnveilError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UnveilError(f"{path}: not readable as TOML ({error})") from None
    return build_recipe(fields, overrides=overrides, columns=columns, source=str(path))


def table_recipe(
    table: Path, *, name: str, overrides: Sequence[str] = (), columns: ColumnOptions = NO_OPTIONS
) -> Recipe:
    """The recipe of `unveil train --table`: schema inferred but for `columns`, everything else by default."""
    data = TableData(kind="table", path=table).model_dump(mode="json", exclude_defaults=True)
    fields = {"name": name, "data": {**data, "kind": "table"}}
    return build_recipe(fields, overrides=overrides, columns=columns, source="--table")


def lines_recipe(lines: Path, *, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of `unveil train --lines`: everything by default, on a text a line."""
    fields = {"name": name, "data": {"kind": "lines", "files": [str(lines)]}}
    return build_recipe(fields, overrides=overrides, source="--lines")


def build_recipe(
    fields: dict[str, Any], *, overrides: Sequence[str] = (), columns: ColumnOptions = NO_OPTIONS, source: str
) -> Recipe:
    """Validates a recipe's fields. Raises UnveilError naming the first key that is wrong."""
    for override in overrides:
        _apply(fields, override)
    if isinstance(fields.get("data"), dict):
        fields["data"] = columns.put_into(fields["data"])
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise UnveilError(f"{source}: {_as_line(error)}") from None


def _as_line(error: ValidationError) -> str:
    """The first mistake, by the name that its key has in the file."""
    first = error.errors()[0]
    place, reason = [str(part) for part in first["loc"]], first["msg"].removeprefix("Value error, ")
    if not place:
        return reason  # a rule between keys, which names them
    table, chosen = tables(Recipe).get(place[0]), ""
    if table is not None and len(place) > 1:
        model: type[BaseModel] | None = table.models[0]
        if table.discriminator is not None:
            tag = place.pop(1)  # what pydantic puts between the table and its keys
            model, chosen = table.model({table.discriminator: tag}), f' with {table.discriminator} = "{tag}"'
        if model is not None and len(place) > 1 and is_advanced(model, place[1]):
            place.insert(0, ADVANCED)
    if first["type"] == "extra_forbidden":
        reason = f"unknown key{chosen}"
    return f"{'.'.join(place)}: {reason}"


def _apply(fields: dict[str, Any], override: str) -> None:
    """Keys as in TOML: a column whose name has a dot, a space or an equals sign is put in quotes."""
    match = _OVERRIDE.fullmatch(override)
    key, text = (match[1], match[2]) if match is not None else (override, "")
    found = None if match is None else _parsed(key, text) or _parsed(key, json.dumps(text.strip()))
    if found is None:
        raise UnveilError(f"--set {override}: must be key=value, as in --set optimizer.steps=2000")
    _merge(fields, found, override)


def _parsed(key: str, text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(f"{key} = {text}")
    except tomllib.TOMLDecodeError:
        return None  # a bare word is a string, so that --set order.method=uniform needs no quotes


def _merge(fields: dict[str, Any], found: dict[str, Any], override: str) -> None:
    for key, value in found.items():
        if not isinstance(value, dict):
            fields[key] = value
        elif not isinstance(fields.setdefault(key, {}), dict):
            raise UnveilError(f"--set {override}: {key} has no keys of its own")
        else:
            _merge(fields[key], value, override)
