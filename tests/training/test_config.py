"""Recipes: every shipped one is valid, and every mistake gets one line that names the key."""

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.training.small import small_recipe
from unveil.model.errors import UnveilError
from unveil.training.config import Recipe, build_recipe, data_of, load_recipe, settle, table_recipe
from unveil.training.data.config import TableData
from unveil.training.levels import Table, is_advanced, keys, tables
from unveil.training.order_config import GlobalOrder

RECIPES = sorted(Path(__file__).parents[2].glob("training/recipes/**/*.toml"))


def test_there_are_recipes() -> None:
    assert "adult" in [path.stem for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert load_recipe(path).name


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimiser.steps=3", "optimiser: unknown key"),
        ("optimizer.stepz=3", "optimizer.stepz: unknown key"),
        ("optimizer.steps=0", "optimizer.steps: Input should be greater than or equal to 1"),
        ("optimizer.steps=many", "optimizer.steps: Input should be a valid integer"),
        ("optimizer.ema_decay=0.9", "optimizer.ema_decay: unknown key; it is advanced.optimizer.ema_decay"),
        ("advanced.optimizer.ema_decay=2", "advanced.optimizer.ema_decay: Input should be less than 1"),
        ("advanced.optimizer.ema=2", "advanced.optimizer.ema: unknown key"),
        ("advanced.optimizer.steps=2", "advanced.optimizer.steps: unknown key; it is optimizer.steps"),
        ("advanced.optimiser.ema_decay=2", "advanced.optimiser: unknown key"),
        ("advanced.run=2", "advanced.run: must be a table"),
        ("advanced=2", "advanced: must be a table, such as [advanced.optimizer]"),
        ("advanced.optimizer.accumulate=3", "optimizer: batch_size 32 is not a multiple of accumulate 3"),
        ("model.heads=3", "model: width 16 is not a multiple of heads 3"),
        ("prompts.share=1.5", "prompts.share: Input should be less than or equal to 1"),
        ("order.method=contextual", "order: Input tag 'contextual' found using 'method' does not match any of"),
        ("order.method=fixed", "order.positions: Field required"),
        ("order.branches=3", 'order.branches: unknown key with method = "global"'),
        ("order.stride=3", 'order.stride: unknown key with method = "global"'),
        ("advanced.order.bare=0.5", 'advanced.order.bare: unknown key with method = "global"'),
        ("data.length=5", 'data.length: unknown key with kind = "table"'),
        ("advanced.data.puzzles=5", 'advanced.data.puzzles: unknown key with kind = "table"'),
        ("advanced.optimizer.betas=[2.0,0.9]", "advanced.optimizer.betas.0: Input should be less than 1"),
        ("seed=20241128123456", "seed: Input should be less than or equal to 1000000000000"),
        ("run.threads=100000000000", "run.threads: Input should be less than or equal to 1024"),
        ("name=../up", "name: String should match pattern"),
        ("data.kind=opera", "data: Input tag 'opera'"),
    ],
)
def test_a_wrong_key_gets_one_line_that_names_it(override: str, line: str) -> None:
    with pytest.raises(UnveilError) as caught:
        small_recipe(override)
    assert str(caught.value).startswith(f"small: {line}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.steps", "--set optimizer.steps: must be key=value"),
        ("name.first=3", "--set name.first=3: name has no keys of its own"),
    ],
)
def test_an_override_that_cannot_be_read_is_quoted(override: str, line: str) -> None:
    with pytest.raises(UnveilError, match=line):
        small_recipe(override)


FROZEN = "start={artifact = 'x', freeze_denoiser = true}"
GRID = {"name": "grid", "data": {"kind": "sudoku"}}


