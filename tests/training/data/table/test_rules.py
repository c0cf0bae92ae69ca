"""Rules that are found in a table, and those that a recipe names."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.data.config import TableData
from unveil.training.data.table.table import load_table, rules_found


def _shop(folder: Path, *, num: int = 400, broken: int = 0) -> Path:
    generator = np.random.default_rng(3)
    price = np.round(generator.uniform(1, 90, num), 2)
    tax = np.round(price * generator.choice([0.07, 0.19], num), 2)
    city = generator.choice(["Berlin", "Munich", "Paris", "Lyon", "Rome", "Turin"], num)
    country = {"Berlin": "DE", "Munich": "DE", "Paris": "FR", "Lyon": "FR", "Rome": "IT", "Turin": "IT"}
    begun = generator.integers(0, 300, num)
    ended = begun + generator.integers(0, 60, num)
    ended[:broken] = begun[:broken] - 5
    day = np.datetime64("2020-06-01")
    frame = pl.DataFrame(
        {
            "begun": [str(day + int(x)) for x in begun],
            "ended": [str(day + int(x)) for x in ended],
            "price": price,
            "tax": tax,
            "total": np.round(price + tax, 2),
            "city": city,
            "country": [country[x] for x in city],
            "plan": generator.choice(["A", "B", "C"], num),
        }
    )
    path = folder / "shop.csv"
    frame.write_csv(path)
    return path


def test_what_holds_in_every_row_is_found_and_what_would_hold_by_chance_is_not(tmp_path: Path) -> None:
    config = TableData(path=_shop(tmp_path))
    tokenizer = load_table(config).tokenizer
    assert isinstance(tokenizer, TableTokenizer)
    found = rules_found(config, tokenizer)
    assert {"begun <= ended", "price + tax == total", "pair(city, country)", "price < total"} <= set(found)
    assert not any("plan" in rule for rule in found)
    for rule in found:
        assert tokenizer.rule_book.unknown(rule) or tokenizer.rule_book.read(rule)


def test_named_rules_are_kept_with_the_model_and_a_broken_one_is_told(tmp_path: Path) -> None:
    rules = ("begun <= ended", "pair(city, country)", "price + tax == total")
    dataset = load_table(TableData(path=_shop(tmp_path, broken=7), rules=rules))
    assert isinstance(dataset.tokenizer, TableTokenizer)
    assert dataset.tokenizer.rules == rules
    assert dataset.tokenizer.rule_book.unknown("pair(city, country)") is None
    told = [notice for notice in dataset.summary["notices"] if "rule" in notice]
    assert told == ['the rule "begun <= ended" is broken by 7 rows of the file; generated rows keep it']


def test_what_is_no_rule_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UnveilError, match=r'data.rules: the rule "begun << ended"'):
        load_table(TableData(path=_shop(tmp_path), rules=("begun << ended",)))
