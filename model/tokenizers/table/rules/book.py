"""The rules that a table's model was trained with, and what it knows of columns that belong together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from unveil.model.errors import PromptError
from unveil.model.tokenizers.table.columns import Column
from unveil.model.tokenizers.table.rules.kinds import Rule, Seen
from unveil.model.tokenizers.table.rules.reading import Pair, read_rule
from unveil.model.tokenizers.wording import listed, shown

MAX_SEEN = 200_000  # rows of one pair(...)


class Together(BaseModel):
    """What stood together in some columns: the distinct rows of their ids, ascending."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    columns: Annotated[tuple[str, ...], Field(min_length=2)]
    rows: tuple[tuple[int, ...], ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.rows or any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("rows must have an id for each column")
        return self


def together(names: Sequence[str], ids: NDArray[np.int64]) -> Together:
    """Of ids [N, C] of the columns that have these names. Raises PromptError where they are too many to keep."""
    rows = np.unique(ids[(ids >= 0).all(1)], axis=0)
    if len(rows) > MAX_SEEN:
        raise PromptError(f"pair({listed(names)}): {len(rows):,} different rows, at most {MAX_SEEN:,} are kept")
    return Together(columns=tuple(names), rows=tuple(tuple(row) for row in rows.tolist()))


class RuleBook:
    """Reads rules about these columns."""

    def __init__(self, columns: Sequence[Column], *, known: Iterable[Together] = ()) -> None:
        self._columns = columns
        names = {column.name: i for i, column in enumerate(columns)}
        self._seen: Mapping[tuple[int, ...], frozenset[tuple[int, ...]]] = {
            tuple(names[name] for name in own.columns): frozenset(own.rows) for own in known
        }

    def read(self, text: str) -> Rule:
        """Raises PromptError for what is no rule, and for a pair of which it is not known what stood together."""
        rule = read_rule(text, self._columns)
        if not isinstance(rule, Pair):
            return rule
        rows = self._seen.get(rule.columns)
        if rows is None:
            raise PromptError(
                f'the rule "{shown(rule.text)}" is not known to this model, which was not trained with it: '
                "only where the training table is at hand can it be kept"
            )
        return Seen(rule.text, rule.columns, rows)

    def unknown(self, text: str) -> tuple[int, ...] | None:
        """The columns of a pair of which it is not known what stood together; None of any other rule."""
        rule = read_rule(text, self._columns)
        return rule.columns if isinstance(rule, Pair) and rule.columns not in self._seen else None
