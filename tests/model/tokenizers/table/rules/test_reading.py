"""Rules as people write them: what each means, value by value, and a line for each mistake."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest

from unveil.model.errors import PromptError
from unveil.model.tokenizers.table.columns import MISSING
from unveil.model.tokenizers.table.rules.book import together
from unveil.model.tokenizers.table.rules.kinds import Comparison, Seen, Unique
from unveil.model.tokenizers.table.table import TableTokenizer

RNG = np.random.default_rng(0)
N = 400
PRICES = np.round(RNG.choice([0.1, 0.2, 0.3, 1.25, 2.5, 9.99], N), 2)
TAXES = np.where(RNG.random(N) < 0.2, np.nan, RNG.choice([0.1, 0.2, 0.5], N))
TOTALS = np.round(RNG.uniform(0.2, 12.0, N), 2)
SIGNUPS = RNG.integers(18_000, 18_100, N).astype(np.float64)
LOGINS = RNG.integers(18_050 * 86_400, 18_150 * 86_400, N).astype(np.float64)
CITIES = np.array(RNG.choice(["Bern", "Rom", "a < b"], N), dtype=object)
HOMES = np.array([None if x < 0.1 else "Rom" if x < 0.6 else "Wien" for x in RNG.random(N)], dtype=object)
TABLE = TableTokenizer.fit(
    {
        "price": PRICES,
        "tax": TAXES,
        "tax-total": TOTALS,
        "sign up": SIGNUPS,
        "login": LOGINS,
        "city": CITIES,
        "home": HOMES,
    },
    max_bins=8,
    date_formats={"sign up": "YYYY-MM-DD", "login": "YYYY-MM-DD hh:mm:ss"},
)
CASES: dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    "two numbers": ("price <= tax-total", lambda x: x["price"] <= x["tax-total"]),
    "a number": ("price > 1.25", lambda x: x["price"] > 1.25),
    "signs": ("-price + 3 >= -1 * tax-total", lambda x: 3 - x["price"] >= -x["tax-total"] - 1e-12),
    "a sum, exactly": ("price + tax == 0.3", lambda x: x["tax"] is None or round(x["price"] + x["tax"], 9) == 0.3),
    "unlike": ("price != 0.2", lambda x: x["price"] != 0.2),
    "twice": ("price * 2 < tax-total - price", lambda x: round(3 * x["price"] - x["tax-total"], 9) < 0),
    "dates and times": ("sign up <= login", lambda x: x["sign up"] + " 00:00:00" <= x["login"]),
    "a date": ('"sign up" < "2019-05-01"', lambda x: x["sign up"] < "2019-05-01"),
    "levels": ("city == home", lambda x: x["home"] is None or x["city"] == x["home"]),
    "other levels": ("city != home", lambda x: x["home"] is None or x["city"] != x["home"]),
}


def _row(tokenizer: TableTokenizer, shown: Mapping[int, tuple[int, float]]) -> dict[str, Any]:
    values = {tokenizer.name(i): tokenizer.value(i, *own) for i, own in shown.items()}
    return {name: None if value == MISSING else value for name, value in values.items()}


def _shown(position: int, generator: np.random.Generator) -> tuple[int, float]:
    return int(generator.integers(TABLE.columns[position].vocabulary_size)), float(generator.uniform(0.001, 0.999))


@pytest.mark.parametrize("name", CASES)
def test_a_rule_holds_for_the_values_that_are_shown_and_allows_just_those(name: str) -> None:
    """Of random rows, and of what is allowed at the last position once the others are known."""
    text, holds = CASES[name]
    rule = TABLE.rule_book.read(text)
    assert isinstance(rule, Comparison | Seen)
    generator, outcomes = np.random.default_rng(1), set[bool]()
    for _ in range(300):
        shown = {i: _shown(i, generator) for i in rule.positions}
        is_kept = holds(_row(TABLE, shown))
        assert rule.holds(shown) == is_kept, _row(TABLE, shown)
        outcomes.add(is_kept)
        for last in rule.positions:
            parts = rule.allowed(last, {i: own for i, own in shown.items() if i != last})
            token_id, uniform = shown[last]
            is_allowed = parts is None or any(p.token_id == token_id and p.low <= uniform < p.high for p in parts)
            assert is_allowed == is_kept, (last, _row(TABLE, shown))
    assert outcomes == {True, False} or name == "a sum, exactly"


def test_anything_is_allowed_as_long_as_others_are_open() -> None:
    rule = TABLE.rule_book.read("price + tax <= tax-total")
    assert isinstance(rule, Comparison)
    assert rule.allowed(0, {1: (0, 0.5)}) is None
    missing = TABLE.columns[1].vocabulary_size - 1
    every = rule.allowed(0, {1: (missing, 0.5), 2: (0, 0.5)})
    assert every is None, "a missing value keeps every rule"


def test_a_pair_is_what_stood_together_and_only_where_that_is_known() -> None:
    with pytest.raises(PromptError, match="not known to this model"):
        TABLE.rule_book.read("pair(city, home)")
    assert TABLE.rule_book.unknown("pair(city, home)") == (5, 6)
    known = together(["city", "home"], np.array([[0, 1], [1, 0], [0, 1], [2, -1]]))
    table = TABLE.with_rules(["pair(city, home)"], known=[known])
    rule = table.rule_book.read("pair(city, home)")
    assert isinstance(rule, Seen)
    assert rule.rows == {(0, 1), (1, 0)}
    assert [share.token_id for share in rule.allowed(6, {5: (1, 0.5)})] == [0]
    assert [share.token_id for share in rule.allowed(5, {})] == [0, 1]
    pairs = [(a, b) for a, b in product(range(3), repeat=2) if rule.holds({5: (a, 0.5), 6: (b, 0.5)})]
    assert pairs == [(0, 1), (1, 0)]
    assert rule.given({5: 0}).allowed(6, {}) == rule.allowed(6, {5: (0, 0.1)})


def test_rules_and_pairs_come_back_from_the_file(tmp_path: Any) -> None:
    known = together(["city", "home"], np.array([[0, 1]]))
    rules = ["pair(city, home)", "price < tax-total", "unique(login, city)"]
    TABLE.with_rules(rules, known=[known]).save(tmp_path / "tokenizer.json")
    back = TableTokenizer.load(tmp_path / "tokenizer.json")
    assert back.rules == tuple(rules)
    assert back.describe()["rules"] == rules
    assert isinstance(back.rule_book.read("pair(city, home)"), Seen)
    assert back.rule_book.read("unique(login, city)") == Unique("unique(login, city)", (4, 5))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("price", "has no <=, <, >=, >, ==, != at its end"),
        ("price <= ", "must name a column or a number, got its end; the columns are"),
        ("prize <= 3", 'must name a column or a number, got "prize <= 3"'),
        ("price <= 3 4", 'goes on with "4"'),
        ("price =< 3", 'got "< 3"'),
        ("price - price < 1", "must name a column that counts"),
        ('price < "x"', 'compares numbers, got "x"'),
        ("price < login", "compares"),
        ("login - sign up < 3", "with something else than one other date"),
        ('login < "yesterday"', "takes a date as YYYY-MM-DD hh:mm:ss"),
        ("city < home", "only == or != each other"),
        ('city == "Rom"', "only == or != each other"),
        ("pair(city)", "two at least"),
        ("pair(city, city)", "each another one"),
        ("pair(city; home)", "with commas between them"),
        ("unique(nothing)", "must name columns"),
        ("", "a text of 1 to 500 characters"),
        ("x" * 600, "a text of 1 to 500 characters"),
    ],
)
def test_a_mistake_gets_one_line(text: str, reason: str) -> None:
    with pytest.raises(PromptError) as error:
        TABLE.rule_book.read(text)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
