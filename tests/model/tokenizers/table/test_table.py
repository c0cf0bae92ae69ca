"""Table prompts, round trips and files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers import load_tokenizer
from unveil.model.tokenizers.base import Tokenizer
from unveil.model.tokenizers.table import columns as columns_module
from unveil.model.tokenizers.table.columns import CategoricalColumn
from unveil.model.tokenizers.table.table import Cells, TableTokenizer

COUNTRIES = [f"Country-{letter}" for letter in "ABCDEFGHIJKLMNOP"]


def cells(*values: str | None) -> Cells:
    return np.array(values, dtype=object)


@pytest.fixture(scope="module")
def census() -> TableTokenizer:
    return TableTokenizer.fit(
        {
            "age": np.array([17.0, 39.0, 39.0, 90.0] * 4),
            "sex": cells(*["Male", "Female"] * 8),
            "rate": np.array([0.25, np.nan, 1.5, 0.25] * 4),
            "work": cells(*["Private", None, "State", "Private"] * 4),
            "country": cells(*COUNTRIES),
        }
    )


def refusal(tokenizer: TableTokenizer, prompt: object, *, length: int | None = None) -> tuple[str, str | None]:
    with pytest.raises(PromptError) as caught:
        tokenizer.encode(prompt, length=length)
    return str(caught.value), caught.value.param


def test_it_offers_the_protocol_of_every_tokenizer(census: TableTokenizer) -> None:
    tokenizer: Tokenizer = census
    assert (tokenizer.domain, tokenizer.length, tokenizer.default_length) == ("table", 5, 5)
    assert tokenizer.vocabulary_sizes == (3, 2, 3, 3, 16)
    assert [tokenizer.name(i) for i in range(5)] == ["age", "sex", "rate", "work", "country"]


def test_known_columns_are_kept_exactly_and_null_or_absent_ones_hidden(census: TableTokenizer) -> None:
    template = census.encode({"work": "State", "age": 39.0, "sex": None})
    assert template.hidden == (False, True, True, False, True)
    assert template.tokens == (1, 0, 0, 1, 0)
    assert repr(dict(sorted(template.known.items()))) == "{0: 39.0, 3: 'State'}"


def test_an_empty_prompt_hides_everything_and_a_full_one_nothing(census: TableTokenizer) -> None:
    assert all(census.encode({}).hidden)
    full = {"age": 18, "sex": "Male", "rate": 0.3, "work": "[MISSING]", "country": "Country-A"}
    assert not any(census.encode(full).hidden)


def test_a_number_between_two_bins_belongs_to_the_nearer_one(census: TableTokenizer) -> None:
    assert [census.encode({"age": x}).tokens[0] for x in (18, 27, 29, 64, 65)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("given_value", ["old", True, 16, 91, 39.5, float("nan"), float("inf"), [39], {}, 10**400])
def test_a_wrong_number_is_refused_with_what_the_column_takes(census: TableTokenizer, given_value: object) -> None:
    message, param = refusal(census, {"age": given_value})
    assert message.startswith("age must be an integer between 17 and 90, got ")
    assert "\n" not in message
    assert param == "age"


def test_refusals_word_by_word(census: TableTokenizer) -> None:
    assert refusal(census, {"age": "old"})[0] == 'age must be an integer between 17 and 90, got "old"'
    assert refusal(census, {"rate": 3})[0] == 'rate must be a number between 0.25 and 1.5 or "[MISSING]", got 3'
    assert refusal(census, {"sex": "male"})[0] == 'sex must be one of Female, Male, got "male"'
    assert refusal(census, {"sex": 1})[0] == "sex must be one of Female, Male, got 1"
    assert refusal(census, {"country": "Contry-C"})[0] == (
        "country must be one of Country-A, Country-B, Country-C, Country-D, Country-E, Country-F, ... (16 in all), "
        'got "Contry-C"; did you mean Country-C?'
    )
    assert refusal(census, {"agee": 39}) == ('unknown column "agee"; did you mean "age"?', "agee")
    assert refusal(census, {"xyz": 39}) == (
        'unknown column "xyz"; the columns are age, sex, rate, work, country',
        "xyz",
    )
    assert refusal(census, "age=39") == (
        'a table\'s prompt must be an object of columns and values, got "age=39"',
        None,
    )
    assert refusal(census, {}, length=3) == (
        "length is not valid with a table: its rows have all their columns",
        "length",
    )


@pytest.mark.parametrize("prompt", [{"sex": "x" * 10**6}, {"x" * 10**6: 1}, {"a\nb\ud800": 1}, {"sex": "\ud800\n"}])
def test_refusals_stay_one_short_line_that_can_be_sent(census: TableTokenizer, prompt: object) -> None:
    message, param = refusal(census, prompt)
    assert len(message) < 300
    assert "\n" not in message
    assert len((param or "").encode("utf-8")) <= 120


def test_a_level_of_very_many_is_found_at_once_and_a_wrong_one_is_compared_with_none_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(columns_module, "get_close_matches", lambda *_, **__: pytest.fail("compared with 5000 levels"))
    column = CategoricalColumn(name="code", levels=tuple(f"level {i:04}" for i in range(5000)))
    assert column.encode("level 4999") == 4999
    with pytest.raises(PromptError, match=r"\(5000 in all\), got \"level 5000\"$"):
        column.encode("level 5000")


def test_a_missing_value_is_offered_only_where_training_had_one(census: TableTokenizer) -> None:
    assert census.value(2, 2, 0.5) == census.value(3, 2, 0.5) == "[MISSING]"
    assert not census.encode({"rate": "[MISSING]"}).hidden[2]
    assert refusal(census, {"age": "[MISSING]"})[1] == "age"
    assert refusal(census, {"sex": "[MISSING]"})[1] == "sex"


def test_output_is_a_row_in_column_order_and_one_line_of_text(census: TableTokenizer) -> None:
    row, text = census.output([39, "Male", 0.25, "[MISSING]", "Country-A"])
    assert list(row) == ["age", "sex", "rate", "work", "country"]
    assert text == "age: 39, sex: Male, rate: 0.25, work: [MISSING], country: Country-A"


def test_it_describes_columns_with_their_levels_and_ranges(census: TableTokenizer) -> None:
    columns = census.describe()["columns"]
    assert columns[0] == {
        "name": "age",
        "kind": "numeric",
        "low": 17,
        "high": 90,
        "integer": True,
        "decimals": 0,
        "bins": 3,
        "missing": False,
    }
    assert columns[3] == {"name": "work", "kind": "categorical", "levels": ["Private", "State", "[MISSING]"]}
    json.dumps(columns, allow_nan=False)


def test_the_example_prompt_is_typical_of_the_first_and_last_column(census: TableTokenizer) -> None:
    assert census.example_prompt() == {"age": 39, "country": "Country-A"}
    census.encode(census.example_prompt())


def test_an_example_may_end_in_a_control_character() -> None:
    tokenizer = TableTokenizer.fit({"a": cells("x\0", "x\0", "x"), "b": cells("y", "z", "z")})
    assert tokenizer.example_prompt() == {"a": "x\0", "b": "z"}  # numpy's own strings would lose it


def test_bins_print_as_a_number_or_an_interval() -> None:
    tokenizer = TableTokenizer.fit({"x": np.array([0.0] * 6 + [1.0, 2.0, 3.0])}, max_bins=2)
    assert [tokenizer.token(0, i) for i in range(2)] == ["0", "1 to 3"]


@pytest.mark.parametrize("max_bins", [4, 64])
def test_numbers_drawn_anew_inside_their_bins_follow_the_law_of_the_column(max_bins: int) -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random(4000) < 0.6, 0, rng.exponential(1000, 4000).round(1))
    tokenizer = TableTokenizer.fit({"x": values}, max_bins=max_bins)
    tokens = tokenizer.encode_rows({"x": values}).tokens[:, 0]
    drawn = [float(tokenizer.value(0, int(i), u)) for i, u in zip(tokens, rng.random(4000), strict=True)]
    places = np.unique(values)
    shares = [np.searchsorted(np.sort(sample), places, side="right") / 4000 for sample in (values, drawn)]
    assert np.abs(shares[0] - shares[1]).max() < 0.02


numbers = st.lists(
    st.integers(-1000, 1000).map(float) | st.decimals(-9999, 9999, places=3).map(float) | st.floats(-1e308, 1e308),
    min_size=1,
    max_size=80,
)


@given(values=numbers, max_bins=st.integers(1, 12), uniform=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_every_drawn_number_falls_into_its_bin_again(values: list[float], max_bins: int, uniform: float) -> None:
    tokenizer = TableTokenizer.fit({"x": np.array(values)}, max_bins=max_bins)
    for token_id in range(tokenizer.vocabulary_sizes[0]):
        drawn = tokenizer.value(0, token_id, uniform)
        assert tokenizer.encode({"x": drawn}).tokens == (token_id,)
        assert tokenizer.encode_rows({"x": np.array([float(drawn)])}).tokens.tolist() == [[token_id]]


@given(
    values=st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=80),
    decimals=st.integers(0, 4),
    uniform=st.floats(0, 1, exclude_min=True, exclude_max=True),
)
def test_drawn_numbers_have_the_decimals_of_their_column(values: list[int], decimals: int, uniform: float) -> None:
    column = np.array([round(v / 10**decimals, decimals) for v in values])
    tokenizer = TableTokenizer.fit({"x": column}, max_bins=2)
    for token_id in range(tokenizer.vocabulary_sizes[0]):
        drawn = tokenizer.value(0, token_id, uniform)
        assert round(float(drawn), decimals) == drawn
        assert isinstance(drawn, int) == all(v == int(v) for v in column)


@given(values=numbers, probes=numbers, max_bins=st.integers(1, 12))
def test_prompts_and_training_rows_are_encoded_alike(values: list[float], probes: list[float], max_bins: int) -> None:
    tokenizer = TableTokenizer.fit({"x": np.array(values)}, max_bins=max_bins)
    low, high = min(values), max(values)
    inside = [x for x in probes if low <= x <= high]
    if tokenizer.describe()["columns"][0]["integer"]:
        inside = [x for x in inside if x == int(x)]
    by_row = tokenizer.encode_rows({"x": np.array(inside)}).tokens[:, 0].tolist()
    assert by_row == [tokenizer.encode({"x": x}).tokens[0] for x in inside]


@given(levels=st.lists(st.none() | st.text(max_size=5).filter(lambda level: level != "[MISSING]"), max_size=30))
def test_levels_come_back_as_they_were(levels: list[str | None]) -> None:
    levels = [*levels, "certain"]
    tokenizer = TableTokenizer.fit({"c": cells(*levels)})
    tokens = tokenizer.encode_rows({"c": cells(*levels)}).tokens[:, 0]
    shown = [tokenizer.value(0, int(i), 0.5) for i in tokens]
    assert shown == ["[MISSING]" if level is None else level for level in levels]


@given(values=numbers)
def test_a_saved_tokenizer_loads_as_the_same_one(values: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer = TableTokenizer.fit({"x": np.array(values), "y": cells(*["a", None] * 3)}, max_bins=5)
    tokenizer.save(path)
    loaded = TableTokenizer.load(path)
    assert loaded.columns == tokenizer.columns
    assert loaded.example_prompt() == tokenizer.example_prompt()


def test_rows_with_levels_that_training_never_saw_are_marked_and_counted(census: TableTokenizer) -> None:
    rows = {
        "age": np.array([17.0, 95.0, np.nan, 40.0]),
        "sex": cells("Male", "Other", "Male", None),
        "rate": np.array([np.nan, 0.25, 9.0, 0.25]),
        "work": cells("Private", None, "State", "State"),
        "country": cells(*COUNTRIES[:4]),
    }
    encoded = census.encode_rows(rows)
    assert encoded.is_known.tolist() == [True, False, False, False]
    assert encoded.num_unseen == {"age": 1, "sex": 2}
    assert encoded.num_moved == {"age": 2, "rate": 1}
    assert encoded.tokens[0].tolist() == [0, 1, 2, 0, 0]


def good_file() -> dict[str, Any]:
    tokenizer = TableTokenizer.fit({"x": np.arange(9.0), "y": cells(*"aab" * 3)}, max_bins=3)
    return dict(json.loads(tokenizer._file.model_dump_json()))


def damaged(path: tuple[str | int, ...], value: object) -> str:
    whole = good_file()
    place: Any = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the file: Invalid JSON: EOF while parsing a value at line 1 column 0"),
        ("[]", "the file: Input should be an object"),
        (damaged(("version",), 2), "version: Input should be 1"),
        (damaged(("more",), 2), "more: Extra inputs are not permitted"),
        (damaged(("columns",), []), "columns: Tuple should have at least 1 item after validation, not 0"),
        (
            damaged(("columns", 1, "name"), "x"),
            "the file: columns must have names, each another one",
        ),
        (
            damaged(("columns", 1, "levels"), ["a", "a"]),
            "columns.1.categorical: levels must differ from each other and from [MISSING]",
        ),
        (
            damaged(("columns", 0, "bins", 0, "values"), [1, 0]),
            "columns.0.numeric.bins.0: as many weights as values are needed",
        ),
        (
            damaged(("columns", 0, "bins", 1), {"values": [2.5, 2.0]}),
            "columns.0.numeric.bins.1: values must ascend",
        ),
        (
            damaged(("columns", 0, "bins", 1), {"values": [0.0, 1.0], "weights": [1, 1]}),
            "columns.0.numeric: bins must ascend and not overlap",
        ),
        (
            damaged(("columns", 0, "bins", 2), {"values": [6.5], "weights": [1]}),
            "columns.0.numeric: bins have more than 0 decimals",
        ),
        (
            damaged(("example", "x"), 99),
            "the file: x must be an integer between 0 and 8, got 99",
        ),
    ],
)
def test_an_altered_file_is_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(ArtifactError) as caught:
        TableTokenizer.load(path)
    assert str(caught.value) == f"tokenizer.json is not a table tokenizer: {reason}"


def test_an_artifact_whose_config_disagrees_or_whose_file_is_gone_is_refused(
    tmp_path: Path, census: TableTokenizer
) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer.json cannot be read: No such file or directory"):
        load_tokenizer(tmp_path, "table", length=5, default_length=5)
    census.save(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path, "table", length=5, default_length=5).describe() == census.describe()
    with pytest.raises(ArtifactError, match=r"tokenizer.json has 5 columns, the artifact's config says 6"):
        load_tokenizer(tmp_path, "table", length=6, default_length=6)


def test_levels_are_understood_in_the_types_that_json_has() -> None:
    columns = {"flag": ["False", "True"], "grade": ["1", "2", "A"], "rate": ["1.0", "2.5"], "odd": ["true", "True"]}
    tokenizer = TableTokenizer.fit({name: np.array(levels, dtype=object) for name, levels in columns.items()})
    template = tokenizer.encode({"flag": True, "grade": 1, "rate": 1})
    assert template.tokens[:3] == (1, 0, 0)
    assert template.known == {0: "True", 1: "1", 2: "1.0"}
    assert tokenizer.encode({"grade": 2.0, "rate": 2.5, "flag": False}).tokens[:3] == (0, 1, 1)
    for prompt in (
        {"odd": True},
        {"grade": True},
        {"grade": 3},
        {"rate": 10**5000},
        {"rate": float("nan")},
        {"flag": 1},
    ):
        with pytest.raises(PromptError, match="must be one of"):
            tokenizer.encode(prompt)
