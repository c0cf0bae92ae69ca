"""The recipe: one frozen, validated config for a training run. Unknown keys are errors. Knows no data and no torch."""

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.errors import UnveilError
from model.manifest import Attends, OrderHeadKind, OrderKind, TrunkKind
from training.data.choices import ColumnOptions
from training.data.config import DataConfig, LinesData, TableData

NO_OPTIONS = ColumnOptions()
_OVERRIDE = re.compile(r"""((?:"(?:\\.|[^"\\])*"|'[^']*'|[^="'])+)=(.*)""", re.DOTALL)
EPOCHS, FEWEST_STEPS, MOST_STEPS = 60, 500, 8000
CandidateOrder = Literal["left_to_right", "right_to_left"]
OrderSignal = Literal["critic", "foresight", "cost_to_go"]
WALKED = ("foresight", "cost_to_go")  # heads, and signals of the same name, that learn on walks
BRANCHES = 4
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
_MOST_SEED = 10**12  # streams of draws are numbered by its multiples, and have 64 bits


class RecipeError(UnveilError):
    """A recipe that cannot be trained; one line that names the key."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Frozen):
    """The denoiser's shape, as in `model.manifest.Architecture`; length and vocabulary follow from the data.

    With `loops`, the tokens of every loop are trained, not of the last one alone (deep supervision).
    """

    width: int = Field(default=64, ge=2)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_width: int = Field(default=192, ge=2)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    trunk: TrunkKind = "attention"
    loops: int = Field(default=1, ge=1)
    relative_bias: bool = False
    pair_bias: bool = False
    attends: Attends = "all"

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class OrderConfig(_Frozen):
    """How the order is found. Shares and times are fractions: of the rows of a batch, and of `optimizer.steps`.

    The order's weights rest while all rows follow uniform orders (`warmup`), so that the denoiser has met what makes an
    order good before one is chosen; then the share of uniform rows shrinks linearly to `exploration` over `anneal`.
    `spread`: this share of a row's weight goes evenly to all hidden positions, not to the law's next one alone, so that
    every row of a decided order trains them all (`model.objective.order_form`). All of this holds for a fixed order
    too, so that it is a fair control; a plain left-to-right model sets all four to 0.
    `signal`, what moves a learned order: `critic` (global orders, the default for them) learns from every forward which
    losses to expect where, at `critic_learning_rate`, and moves the order by orders simulated on it
    (`model/critic.py`; rows of at most 1,024 positions).
    `signal` and `head` `foresight` go together, with contextual orders for a frozen denoiser: rows are walked along the
    order's own choices, `stride` positions a forward, and the head learns what each reveal would have cost
    (`training/foresight.py`). `signal` and `head` `cost_to_go` likewise, and the head learns what the rest of the walk
    will have cost after each choice, the order for which a reveal pays off later: at a state of each walk the order's
    own choice and others, `branches` in all, are tried to the end (`training/branches.py`).
    `candidates`, global orders only: when the warm-up ends these are tried on validation rows. The law begins as the
    best of them if that is cheaper than the law is then (`training/rivals.py`). The order then also rests while the
    share of uniform rows shrinks, so that the critic meets the new law before it moves it. When training ends they are
    tried again, and the cheapest is kept.
    `reconsider`, global orders only: at these times, after the warm-up, the law's log-weights shrink to a seventh, so
    that what was decided before the network could read what it was about is decided once more, and all that was right
    is soon as it was.
    """

    kind: OrderKind = "global"
    fixed: tuple[int, ...] | None = None
    head: OrderHeadKind = "trunk"
    signal: OrderSignal | None = None
    learning_rate: float = Field(default=0.1, gt=0.0)
    critic_learning_rate: float = Field(default=3e-3, gt=0.0)
    warmup: Share = 0.25
    anneal: Share = 0.15
    exploration: Share = 0.1
    spread: Share = 0.5
    stride: int = Field(default=1, ge=1)
    branches: int = Field(default=BRANCHES, ge=2)
    candidates: tuple[CandidateOrder, ...] = ()
    reconsider: tuple[Share, ...] | None = None

    @property
    def is_walked(self) -> bool:
        """Whether the order is learned on whole walks, for a frozen denoiser (`training/foresight.py`)."""
        return self.signal in WALKED

    @property
    def rests_until(self) -> float:
        """The share of all steps before which the order's weights are not moved."""
        return self.warmup + (self.anneal if self.candidates else 0.0)

    @property
    def has_critic(self) -> bool:
        """Whether the order is moved by a critic."""
        return self.kind == "global"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.signal is not None and self.kind not in ("global", "contextual"):
            raise ValueError("signal: is only valid with learned orders, kind global or contextual")
        for walked in WALKED:
            if (self.signal == walked) != (self.head == walked):
                raise ValueError(f"signal: {walked} is only valid with head {walked}")
            if self.head == walked and self.kind != "contextual":
                raise ValueError(f"head: {walked} is only valid with kind contextual")
        if self.kind == "contextual" and not self.is_walked:
            raise ValueError(
                'kind: contextual orders are learned for a frozen denoiser; set head and signal to "foresight" or'
                ' "cost_to_go", with start.freeze_denoiser'
            )
        if self.stride != 1 and not self.is_walked:
            raise ValueError("stride: is only valid with signal foresight or cost_to_go")
        if self.candidates and self.kind != "global":
            raise ValueError("candidates: is only valid with kind global")
        if self.reconsider and self.kind != "global":
            raise ValueError("reconsider: is only valid with kind global")
        if any(not self.rests_until < time < 1.0 for time in self.reconsider or ()):
            raise ValueError(f"reconsider: times must be after the order's rest, which ends at {self.rests_until:g}")
        if list(self.reconsider or ()) != sorted(set(self.reconsider or ())):
            raise ValueError("reconsider: times must rise")
        if self.branches != BRANCHES and self.signal != "cost_to_go":
            raise ValueError("branches: is only valid with signal cost_to_go")
        if self.signal == "critic" and self.kind == "contextual":
            raise ValueError("signal: critic is only valid with kind global")
        if (self.kind == "fixed") != (self.fixed is not None):
            raise ValueError("fixed: lists every position if kind is fixed, and is left out otherwise")
        return self