def test_muon_moves_matrices_but_of_grids_and_of_looped_networks() -> None:
    grid = build_recipe({**GRID}, source="x")
    given = build_recipe({**GRID}, overrides=["advanced.optimizer.matrix_rate=0.01"], source="x")
    recipes = small_recipe(), small_recipe("advanced.model.num_loops=2"), grid, given
    assert [recipe.matrix_rate for recipe in recipes] == [0.02, 0.0, 0.0, 0.01]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["advanced.model.query_layers=1", "advanced.model.num_loops=2"],
            "advanced.model.query_layers: must be 0 with advanced.model.num_loops above 1",
        ),
        (
            ["order.method=uniform", "advanced.order.bare=0.2"],
            "advanced.order.bare: is only valid with advanced.model.query_layers = 0",
        ),
        ([FROZEN, "advanced.optimizer.matrix_rate=0.01"], "advanced.optimizer.matrix_rate: is not valid with a frozen"),
        ([FROZEN, "advanced.order.spread=0.2"], "advanced.order.spread: is not valid with a frozen denoiser"),
        (
            ["advanced.order={reading = 0.5, warmup = 0.0, anneal = 0.0, exploration = 0.0}"],
            "reading: must be 0 where warmup, anneal and exploration are",
        ),
        (
            ["advanced.order={warmup = 0.4, searches = [0.3]}"],
            "searches: times must be after the warm-up, which ends at 0.4, and before 1",
        ),
        (["advanced.order.searches=[1.0]"], "searches: times must be after the warm-up"),
        (["advanced.order.searches=[0.6, 0.5]"], "searches: times must rise"),
        (["advanced.order.searches=[0.5, 0.5]"], "searches: times must rise"),
        (["order.method=uniform", "advanced.order.searches=[0.5]"], "advanced.order.searches: unknown key with method"),
        (["order.method=uniform", "advanced.order.reading=0.5"], "advanced.order.reading: unknown key with method"),
    ],
)
def test_what_would_be_ignored_is_refused_in_one_line(overrides: list[str], line: str) -> None:
    with pytest.raises(UnveilError, match=re.escape(line)) as caught:
        small_recipe(*overrides)
    assert "\n" not in str(caught.value)


def test_rows_are_asked_late_unless_a_network_loops_or_the_recipe_says_otherwise() -> None:
    loops = "advanced.model.num_loops=2"
    assert (small_recipe().query_layers, small_recipe(loops).query_layers) == (2, 0)
    assert Recipe.of(GRID).query_layers == 0
    with pytest.raises(UnveilError, match=r'^grid: advanced.model.query_layers: must be 0 with data.kind = "sudoku"$'):
        build_recipe({**GRID, "advanced": {"model": {"query_layers": 1}}}, source="grid")
    given = [small_recipe(f"advanced.model.query_layers={n}").query_layers for n in (0, 3)]
    assert given == [0, 3]
    fields = {"name": "t", "data": {"kind": "adult"}}
    without = {**fields, "advanced": {"model": {"query_layers": 0}}}
    assert [build_recipe(dict(own), source="t").layers for own in (fields, without)] == [1, 2]
    assert small_recipe(loops, "advanced.model.query_layers=0").query_layers == 0
    bare = ("order.method=uniform", "advanced.order.bare=0.2")
    for masked in (loops, "advanced.model.query_layers=0", "start.artifact=x"):  # an artifact says itself what it is
        assert small_recipe(*bare, masked).order.shows_bare_rows


def test_orders_are_searched_for_at_the_end_of_the_warm_up_and_later() -> None:
    def times(*overrides: str) -> tuple[float, ...]:
        order = small_recipe(*overrides).order
        assert isinstance(order, GlobalOrder)
        return order.search_times

    assert times() == (0.25, 0.5, 0.7)
    assert times("advanced.order.warmup=0.5") == (0.5, 0.7)
    assert times("advanced.order.searches=[]") == (0.25,)
    assert times("advanced.order.searches=[0.9]") == (0.25, 0.9)


def test_an_order_without_a_method_is_global_and_a_reading_order_has_a_name() -> None:
    assert small_recipe("advanced.order.warmup=0.5").order == GlobalOrder(warmup=0.5)
    backwards = small_recipe("order={method = 'fixed', positions = 'right_to_left'}").order
    assert backwards.fixed_order(4) == (3, 2, 1, 0)
    assert backwards.uniform_share(0.0) == GlobalOrder().uniform_share(0.0), "a fair control"


@pytest.mark.parametrize("method", ["uniform", "fixed", "global", "next_cost", "cost_to_go"])
def test_a_recipe_is_dumped_as_its_file_is_written(method: str) -> None:
    positions = ["order.positions=left_to_right"] if method == "fixed" else []
    recipe = small_recipe(f"order.method={method}", *positions, "start.artifact=x", "advanced.data.seed=7")
    fields = recipe.model_dump(mode="json")
    assert fields["advanced"]["data"]["seed"] == 7
    assert "seed" not in fields["data"]
    assert Recipe.model_validate(fields) == recipe
    assert build_recipe(fields, source="again").fingerprint() == recipe.fingerprint()
    assert data_of(fields) == recipe.data


def test_code_may_leave_it_to_the_models_which_keys_are_advanced() -> None:
    flat = {"name": "x", "data": {"kind": "kjv", "stride": 3}, "order": {"method": "global", "warmup": 0.5}}
    written = {
        "name": "x",
        "data": {"kind": "kjv"},
        "order": {"method": "global"},
        "advanced": {"data": {"stride": 3}, "order": {"warmup": 0.5}},
    }
    assert Recipe.of(flat) == build_recipe(written, source="written")


