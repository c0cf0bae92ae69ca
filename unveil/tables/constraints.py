"""What filled cells must be like: a condition on single columns, and rules between them, as one row leaves them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from unveil.engine.request.errors import ServiceError
from unveil.engine.request.rules import BoundRule, given
from unveil.engine.request.schemas import ATTEMPTS
from unveil.model.decoding.canvas import Condition, Part, SamplingParams
from unveil.model.errors import PromptError
from unveil.model.tokenizers.base import Template, Value
from unveil.model.tokenizers.table.rules.kinds import RowRule, Unique
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.wording import quoted
from unveil.tables.drawing import row_rules

if TYPE_CHECKING:
    from unveil.api import Model


@dataclass(frozen=True)
class Constraints:
    """Of a table. `broken` counts, by rule, the rows whose known cells break it already; they are filled without it."""

    tokenizer: TableTokenizer
    parts: Mapping[int, tuple[Part, ...]]
    rules: tuple[RowRule, ...]
    broken: Counter[str] = field(default_factory=Counter)

    def params(
        self, base: SamplingParams, tokens: tuple[int, ...], hidden: tuple[bool, ...], known: Mapping[int, Value]
    ) -> SamplingParams:
        """How a row of these ids [L] is filled, whose `known` values are as they were given."""
        template = Template(tokens, hidden, known)
        parts = {i: own for i, own in self.parts.items() if hidden[i]}
        rules = []
        for rule in self.rules:
            own = given(rule, self.tokenizer, template)
            if not own.positions:
                self.broken.update([] if own.holds({}) else [rule.text])
            elif own.allowed(own.positions[0], {}) == ():
                self.broken.update([rule.text])
            else:
                rules.append(BoundRule(own))
        return replace(base, condition=Condition(parts, ATTEMPTS, tuple(rules))) if parts or rules else base

    def notes(self) -> list[str]:
        """What is said of rules that known cells break."""
        return [
            f"the rule {quoted(text)} cannot be kept in {number:,} rows, whose known cells break it"
            for text, number in self.broken.items()
        ]


def constraints_of(
    model: "Model", *, where: Mapping[str, Any] | None, rules: Sequence[str] | None, is_mode: bool
) -> Constraints | None:
    """None where nothing is asked for; `rules` None: those that the model was trained with, which likeliest values do
    not look at. Raises ServiceError for what cannot be asked for."""
    if is_mode:
        for name, own in (("where", where), ("rules", rules)):
            if own:
                raise ServiceError("invalid_request", f"mode and {name} exclude each other", param=name)
        return None
    found = row_rules(model, rules)
    tokenizer = model.tokenizer
    assert isinstance(tokenizer, TableTokenizer)
    if found.unique and rules:
        message = f'the rule "{found.unique[0].text}" is about all rows, of which only empty cells are filled here'
        raise ServiceError("invalid_request", message, param="rules")
    read = [tokenizer.rule_book.read(text) for text in found.texts or ()]
    try:
        shares = {} if where is None else tokenizer.condition(where, length=tokenizer.length)
    except PromptError as error:
        param = "where" if error.param is None else f"where.{error.param}"
        raise ServiceError("invalid_request", str(error), param=param) from None
    parts = {i: tuple(Part(*own) for own in of) for i, of in shares.items()}
    kept = tuple(rule for rule in read if not isinstance(rule, Unique))
    return Constraints(tokenizer, parts, kept) if parts or kept else None