class PromptConfig(_Frozen):
    """`share` of the training rows carry a random known set, uniform in size and in place.

    `spans`: this share of them knows whole stretches instead, as people write prompts: a beginning, an end, a text
    with holes (`training.rows.known_spans`).
    `bare`: this share of all rows shows its prompt and nothing more (a puzzle's clues, say), so that the network learns
    to see far; they are left out of the reported NELBO. With order.kind uniform only.
    """

    share: Share = 0.25
    spans: Share = 0.0
    bare: Share = 0.0


class StartConfig(_Frozen):
    """`artifact`: start from its weights instead of fresh ones; the network is then the artifact's, but for `loops` and
    `dropout` where the recipe's `[model]` gives others and the denoiser is not frozen.

    `freeze_denoiser` keeps them as they are and learns an order for them alone: without a critic no warm-up and no
    exploration then, unless the recipe asks for them, since only rows of the law teach an order.
    """

    artifact: Path | None = None
    freeze_denoiser: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.freeze_denoiser and self.artifact is None:
            raise ValueError("freeze_denoiser: needs an artifact to freeze")
        return self


class OptimizerConfig(_Frozen):
    """AdamW with warm-up and cosine decay. `batch_size` is the global batch of one update, over all processes.

    `steps` left out: as many as show every training row 60 times, but 500 at least and 8000 at most. A small table
    trained for longer is learned by heart. `backward_loops`: gradients go back through so many of a network's loops at
    most (`model.loops`), and a sudoku grid that is learned goes through no more of them.
    `teacher_forcing`: one forward trains every step of a row's order, from what it shows at the start on, not the next
    one alone (`model.objective.teacher_forced`). It takes a network with `model.attends = "visible"`, and orders that
    are uniform, fixed, or global and moved by a critic, which then learns of alternatives to the law's choices from
    rows in uniform orders alone; a forward costs about two. `order.spread` has no part in it.
    """

    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=256, ge=1)
    accumulate: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0.0)
    final_rate: Share = 0.02
    warmup_steps: int = Field(default=200, ge=0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    clip: float = Field(default=1.0, gt=0.0)
    ema_decay: float = Field(default=0.998, ge=0.0, lt=1.0)
    backward_loops: int | None = Field(default=None, ge=1)
    teacher_forcing: bool = False

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

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)
    compile: bool = False
    log_every: int = Field(default=20, ge=1)
    validate_every: int = Field(default=1000, ge=1)
    validate_rows: int = Field(default=2048, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    evaluate_rows: int | None = Field(default=None, ge=2)


class Recipe(_Frozen):
    """Everything a training run is: `unveil train RECIPE.toml`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    licence: str = ""
    seed: int = Field(default=0, ge=0, le=_MOST_SEED)
    data: DataConfig
    model: ModelConfig = ModelConfig()
    order: OrderConfig = OrderConfig()
    prompts: PromptConfig = PromptConfig()
    start: StartConfig = StartConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.start.freeze_denoiser and self.order.kind not in ("global", "contextual"):
            raise ValueError("start.freeze_denoiser: is only valid with order.kind global or contextual")
        if isinstance(self.data, LinesData) and self.start.artifact is None:
            raise ValueError("start.artifact: data.kind lines takes its tokenizer, so one is needed")
        if self.optimizer.teacher_forcing:
            self._check_teacher_forcing()
        if self.prompts.bare and self.order.kind != "uniform":
            raise ValueError("prompts.bare: is only valid with order.kind uniform")
        if self.optimizer.backward_loops is not None and self.start.freeze_denoiser:
            raise ValueError("optimizer.backward_loops: is only valid with a denoiser that trains, not a frozen one")
        if self.order.is_walked and not self.start.freeze_denoiser:
            signal = self.order.signal
            raise ValueError(f"order.signal: {signal} needs a frozen denoiser, start.freeze_denoiser")
        return self

    def _check_teacher_forcing(self) -> None:
        order = self.order
        if self.start.artifact is None and self.model.attends != "visible":
            raise ValueError('optimizer.teacher_forcing: is only valid with model.attends = "visible"')
        if self.model.loops > 1:
            raise ValueError("optimizer.teacher_forcing: is only valid with model.loops 1")
        if order.kind == "contextual" or self.start.freeze_denoiser:
            raise ValueError(
                "optimizer.teacher_forcing: needs a denoiser that trains, and a uniform, fixed or global order"
            )
        if self.prompts.bare or order.spread != OrderConfig.model_fields["spread"].default:
            key = "prompts.bare" if self.prompts.bare else "order.spread"
            raise ValueError(f"{key}: is not valid with optimizer.teacher_forcing, which trains all that is hidden")

    def fingerprint(self) -> str:
        """sha256 of all that decides what is learned: everything but `run`, the description and the licence."""
        fields = self.model_dump(mode="json", exclude={"run", "description", "licence"})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def settle(recipe: Recipe, *, num_rows: int) -> Recipe:
    """The recipe with everything decided that was left to the data or to other keys."""
    updates: dict[str, Any] = {}
    if recipe.optimizer.steps is None:
        steps = min(max(EPOCHS * num_rows // recipe.optimizer.batch_size, FEWEST_STEPS), MOST_STEPS)
        updates["optimizer"] = recipe.optimizer.model_copy(update={"steps": steps})
    if recipe.start.freeze_denoiser and not recipe.order.has_critic:
        rests = {"warmup", "anneal", "exploration"} - recipe.order.model_fields_set
        updates["order"] = recipe.order.model_copy(update=dict.fromkeys(rests, 0.0))
    return recipe.model_copy(update=updates)


def load_recipe(path: Path, *, overrides: Sequence[str] = (), columns: ColumnOptions = NO_OPTIONS) -> Recipe:
    """Reads a TOML recipe and applies `key.sub=value` overrides (TOML values). Raises RecipeError, DataError."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: not readable as TOML ({error})") from None
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
    """Validates a recipe's fields. Raises RecipeError naming the first key that is wrong."""
    for override in overrides:
        _apply(fields, override)
    if isinstance(fields.get("data"), dict):
        fields["data"] = columns.put_into(fields["data"])
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        if place[:1] == ["data"]:
            del place[1:2]  # the kind that pydantic puts between the key and its own keys
        key = ".".join(place) or "recipe"
        reason = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{source}: {key}: {reason}") from None


def _apply(fields: dict[str, Any], override: str) -> None:
    """Keys as in TOML: a column whose name has a dot, a space or an equals sign is put in quotes."""
    match = _OVERRIDE.fullmatch(override)
    key, text = (match[1], match[2]) if match is not None else (override, "")
    found = None if match is None else _parsed(key, text) or _parsed(key, json.dumps(text.strip()))
    if found is None:
        raise RecipeError(f"--set {override}: takes key=value, as in --set optimizer.steps=2000")
    _merge(fields, found, override)


def _parsed(key: str, text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(f"{key} = {text}")
    except tomllib.TOMLDecodeError:
        return None  # a bare word is a string, so that --set order.kind=uniform needs no quotes


def _merge(fields: dict[str, Any], found: dict[str, Any], override: str) -> None:
    for key, value in found.items():
        if not isinstance(value, dict):
            fields[key] = value
        elif not isinstance(fields.setdefault(key, {}), dict):
            raise RecipeError(f"--set {override}: {key} has no keys of its own")
        else:
            _merge(fields[key], value, override)
