"""The rules of a request, or of its model, as one prompt leaves them: what canvases are asked to keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from unveil.engine.catalog import ServedModel
from unveil.engine.request.errors import ServiceError
from unveil.model.decoding.canvas import Part, Shown
from unveil.model.errors import PromptError
from unveil.model.tokenizers.base import Template, Value
from unveil.model.tokenizers.table.columns import CategoricalColumn, Column
from unveil.model.tokenizers.table.conditions import number_in
from unveil.model.tokenizers.table.rules.kinds import Comparison, RowRule, Unique, exact
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.wording import shown


@dataclass(frozen=True, slots=True)
class BoundRule:
    """A rule of a table beside what one prompt gives. Satisfies `model.decoding.canvas.Rule`."""

    rule: RowRule

    @property
    def positions(self) -> tuple[int, ...]:
        return self.rule.positions

    def allowed(self, position: int, known: Mapping[int, Shown]) -> tuple[Part, ...] | None:
        shares = self.rule.allowed(position, known)
        return None if shares is None else tuple(Part(*share) for share in shares)

    def holds(self, known: Mapping[int, Shown]) -> bool:
        return self.rule.holds(known)


class Named(NamedTuple):
    """A rule, and the field that names it."""

    param: str
    rule: RowRule


def read_rules(rules: Sequence[str] | None, model: ServedModel) -> list[Named]:
    """Rules as written, None for those of the model. Raises ServiceError (422) for what is no rule, and for one about
    whole files; of the model's own such ones are passed over."""
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, TableTokenizer):
        if rules:
            message = f"rules are between the columns of a table, and this is a {model.manifest.domain} model"
            raise ServiceError("invalid_request", message, param="rules")
        return []
    found = []
    for index, text in enumerate(tokenizer.rules if rules is None else rules):
        param = "rules" if rules is None else f"rules.{index}"
        try:
            rule = tokenizer.rule_book.read(text)
        except PromptError as error:
            raise ServiceError("invalid_request", str(error), param=param) from None
        if not isinstance(rule, Unique):
            found.append(Named(param, rule))
        elif rules is not None:
            message = f'the rule "{shown(text)}" is about the rows of a whole file: unveil generate --out keeps it'
            raise ServiceError("invalid_request", message, param=param)
    return found


def bound_rules(rules: Sequence[Named], model: ServedModel, template: Template) -> tuple[BoundRule, ...]:
    """Those that a template leaves open. Raises ServiceError (422) for a template that breaks one."""
    tokenizer, bound = model.tokenizer, []
    for param, rule in rules:
        assert isinstance(tokenizer, TableTokenizer)
        own = given(rule, tokenizer, template)
        _check(own, param)
        bound += [BoundRule(own)] if own.positions else []
    return tuple(bound)


def given(rule: RowRule, tokenizer: TableTokenizer, template: Template) -> RowRule:
    """With what the template knows."""
    ids = {i: token_id for i, token_id in enumerate(template.tokens) if not template.hidden[i]}
    if not isinstance(rule, Comparison):
        return rule.given(ids)
    terms = [term.position for term in rule.terms if term.position in ids]
    return rule.given({i: _number(tokenizer.columns[i], template.known[i], ids[i]) for i in terms})


def _number(column: Column, value: Value, token_id: int) -> Fraction | None:
    assert not isinstance(column, CategoricalColumn)
    return None if token_id == len(column.bins) else exact(number_in(column, value))


def _check(rule: RowRule, param: str) -> None:
    """Raises ServiceError where the template leaves nothing that keeps the rule, as far as it can be seen."""
    is_broken = not rule.holds({}) if not rule.positions else rule.allowed(rule.positions[0], {}) == ()
    if is_broken:
        message = f'no row with this prompt can keep the rule "{shown(rule.text)}"'
        raise ServiceError("invalid_request", message, param=param)
