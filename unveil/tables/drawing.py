"""Rows of a table, however many: with shares of values that are met exactly, and rules about all rows of a file."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from unveil.engine.request.errors import ServiceError
from unveil.engine.request.planning import Sample
from unveil.model.errors import PromptError, UnveilError
from unveil.model.tokenizers.base import Tokenizer
from unveil.model.tokenizers.table.rules.book import together
from unveil.model.tokenizers.table.rules.kinds import Unique
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.wording import quoted, shown

if TYPE_CHECKING:
    from unveil.api import Model

Shares = Mapping[str, Mapping[Any, float]]
_SLACK = 1e-6  # of a sum of shares
_MOST_REPEATS = 1_000  # rows drawn for one that may not repeat another


class RowRules(NamedTuple):
    """`texts`: the rules that canvases keep, None for the model's own; `unique`: columns in which no row repeats."""

    texts: list[str] | None
    unique: tuple[Unique, ...]


def row_rules(model: "Model", rules: Sequence[str] | None) -> RowRules:
    """Rules, None for the model's own, told apart. Of a pair that the model was not trained with, what stood together
    is read from the training table. Raises UnveilError for what is no rule, or where the table is not there."""
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, TableTokenizer):
        return RowRules(None if rules is None else list(rules), ())
    if isinstance(rules, str) or not all(isinstance(text, str) for text in rules or ()):
        raise UnveilError(f"rules must be a list of texts, got {rules!r}", param="rules")
    texts = list(tokenizer.rules if rules is None else rules)
    book = tokenizer.rule_book
    try:
        missing = [columns for text in texts if (columns := book.unknown(text)) is not None]
        if missing:
            tokenizer = _with_pairs(model, tokenizer, missing)
        read = {text: tokenizer.rule_book.read(text) for text in texts}
    except PromptError as error:
        raise ServiceError("invalid_request", str(error), param="rules") from None
    unique = tuple(rule for rule in read.values() if isinstance(rule, Unique))
    return RowRules([text for text, rule in read.items() if not isinstance(rule, Unique)], unique)


def _with_pairs(model: "Model", tokenizer: TableTokenizer, missing: Sequence[tuple[int, ...]]) -> TableTokenizer:
    """The model's tokenizer, which from now on knows what stood together in these columns."""
    import numpy as np

    from unveil.commands.training import training_data

    dataset = training_data(model.folder)
    ids = np.concatenate([dataset.train, dataset.validation, dataset.test])
    known = [together([tokenizer.columns[i].name for i in own], ids[:, own]) for own in missing]
    found = tokenizer.with_rules(tokenizer.rules, known=known)
    model.take_tokenizer(found)
    return found


def begun_rows(
    tokenizer: Tokenizer, prompt: Any, shares: Shares, *, num: int, seed: int
) -> list[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """Prompts of so many rows, each after what tells it from others. Raises ServiceError naming the column.

    Of every column in `shares` its values stand in so many rows, to the nearest whole row, drawn without regard to
    other columns.
    """
    if not isinstance(tokenizer, TableTokenizer):
        raise _refused("shares are of a table's columns", param="shares")
    if not isinstance(shares, Mapping) or not isinstance(prompt, Mapping):
        what = (
            "shares must be a mapping of columns" if isinstance(prompt, Mapping) else "shares take one row as a prompt"
        )
        raise _refused(what, param="shares")
    chance, columns = random.Random(seed), list[list[Any]]()
    for name, own in shares.items():
        try:
            tokenizer.position(name)
        except PromptError as error:
            raise _refused(f"shares: {error}", param="shares") from None
        if prompt.get(name) is not None:
            raise _refused(f"shares: {shown(name)} is given by the prompt", param=name)
        values = _spread(name, own, num)
        chance.shuffle(values)
        columns.append(values)
    every = zip(*columns, strict=True) if columns else ((),) * num
    return [(own, {**prompt, **dict(zip(shares, own, strict=True))}) for own in every]


def _spread(name: str, shares: Mapping[Any, float], num: int) -> list[Any]:
    """Each value so often that its count is within one of its share, the largest remainders rounded up."""
    if not isinstance(shares, Mapping) or not shares:
        raise _refused(f"shares: {shown(name)} must have values with shares, got {shares!r}", param=name)
    for value, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise _refused(f"shares: {quoted(value)} must be a share from 0 to 1, got {share!r}", param=name)
    total = math.fsum(shares.values())
    if abs(total - 1) > _SLACK:
        raise _refused(f"shares: those of {shown(name)} must sum to 1, got {total:g}", param=name)
    wanted = {value: share / total * num for value, share in shares.items()}
    counts = {value: math.floor(own) for value, own in wanted.items()}
    by_remainder = sorted(wanted, key=lambda value: counts[value] - wanted[value])
    for value in by_remainder[: num - sum(counts.values())]:
        counts[value] += 1
    return [value for value, count in counts.items() for _ in range(count)]


def _refused(message: str, *, param: str) -> ServiceError:
    return ServiceError("invalid_request", message, param=param)


class Draw(NamedTuple):
    """A row to draw: how it begins, and which draw of a prompt it is, from which its seed follows."""

    sample: Sample
    prompt_index: int
    number: int


Rows = Callable[[Iterable[Draw]], Iterator[Sequence[Any]]]
"""What draws them: all values of each row."""


def without_repeats(rows: Rows, draws: Iterable[Draw], unique: Sequence[Unique]) -> Iterator[Sequence[Any]]:
    """Rows of which none repeats another in columns that must be unique; what does is drawn again, from as it began.

    Raises UnveilError where nothing new is found.
    """
    if not unique:
        yield from rows(draws)
        return
    seen: list[set[tuple[Any, ...]]] = [set() for _ in unique]
    left, repeats = list(draws), 0
    number = max((draw.number for draw in left), default=0)
    while left:
        again = list[Draw]()
        for draw, values in zip(left, rows(left), strict=True):
            keys = [tuple(values[i] for i in rule.columns) for rule in unique]
            if not any(key in own for key, own in zip(keys, seen, strict=True)):
                for key, own in zip(keys, seen, strict=True):
                    own.add(key)
                yield values
                repeats = 0
                continue
            number, repeats = number + 1, repeats + 1
            again.append(draw._replace(number=number))
            if repeats > _MOST_REPEATS:
                names = ", ".join(shown(rule.text) for rule in unique)
                raise UnveilError(
                    f"{names}: {repeats:,} rows in turn repeat others; the model has too few", param="rules"
                )
        left = again
