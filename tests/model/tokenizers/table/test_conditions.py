"""Conditions on columns: the shares of each bin against all of its values, one by one, and a line for each mistake."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from unveil.model.errors import PromptError
from unveil.model.tokenizers.base import Template, condition_of
from unveil.model.tokenizers.smiles import SmilesTokenizer
from unveil.model.tokenizers.table.columns import MISSING
from unveil.model.tokenizers.table.conditions import shares_of
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.text import TextTokenizer

RNG = np.random.default_rng(0)
N = 2_000
AGES = RNG.integers(17, 91, N).astype(np.float64)
HEIGHTS = RNG.normal(170.0, 10.0, N)
PRICES = np.where(RNG.random(N) < 0.3, np.nan, np.round(RNG.gamma(2.0, 20.0, N), 2))
DAYS = RNG.integers(18_000, 19_000, N).astype(np.float64)  # 2019-04-14 to 2022-01-08
STATES = np.array([None if x < 0.1 else "CA" if x < 0.5 else "NY" if x < 0.8 else "TX" for x in RNG.random(N)], object)
TABLE = TableTokenizer.fit(
    {"age": AGES, "height": HEIGHTS, "price": PRICES, "day": DAYS, "state": STATES},
    max_bins=12,
    date_formats={"day": "YYYY-MM-DD"},
)
COLUMNS = {column.name: column for column in TABLE.columns}
CASES: dict[str, tuple[str, Any, Callable[[Any], bool]]] = {
    "range": ("age", {"min": 30, "max": 40}, lambda x: 30 <= x <= 40),
    "open range": ("age", {"min": 71}, lambda x: x >= 71),
    "one number": ("age", 44, lambda x: x == 44),
    "numbers": ("age", [20, 21, 65], lambda x: x in (20, 21, 65)),
    "no number": ("age", {"not": [20, 21, 65]}, lambda x: x not in (20, 21, 65)),
    "outside a range": ("age", {"not": {"min": 30, "max": 40}}, lambda x: not 30 <= x <= 40),
    "strict": ("age", {"after": 30, "before": 34}, lambda x: 30 < x < 34),
    "floats": ("height", {"min": 165.5, "max": 166.25}, lambda x: 165.5 <= x <= 166.25),
    "decimals": ("price", {"max": 17.35}, lambda x: x != MISSING and x <= 17.35),
    "missing or more": ("price", {"not": {"max": 80}}, lambda x: x == MISSING or x > 80),
    "there": ("price", {"not": None}, lambda x: x != MISSING),
    "not there": ("price", None, lambda x: x == MISSING),
    "dates": ("day", {"min": "2020-01-01", "max": "2020-12-31"}, lambda x: "2020-01-01" <= x <= "2020-12-31"),
    "after": ("day", {"after": "2021-06-30"}, lambda x: x > "2021-06-30"),
    "levels": ("state", ["CA", "NY"], lambda x: x in ("CA", "NY")),
    "level or missing": ("state", ["CA", None], lambda x: x in ("CA", MISSING)),
    "no level": ("state", {"not": "CA"}, lambda x: x != "CA"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_shares_are_those_of_the_values_that_are_shown(name: str) -> None:
    """A grid finer than any jump of a bin's quantiles; at its joints rounding may decide either way."""
    column_name, condition, is_wanted = CASES[name]
    column, parts = COLUMNS[column_name], shares_of(COLUMNS[column_name], condition)
    assert all(0.0 <= part.low < part.high <= 1.0 for part in parts)
    grid = (np.arange(4_001) + 0.5) / 4_001
    num_wanted = 0
    for token_id in range(column.vocabulary_size):
        own = [part for part in parts if part.token_id == token_id]
        assert all(a.high <= b.low for a, b in pairwise(own))
        for u in grid.tolist():
            is_inside = any(part.low < u < part.high for part in own)
            is_joint = any(abs(u - end) < 1e-9 for part in own for end in (part.low, part.high))
            wanted = is_wanted(column.value(token_id, u))
            num_wanted += wanted
            assert is_inside == wanted or is_joint, (token_id, u, column.value(token_id, u))
    assert num_wanted > 0


