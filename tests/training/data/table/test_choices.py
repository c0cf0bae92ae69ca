"""What the command line says of columns, put into a recipe."""

from typing import Any

import pytest

from unveil.model.errors import UnveilError
from unveil.training.config import table_recipe
from unveil.training.data.config import ColumnChoice, TableData
from unveil.training.data.table.choices import ColumnOptions

TABLE = {"kind": "table", "path": "t.csv"}


def test_options_become_the_recipes_own_words() -> None:
    options = ColumnOptions(("a",), ("b",), ("c.1", "g=h", "i=j=1.234,5"), ("d", "e=f=DD.MM.YYYY"), ("9", "c.1=4"))
    assert options.put_into(dict(TABLE)) == {
        **TABLE,
        "drop": ["a"],
        "max_bins": 9,
        "columns": {
            "b": {"kind": "categorical", "format": None},
            "c.1": {"kind": "numeric", "format": None, "max_bins": 4},
            "g=h": {"kind": "numeric", "format": None},
            "i=j": {"kind": "numeric", "format": "1.234,5"},
            "d": {"kind": "date", "format": None},
            "e=f": {"kind": "date", "format": "DD.MM.YYYY"},
        },
    }


def test_options_go_before_what_the_recipe_says() -> None:
    recipe = {**TABLE, "drop": ["a", "b"], "columns": {"c": {"kind": "date"}, "d": {"max_bins": 3}}}
    found = ColumnOptions(drop=["c"], numeric=["a", "d"]).put_into(recipe)
    assert found["drop"] == ["b", "c"]
    assert found["columns"] == {"a": {"kind": "numeric", "format": None}, "d": {**_numeric(), "max_bins": 3}}


def _numeric() -> dict[str, Any]:
    return {"kind": "numeric", "format": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ColumnOptions(drop=["a"], date=["a=YYYYMMDD"]), 'column "a" is named by --drop and by --date'),
        (ColumnOptions(bins=["many"]), "--bins many: must be a number, or NAME=NUMBER"),
        (ColumnOptions(bins=["a=-3"]), "--bins a=-3: must be a number, or NAME=NUMBER"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: ColumnOptions, message: str) -> None:
    with pytest.raises(UnveilError) as caught:
        options.put_into(dict(TABLE))
    assert str(caught.value) == message


def test_only_a_table_of_the_users_own_takes_them() -> None:
    with pytest.raises(UnveilError, match=r"^--drop: is only valid with a table of yours; the recipe's data is adult$"):
        ColumnOptions(drop=["age"]).put_into({"kind": "adult"})
    assert ColumnOptions().put_into({"kind": "adult"}) == {"kind": "adult"}


def test_columns_of_any_name_can_be_set_by_key(tmp_path: Any) -> None:
    override = 'data.columns."a.b=c".kind="numeric"'
    recipe = table_recipe(tmp_path / "t.csv", name="t", overrides=[override, "data.columns.x.kind=date"])
    assert isinstance(recipe.data, TableData)
    assert recipe.data.columns == {"a.b=c": ColumnChoice(kind="numeric"), "x": ColumnChoice(kind="date")}
