"""Recipes: every shipped one is valid, and every mistake gets one line that names the key."""

from pathlib import Path

import pytest

from tests.training.small import small_recipe
from training.config import RecipeError, build_recipe, load_recipe, settle, table_recipe
from training.data.config import TableData

RECIPES = sorted(Path(__file__).parents[2].glob("training/recipes/**/*.toml"))


def test_there_are_recipes() -> None:
    assert "adult" in [path.stem for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert load_recipe(path).name


TEACHER_FORCING = ("optimizer.teacher_forcing=true", "model.attends=visible")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimiser.steps=3", "small: optimiser: unknown key"),
        ("optimizer.stepz=3", "small: optimizer.stepz: unknown key"),
        ("optimizer.steps=0", "small: optimizer.steps: Input should be greater than or equal to 1"),
        ("optimizer.steps=many", "small: optimizer.steps: Input should be a valid integer"),
        ("optimizer.accumulate=3", "small: optimizer: batch_size 32 is not a multiple of accumulate 3"),
        ("model.heads=3", "small: model: width 16 is not a multiple of heads 3"),
        ("prompts.share=1.5", "small: prompts.share: Input should be less than or equal to 1"),
        ("order.kind=contextual", "small: order: kind: contextual orders are learned for a frozen denoiser; set head"),
        ("prompts.bare=0.5", "small: recipe: prompts.bare: is only valid with order.kind uniform"),
        (
            "optimizer.teacher_forcing=true",
            'small: recipe: optimizer.teacher_forcing: is only valid with model.attends = "visible"',
        ),
        ("model.attends=nobody", "small: model.attends: Input should be 'all' or 'visible'"),
        ("order.signal=score", "small: order.signal: Input should be 'critic', 'foresight' or 'cost_to_go'"),
        ("order.kind=fixed", "small: order: fixed: lists every position if kind is fixed"),
        ("optimizer.betas=[2.0,0.9]", "small: optimizer.betas.0: Input should be less than 1"),
        ("seed=20241128123456", "small: seed: Input should be less than or equal to 1000000000000"),
        ("run.threads=100000000000", "small: run.threads: Input should be less than or equal to 1024"),
        ("name=../up", "small: name: String should match pattern"),
        ("data.kind=opera", "small: data: Input tag 'opera'"),
        ("optimizer.steps", "--set optimizer.steps: takes key=value"),
        ("name.first=3", "--set name.first=3: name has no keys of its own"),
    ],
)
def test_a_wrong_key_gets_one_line_that_names_it(override: str, line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        small_recipe(override)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model.loops=2", "optimizer.teacher_forcing: is only valid with model.loops 1"),
        ("start.freeze_denoiser=true", "optimizer.teacher_forcing: needs a denoiser that trains, and a"),
        ("order.spread=0.2", "order.spread: is not valid with optimizer.teacher_forcing"),
    ],
)
def test_what_teacher_forcing_would_ignore_is_refused(override: str, line: str) -> None:
    with pytest.raises(RecipeError, match=line):
        small_recipe(*TEACHER_FORCING, "start.artifact=x", override)


def test_overrides_are_toml_values_and_bare_words_are_strings() -> None:
    recipe = small_recipe("optimizer.steps=7", "order.kind=uniform", "optimizer.betas=[0.8, 0.9]", 'name="other"')
    assert (recipe.optimizer.steps, recipe.order.kind, recipe.name) == (7, "uniform", "other")
    assert recipe.optimizer.betas == (0.8, 0.9)


def test_a_recipe_that_is_not_there_or_not_toml_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = [")
    with pytest.raises(RecipeError, match="not readable as TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_only_what_decides_the_weights_is_in_the_fingerprint() -> None:
    base = small_recipe().fingerprint()
    assert small_recipe("run.log_every=9", "description=x", "license=y").fingerprint() == base
    assert small_recipe("optimizer.steps=13").fingerprint() != base
    assert small_recipe("seed=1").fingerprint() != base


def test_a_table_needs_no_recipe(tmp_path: Path) -> None:
    recipe = table_recipe(tmp_path / "mine.csv", name="mine", overrides=["data.drop=['id']"])
    assert isinstance(recipe.data, TableData)
    assert (recipe.data.path, recipe.data.drop) == (tmp_path / "mine.csv", ("id",))
    with pytest.raises(RecipeError, match=r"data\.dropp: unknown key"):
        table_recipe(tmp_path / "mine.csv", name="mine", overrides=["data.dropp=1"])


def test_errors_inside_a_union_name_the_key_without_the_tag() -> None:
    with pytest.raises(RecipeError, match=r"^r: data.path: Field required$"):
        build_recipe({"name": "x", "data": {"kind": "table"}}, source="r")


def test_steps_left_out_follow_from_the_number_of_rows_within_bounds(tmp_path: Path) -> None:
    open_ended = table_recipe(tmp_path / "mine.csv", name="mine")
    assert [settle(open_ended, num_rows=n).optimizer.steps for n in (10, 10_000, 10_000_000)] == [500, 2343, 8000]
    given = table_recipe(tmp_path / "mine.csv", name="mine", overrides=["optimizer.steps=7"])
    assert settle(given, num_rows=10_000).optimizer.steps == 7
