"""Rules between the columns of a training table: those that a recipe names, kept with the model, and those to be found.

What is found holds in every row of the file, and would be broken by many rows if its columns had nothing to do with
each other. It is offered, and not kept unless it is named.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unveil.model.errors import PromptError, UnveilError
from unveil.model.tokenizers.table.columns import CategoricalColumn, Column, DateColumn, NumericColumn
from unveil.model.tokenizers.table.dates import FORMATS
from unveil.model.tokenizers.table.rules.book import together
from unveil.model.tokenizers.table.rules.kinds import COMPARES, Comparison, Unique
from unveil.model.tokenizers.table.table import Cells, TableTokenizer
from unveil.model.tokenizers.wording import quoted

Columns = Mapping[str, Cells]
_MOST_COLUMNS = 64  # of a kind; pairs and sums of more take long, and say little
_MOST_SUMMED = 24
_MOST_LEVELS = 256
_FEWEST_ROWS = 50
_BROKEN_BY_CHANCE = 0.05  # the share of shuffled rows that break what is worth offering, at least
_CLOSE = 1e-9  # of the largest number: what floats lose in a sum
Floats = NDArray[np.float64]


def with_rules(tokenizer: TableTokenizer, rules: Sequence[str], columns: Columns) -> tuple[TableTokenizer, list[str]]:
    """The tokenizer with these rules, and what stands together in the rows `columns` [N] of the whole file; and a
    notice for each rule that the file itself breaks. Raises UnveilError for what is no rule."""
    if not rules:
        return tokenizer, []
    try:
        known = [_together(tokenizer, own, columns) for rule in rules if (own := tokenizer.rule_book.unknown(rule))]
        tokenizer = tokenizer.with_rules(rules, known=known)
    except PromptError as error:
        raise UnveilError(f"data.rules: {error}") from None
    notices = []
    for text in rules:
        num_broken = _num_broken(tokenizer, text, columns)
        if num_broken:
            notices.append(
                f"the rule {quoted(text)} is broken by {num_broken:,} rows of the file; generated rows keep it"
            )
    return tokenizer, notices


def _together(tokenizer: TableTokenizer, positions: Sequence[int], columns: Columns) -> Any:
    own = [tokenizer.columns[i] for i in positions]
    ids = np.stack([column.ids(columns[column.name]) for column in own], axis=1)
    return together([column.name for column in own], ids)


def _num_broken(tokenizer: TableTokenizer, text: str, columns: Columns) -> int:
    rule = tokenizer.rule_book.read(text)
    if isinstance(rule, Comparison):
        numbers = [float(term.weight) * _numbers(columns[term.column.name]) for term in rule.terms]
        total = np.sum(numbers, axis=0) + float(rule.constant)
        slack = _CLOSE * max(float(np.nanmax(np.abs(part), initial=0.0)) for part in numbers)
        total = np.where(np.abs(total) <= slack, 0.0, total)
        return int((~COMPARES[rule.sign](total, 0) & ~np.isnan(total)).sum())
    names = [tokenizer.columns[i].name for i in rule.columns]
    if isinstance(rule, Unique):
        rows = list(zip(*(columns[name].tolist() for name in names), strict=True))
        return len(rows) - len(set(rows))
    ids = np.stack([tokenizer.columns[i].ids(columns[name]) for i, name in zip(rule.columns, names, strict=True)], 1)
    return sum(tuple(row) not in rule.rows for row in ids.tolist())


def _numbers(cells: Cells) -> Floats:
    found: Floats = cells.astype(np.float64)
    return found


def found_rules(tokenizer: TableTokenizer, columns: Columns, *, seed: int = 0) -> list[str]:
    """Rules that hold in all rows [N] of a file, as `read_rule` reads them."""
    generator = np.random.default_rng(seed)
    return [*_orders(tokenizer, columns, generator), *_sums(tokenizer, columns, generator), *_pairs(tokenizer, columns)]


def _orders(tokenizer: TableTokenizer, columns: Columns, generator: np.random.Generator) -> Iterator[str]:
    for own in _comparable(tokenizer.columns):
        for a, b in permutations(own, 2):
            x, y = _both(columns[a.name], columns[b.name])
            if len(x) < _FEWEST_ROWS or not (x <= y).all() or (x == y).all():
                continue
            if (generator.permutation(x) > y).mean() >= _BROKEN_BY_CHANCE:
                yield f"{_named(a)} {'<' if (x < y).all() else '<='} {_named(b)}"


def _comparable(columns: Sequence[Column]) -> Iterator[list[NumericColumn | DateColumn]]:
    """Numbers; dates and times that count alike."""
    groups: dict[tuple[str, str], list[NumericColumn | DateColumn]] = {}
    for column in columns:
        if isinstance(column, DateColumn):
            own = FORMATS[column.format]
            groups.setdefault((own.noun, own.unit), []).append(column)
        elif isinstance(column, NumericColumn):
            groups.setdefault(("number", ""), []).append(column)
    yield from (group[:_MOST_COLUMNS] for group in groups.values())


def _sums(tokenizer: TableTokenizer, columns: Columns, generator: np.random.Generator) -> Iterator[str]:
    """a + b == c, where none of them is always zero."""
    own = [c for c in tokenizer.columns if isinstance(c, NumericColumn) and c.decimals is not None]
    own = [c for c in own if len(c.bins) > 2][:_MOST_SUMMED]
    cells = {c.name: _numbers(columns[c.name]) for c in own}
    for a, b in combinations(own, 2):
        total = cells[a.name] + cells[b.name]
        for c in own:
            if c is a or c is b:
                continue
            gap = np.abs(total - cells[c.name])
            there = ~np.isnan(gap)
            slack = _CLOSE * max(float(np.nanmax(np.abs(total), initial=0.0)), 1.0)
            if there.sum() < _FEWEST_ROWS or not (gap[there] <= slack).all():
                continue
            shuffled = np.abs(generator.permutation(total[there]) - cells[c.name][there])
            if (shuffled > slack).mean() >= _BROKEN_BY_CHANCE:
                yield f"{_named(a)} + {_named(b)} == {_named(c)}"


def _pairs(tokenizer: TableTokenizer, columns: Columns) -> Iterator[str]:
    """Columns of which one decides the other, each with several rows a level."""
    own = [c for c in tokenizer.columns if 3 <= c.vocabulary_size <= _MOST_LEVELS and _is_discrete(c)][:_MOST_COLUMNS]
    ids = {c.name: c.ids(columns[c.name]) for c in own}
    for a, b in combinations(own, 2):
        both = np.stack([ids[a.name], ids[b.name]], 1)
        both = both[(both >= 0).all(1)]
        sizes = [len(np.unique(both[:, i])) for i in range(2)]
        num = len(np.unique(both, axis=0))
        if min(sizes) >= 3 and num == max(sizes) and len(both) >= 10 * num:
            yield f"pair({_named(a)}, {_named(b)})"


def _is_discrete(column: Column) -> bool:
    return isinstance(column, CategoricalColumn) or all(own.low == own.high for own in column.bins)


def _both(x: Cells, y: Cells) -> tuple[Floats, Floats]:
    a, b = _numbers(x), _numbers(y)
    there = ~(np.isnan(a) | np.isnan(b))
    return a[there], b[there]


def _named(column: Column) -> str:
    """As a rule names it: in quotes where it is more than letters, digits and signs inside words."""
    is_plain = all(part.isalnum() for part in column.name.replace("_", "x").replace("-", "x").split())
    return column.name if is_plain and '"' not in column.name else json.dumps(column.name, ensure_ascii=False)