@pytest.mark.parametrize(
    ("column", "condition", "line"),
    [
        ("age", {"min": 300}, 'age has nothing that is {"min": 300}; it is an integer between 17 and 90'),
        ("age", {"min": 40, "max": 30}, "age has nothing that is "),
        ("age", {"not": {"min": 0}}, "age has nothing that is "),
        ("age", {"mim": 3}, 'age: a condition is a value, a list of values, {"not": ...}, a range by min, max, after'),
        ("age", {}, "age: a condition is a value"),
        ("age", {"not": {"not": 3}}, "age: a condition is a value"),
        ("age", list(range(300)), "age: 300 values are listed; a condition takes at most 256"),
        ("age", {"not": 3, "min": 4}, "age: a condition is a value"),
        ("age", {"min": "a"}, 'age is compared with a number, got "a"'),
        ("age", True, "age is compared with a number, got true"),
        ("age", [], "age: the list of its values is empty"),
        ("age", None, "age has no missing values"),
        ("day", {"min": "2020-02-30"}, 'day is compared with a date as YYYY-MM-DD, got "2020-02-30"'),
        ("state", "FL", 'state must be one of CA, NY, TX, [MISSING], got "FL"'),
        ("state", {"min": 3}, 'state: a condition is a value, a list of values, {"not": ...}; got {"min": 3}'),
        ("state", {"not": ["CA", "NY", "TX", None]}, "state has nothing that is "),
    ],
)
def test_a_mistake_gets_one_line_that_names_the_column(column: str, condition: Any, line: str) -> None:
    with pytest.raises(PromptError) as caught:
        shares_of(COLUMNS[column], condition)
    assert str(caught.value).startswith(line)
    assert caught.value.param == column


def test_a_column_that_the_prompt_gives_takes_no_condition_and_others_are_found_by_place() -> None:
    template = TABLE.encode({"age": 39})
    assert list(condition_of(TABLE, {"state": "CA", "day": {"min": "2021-01-01"}}, template)) == [4, 3]
    with pytest.raises(PromptError, match=r"^age is given by the prompt$") as caught:
        condition_of(TABLE, {"age": {"min": 30}}, template)
    assert caught.value.param == "age"
    with pytest.raises(PromptError, match='unknown column "agee"; did you mean "age"'):
        condition_of(TABLE, {"agee": 3}, template)
    wrong: tuple[Any, ...] = ({}, [], "age")
    for where in wrong:
        with pytest.raises(PromptError, match="a table's condition must be an object of columns"):
            condition_of(TABLE, where, template)


def test_sequences_list_the_tokens_that_may_be_drawn_or_may_not() -> None:
    smiles = SmilesTokenizer.train(["CCO", "c1ccccc1", "BrCC"], length=8, default_length=8)
    template = smiles.encode("C[MASK:3]")
    hidden = [i for i, own in enumerate(template.hidden) if own]
    banned = condition_of(smiles, {"ban": ["Br", "O"]}, template)
    assert list(banned) == hidden
    shown = {smiles.token(0, share.token_id) for share in banned[hidden[0]]}
    assert shown == set(smiles.tokens) - {"Br", "O"}
    allowed = condition_of(smiles, {"allow": ["C"]}, template)[hidden[0]]
    assert {smiles.token(0, share.token_id) for share in allowed} == {"C", smiles.tokens[0]}, "an end may always stand"
    for where, line in (
        ({"ban": ["Xx"]}, '"Xx" is no token of this model'),
        ({"ban": []}, "ban must be a list of tokens"),
        ({"allow": ["C"], "ban": ["O"]}, "a condition on tokens is"),
        ({"ban": list(smiles.tokens[1:])}, "ban leaves no token"),
    ):
        with pytest.raises(PromptError, match=line):
            condition_of(smiles, where, template)


def test_a_text_knows_its_pieces_by_name() -> None:
    text = TextTokenizer.train_characters(["abcab"], length=6, default_length=3)
    template: Template = text.encode("a[MASK:2]")
    found = condition_of(text, {"ban": ["c"]}, template)
    assert {text.token(0, share.token_id) for share in found[1]} == {"a", "b"}
    assert set(found) == {1, 2}
