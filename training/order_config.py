"""The `[order]` part of a recipe: how the order is found, a model for each method. Knows no data and no torch."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from unveil.model.network.architecture import OrderHeadKind, OrderKind
from unveil.training.levels import Advanced

ReadingOrder = Literal["left_to_right", "right_to_left"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
PREFIX_SPREAD = 0.5
SEARCHES = 0.5, 0.7  # shares of all steps, beside the end of the warm-up


def reading_order(name: ReadingOrder, length: int) -> list[int]:
    """All positions, the first one first."""
    order = list(range(length))
    return order if name == "left_to_right" else order[::-1]


class _Order(BaseModel):
    """What the trainer asks of any order. `kind` and `head` are the artifact's
    (`model.artifact.manifest.OrderSpec`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[OrderKind]
    head: ClassVar[OrderHeadKind] = "trunk"
    is_walked: ClassVar[bool] = False  # learned on whole walks, for a frozen denoiser
    has_critic: ClassVar[bool] = False

    @property
    def rests_until(self) -> float:
        """The share of all steps before which the order's weights are not moved."""
        return 0.0

    def even_share(self, *, is_whole: bool) -> float:
        """The share of a row's weight that what is hidden has evenly beside what is next; `is_whole`: where all steps
        of an order are trained."""
        return 0.0 if is_whole else PREFIX_SPREAD

    @property
    def shows_bare_rows(self) -> bool:
        """Whether some rows show their prompt and nothing more."""
        return False

    @property
    def reading_share(self) -> float:
        """The share of the rows that do not follow the law which run from left to right."""
        return 0.0

    @property
    def rates(self) -> tuple[float, float]:
        """The learning rates of the order's log-weights and of the critic; 0 where none are learned."""
        return 0.0, 0.0

    def uniform_share(self, _progress: float, /) -> float:
        """The share of rows that follow uniform orders after this share of all steps. 1.0: no row follows the law, so
        that nothing need be known of it."""
        return 1.0

    def fixed_order(self, _length: int, /) -> tuple[int, ...] | None:
        """The order that is given and not learned, as positions of a canvas of this length."""
        return None


class UniformOrder(_Order):
    """Every row follows an order drawn uniformly; nothing is learned.

    `bare`: this share of all rows shows its prompt and nothing more (a puzzle's clues, say), so that the network learns
    to see far; they are left out of the reported NELBO.
    """

    kind: ClassVar[OrderKind] = "uniform"
    method: Literal["uniform"] = "uniform"
    bare: Advanced[Share] = 0.0

    @property
    def shows_bare_rows(self) -> bool:
        return self.bare > 0


class _Scheduled(_Order):
    """An order for a denoiser that trains with it. Shares and times are fractions: of the rows of a batch, and of
    `optimizer.steps`.

    All rows follow uniform orders at first (`warmup`), so that the denoiser has met what makes an order good before one
    is chosen; then the share of uniform rows shrinks linearly to `exploration` over `anneal`. `reading`: this share of
    the rows that do not follow the law run from left to right, as in a text, of whose beginnings uniform orders hardly
    know any. `spread`: this share of a row's weight goes evenly to all hidden positions, not to the law's next one
    alone (`model.loss.objective`). Left out it is a half where a row trains one prefix of its order, and 0 where it
    trains them all.
    """

    warmup: Advanced[Share] = 0.25
    anneal: Advanced[Share] = 0.15
    exploration: Advanced[Share] = 0.25
    spread: Advanced[Share | None] = None
    reading: Advanced[Share] = 0.0

    @model_validator(mode="after")
    def _reads_some_rows(self) -> Self:
        if self.reading and not (self.warmup or self.anneal or self.exploration):
            raise ValueError("reading: must be 0 where warmup, anneal and exploration are: all rows follow the law")
        return self

    def even_share(self, *, is_whole: bool) -> float:
        return super().even_share(is_whole=is_whole) if self.spread is None else self.spread

    @property
    def reading_share(self) -> float:
        return self.reading

    def uniform_share(self, progress: float, /) -> float:
        if progress < self.warmup:
            return 1.0
        annealed = min((progress - self.warmup) / self.anneal, 1.0) if self.anneal else 1.0
        return 1.0 + annealed * (self.exploration - 1.0)


class FixedOrder(_Scheduled):
    """An order that is given: every position once, or a reading order by its name.

    It has the schedule of a learned order, so that it is a fair control; a plain left-to-right model sets all four of
    `warmup`, `anneal`, `exploration` and `spread` to 0.
    """

    kind: ClassVar[OrderKind] = "fixed"
    method: Literal["fixed"] = "fixed"
    positions: tuple[int, ...] | ReadingOrder

    def fixed_order(self, length: int, /) -> tuple[int, ...]:
        return self.positions if isinstance(self.positions, tuple) else tuple(reading_order(self.positions, length))


class GlobalOrder(_Scheduled):
    """One learned order for all rows, decided by a critic (`model/loss/critic.py`; rows of at most 1,024 positions).

    The critic learns from every forward which losses to expect where, at `critic_learning_rate`. When the warm-up ends,
    and at the times of `searches` (left out, after a half and 0.7 of all steps), orders are searched for on it. The
    best on training rows becomes what the law begins from (`training/step/decided_orders.py`). Between searches the
    order's log-weights follow the critic at `learning_rate`, by orders simulated on it. They rest in the warm-up, and
    after it while the share of uniform rows shrinks, so that the critic meets the new law before it moves it.
    """

    kind: ClassVar[OrderKind] = "global"
    has_critic: ClassVar[bool] = True
    method: Literal["global"] = "global"
    learning_rate: float = Field(default=0.1, gt=0.0)
    critic_learning_rate: Advanced[float] = Field(default=3e-3, gt=0.0)
    searches: Advanced[tuple[Share, ...] | None] = None

    @property
    def rests_until(self) -> float:
        return self.warmup + self.anneal

    @property
    def rates(self) -> tuple[float, float]:
        return self.learning_rate, self.critic_learning_rate

    @property
    def search_times(self) -> tuple[float, ...]:
        """When orders are searched for, as shares of all steps."""
        later = SEARCHES if self.searches is None else self.searches
        return (self.warmup, *(time for time in later if time > self.warmup))

    @model_validator(mode="after")
    def _searches_in_time(self) -> Self:
        given = self.searches or ()
        if any(not self.warmup < time < 1.0 for time in given):
            raise ValueError(f"searches: times must be after the warm-up, which ends at {self.warmup:g}, and before 1")
        if not _rises(given):
            raise ValueError("searches: times must rise")
        return self


class _Walked(_Order):
    """An order that depends on what is revealed, learned for a frozen denoiser on rows that are walked along it.

    `exploration`: this share of the rows is walked along uniform orders. `stride`: so many positions a forward.
    """

    kind: ClassVar[OrderKind] = "contextual"
    is_walked: ClassVar[bool] = True
    exploration: Advanced[Share] = 0.0
    stride: Advanced[int] = Field(default=1, ge=1)

    def uniform_share(self, _progress: float, /) -> float:
        return 1.0 + (self.exploration - 1.0)


class NextCostOrder(_Walked):
    """A head learns what each reveal would cost, and the cheapest comes next (`training/step/rollouts.py`)."""

    head: ClassVar[OrderHeadKind] = "next_cost"
    method: Literal["next_cost"] = "next_cost"


class CostToGoOrder(_Walked):
    """A head learns what the rest of the walk will cost after each choice, for orders in which a reveal pays off later.

    At a state of each walk the order's own choice and others, `branches` in all, are tried to the end
    (`training/step/cost_to_go.py`).
    """

    head: ClassVar[OrderHeadKind] = "cost_to_go"
    method: Literal["cost_to_go"] = "cost_to_go"
    branches: Advanced[int] = Field(default=4, ge=2)


OrderConfig = Annotated[
    UniformOrder | FixedOrder | GlobalOrder | NextCostOrder | CostToGoOrder, Field(discriminator="method")
]


def _rises(times: Sequence[float]) -> bool:
    return list(times) == sorted(set(times))