# Keys of Bayesian networks, which are on their way out of recipes.
PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def documented(section: str) -> dict[str, str]:
    """Of a section of the page, each key and its default as its table has them."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return {row[1]: row[2] for row in re.finditer(r"^\| `([^`]+)` \| ([^|]*?) \|", text, re.MULTILINE)}


def defaults(advanced: bool) -> dict[str, set[str]]:
    """Each key with the defaults that it has, as TOML; a key without one says nothing."""
    found: dict[str, set[str]] = {}
    for name, table in {"": Table((Recipe,), None), **tables(Recipe)}.items():
        for model in table.models:
            for key, field in model.model_fields.items():
                path = ".".join([*(["advanced"] if is_advanced(model, key) else []), *([name] if name else []), key])
                default = field.get_default(call_default_factory=True) if not field.is_required() else None
                is_said = default not in (None, "", (), {}) and not isinstance(default, BaseModel)
                found.setdefault(path, set()).update([as_toml(default)] if is_said else [])
    return {path: found[path] for path in found if path.startswith("advanced.") == advanced}


def as_toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    return json.dumps(value)


@pytest.mark.parametrize(("section", "advanced"), [("Keys", False), ("Advanced keys", True)])
def test_the_page_lists_every_key_with_its_default(section: str, advanced: bool) -> None:
    listed, there = documented(section), set(keys(Recipe, advanced=advanced))
    assert set(listed) == there
    for key, known in defaults(advanced).items():
        if key in there and key not in ("data.kind", "order.method"):
            said = set(re.findall(r"`([^`]+)`", listed[key]))
            assert said == known, key


def test_people_see_fewer_than_forty_keys_and_the_page_says_how_many() -> None:
    seen = set(keys(Recipe, advanced=False))
    assert len(seen) < 40
    assert f"**{len(seen)} keys**" in PAGE.read_text(encoding="utf-8")


def test_overrides_are_toml_values_and_bare_words_are_strings() -> None:
    recipe = small_recipe(
        "optimizer.steps=7", "order.method=uniform", "advanced.optimizer.betas=[0.8, 0.9]", 'name="other"'
    )
    assert (recipe.optimizer.steps, recipe.order.method, recipe.name) == (7, "uniform", "other")
    assert recipe.optimizer.betas == (0.8, 0.9)


def test_a_recipe_that_is_not_there_or_not_toml_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnveilError, match="no such recipe"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = [")
    with pytest.raises(UnveilError, match="not readable as TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_only_what_decides_the_weights_is_in_the_fingerprint() -> None:
    base = small_recipe().fingerprint()
    assert small_recipe("advanced.run.log_every=9", "description=x", "license=y").fingerprint() == base
    assert small_recipe("optimizer.steps=13").fingerprint() != base
    assert small_recipe("seed=1").fingerprint() != base


def test_a_table_needs_no_recipe(tmp_path: Path) -> None:
    recipe = table_recipe(tmp_path / "mine.csv", name="mine", overrides=["data.drop=['id']"])
    assert isinstance(recipe.data, TableData)
    assert (recipe.data.path, recipe.data.drop) == (tmp_path / "mine.csv", ("id",))
    with pytest.raises(UnveilError, match=r"data\.dropp: unknown key"):
        table_recipe(tmp_path / "mine.csv", name="mine", overrides=["data.dropp=1"])


def test_errors_inside_a_union_name_the_key_without_the_tag() -> None:
    with pytest.raises(UnveilError, match=r"^r: data.path: Field required$"):
        build_recipe({"name": "x", "data": {"kind": "table"}}, source="r")


def test_steps_left_out_follow_from_the_number_of_rows_within_bounds(tmp_path: Path) -> None:
    open_ended = table_recipe(tmp_path / "mine.csv", name="mine")
    assert [settle(open_ended, num_rows=n).optimizer.steps for n in (10, 10_000, 10_000_000)] == [500, 1875, 8000]
    sizes = [settle(open_ended, num_rows=n).optimizer.batch_size for n in (10, 5_000, 10_000, 16_384, 10**7)]
    assert sizes == [32, 64, 128, 256, 256]
    own = table_recipe(tmp_path / "mine.csv", name="mine", overrides=["optimizer.batch_size=100"])
    assert settle(own, num_rows=10).optimizer.batch_size == 100
    masked = table_recipe(tmp_path / "mine.csv", name="mine", overrides=["advanced.model.query_layers=0"])
    assert settle(masked, num_rows=10_000).optimizer.steps == 2343
    given = table_recipe(tmp_path / "mine.csv", name="mine", overrides=["optimizer.steps=7"])
    assert settle(given, num_rows=10_000).optimizer.steps == 7
