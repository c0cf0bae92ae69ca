"""The library gives what HTTP gives, in the same words, and names what it refuses."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import unveil
from tests.integration.test_service_determinism import GOLDEN, REQUESTS
from tests.model.artifacts import table_tokenizer, text_tokenizer, write_artifact
from tests.service.servers import Running, events_of, run_app
from unveil.engine import runner
from unveil.engine.catalog import find_sources, load_catalog
from unveil.service.app import create_app
from unveil.service.server import build_engine
from unveil.service.settings import Settings

ADULT = Path(__file__).resolve().parents[2] / "checkpoints" / "adult"
PROMPTS = [{"age": 39, "sex": "Female"}, {}, {"income": ">50K"}]


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "prose"
    write_artifact(folder, tokenizer=text_tokenizer(), kind="contextual")
    return folder


@pytest.fixture(scope="module")
def server(prose: Path) -> Iterator[Running]:
    artifacts = (str(ADULT), str(prose))
    settings = Settings(artifacts=artifacts)
    sources = find_sources(artifacts, checkpoints=settings.checkpoints)
    app = create_app(settings, engine=build_engine(sources, settings), catalog=load_catalog(sources))
    with run_app(app, settings) as running:
        yield running


@pytest.fixture(scope="module")
def adult() -> unveil.Model:
    return unveil.load(ADULT)


@pytest.fixture(scope="module")
def text(prose: Path) -> unveil.Model:
    return unveil.load(str(prose))


def _over_http(server: Running, path: str, **body: Any) -> Any:
    response = server.client.post(path, json=body)
    assert response.status_code == 200, response.text
    return {name: value for name, value in response.json().items() if name not in ("id", "created", "timings")}


def test_nothing_is_warmed_up(monkeypatch: pytest.MonkeyPatch, prose: Path) -> None:
    monkeypatch.setattr(runner, "checked_shapes", lambda *_: pytest.fail("all shapes are checked"))
    model = unveil.load(prose)
    assert len(model.generate("ab[MASK:3]", seed=1)["samples"][0]["reveals"]) == 3
    assert len(model.score("ab", seed=1)["scores"]) == 1
    assert len(model.order("ab[MASK:3]")["positions"]) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": PROMPTS, "num_samples": 3, "seed": 7},
        {"prompt": PROMPTS[0], "seed": 8, "order": "margin", "tokens_per_step": 3, "top_k": 4, "logprobs": False},
        {"prompt": PROMPTS[1], "seed": 9, "steps": 5, "order_temperature": 0.5, "temperature": 0.7, "top_p": 0.9},
    ],
    ids=["a list", "a stride", "time steps"],
)
def test_a_seed_generates_what_it_generates_over_http(
    server: Running, adult: unveil.Model, fields: dict[str, Any]
) -> None:
    assert adult.generate(**fields) == _over_http(server, "/generate", **fields)


def test_prompts_of_all_lengths_at_once_are_as_over_http(server: Running, text: unveil.Model) -> None:
    prompts = ["ab[MASK:2]", "[MASK:20]ab", "abab", "", "[MASK]a[MASK:16]"]
    fields: Any = {"prompt": prompts, "num_samples": 2, "seed": 3, "threshold": 0.3}
    assert text.generate(**fields) == _over_http(server, "/generate", model="prose", **fields)
    scored: Any = {"prompt": ["ab[MASK:2]", "ba" * 9, "a"], "seed": 3, "num_orders": 3}
    assert text.score(**scored) == _over_http(server, "/score", model="prose", **scored)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": PROMPTS[::2], "num_orders": 4, "seed": 1},
        {"prompt": PROMPTS[0], "given": {"age": 39}, "order": "right_to_left"},
        {"prompt": PROMPTS[0], "order": [7 + 2, 0]},
    ],
    ids=["drawn orders", "given", "a list"],
)
def test_a_score_is_what_it_is_over_http(server: Running, adult: unveil.Model, fields: dict[str, Any]) -> None:
    assert adult.score(**fields) == _over_http(server, "/score", **fields)


def test_predictions_and_counts_are_what_they_are_over_http(server: Running, adult: unveil.Model) -> None:
    fields: dict[str, Any] = {"columns": ["income", "hours-per-week", "native-country"], "num_samples": 3, "seed": 2}
    assert adult.predict(PROMPTS[0], **fields) == _over_http(server, "/predict", prompt=PROMPTS[0], **fields)
    where = {"sex": "Female", "income": ">50K", "hours-per-week": {"min": 40}}
    found = adult.count(where, num_samples=20, seed=4)
    assert found == _over_http(server, "/count", where=where, num_samples=20, seed=4)
    assert found["count"] == pytest.approx(found["rows"] * found["probability"])
    assert found["rows"] == 29_305


def test_an_order_is_what_it_is_over_http_and_without_a_prompt_nothing_is_known(
    server: Running, adult: unveil.Model, text: unveil.Model
) -> None:
    assert adult.order(PROMPTS[0]) == _over_http(server, "/order", prompt=PROMPTS[0])
    assert adult.order() == _over_http(server, "/order", prompt={})
    assert text.order(length=4) == _over_http(server, "/order", model="prose", prompt="", length=4)
    grid = unveil.load(ADULT.with_name("sudoku")).order()
    assert len(grid["positions"]) == 81


def test_a_stream_is_that_of_http(server: Running, adult: unveil.Model) -> None:
    fields: Any = {"prompt": PROMPTS[:2], "num_samples": 2, "seed": 5}
    with server.client.stream("POST", "/generate", json={**fields, "stream": True}) as response:
        theirs = list(events_of(response.iter_lines()))
    for _, data in theirs:
        for name in ("id", "created", "timings"):
            data.pop(name, None)
    ours = list(adult.stream(**fields))
    assert ours[0] == theirs[0]
    assert ours[-1] == theirs[-1]
    assert sorted(map(json.dumps, ours)) == sorted(map(json.dumps, theirs)), "HTTP may begin with fewer canvases"


def test_outputs_alone_are_those_of_the_samples(adult: unveil.Model) -> None:
    fields: Any = {"prompt": PROMPTS[:2], "num_samples": 3, "seed": 5}
    assert list(adult.outputs(**fields)) == [sample["output"] for sample in adult.generate(**fields)["samples"]]
    assert len(list(adult.outputs({}, num_samples=2))) == 2


def test_the_choices_are_those_of_the_golden_file(tmp_path: Path) -> None:
    write_artifact(tmp_path / "rows", tokenizer=table_tokenizer(), kind="global")
    write_artifact(tmp_path / "words", tokenizer=text_tokenizer(), kind="contextual")
    models = {name: unveil.load(tmp_path / name) for name in ("rows", "words")}
    for name, golden in json.loads(GOLDEN.read_text(encoding="utf-8")).items():
        fields = dict(REQUESTS[name])
        model = models[fields.pop("model", "rows")]
        samples = model.generate(**fields, num_samples=2, seed=7)["samples"]
        found = [[[r["position"], r["token_id"]] for r in sample["reveals"]] for sample in samples]
        assert found == [sample["reveals"] for sample in golden], name


def test_models_of_different_numbers_of_threads_keep_their_own(adult: unveil.Model) -> None:
    two = unveil.load(ADULT, threads=2)
    for model, number in ((adult, 1), (two, 2), (adult, 1)):
        model.order()
        assert torch.get_num_threads() == number


@pytest.mark.parametrize(
    ("method", "fields", "param", "said"),
    [
        ("generate", {"prompt": {"age": "old"}}, "prompt.age", "age must be an integer between 17 and 90"),
        ("generate", {"prompt": [{}, {"agee": 1}]}, "prompt.1.agee", "agee"),
        ("generate", {"prompt": {}, "tempature": 1}, "tempature", 'did you mean "temperature"?'),
        ("generate", {"prompt": {}, "stream": True}, "stream", "stream is a field of HTTP requests only"),
        ("generate", {"prompt": {}, "seed": -1}, "seed", "seed must be at least 0"),
        ("generate", {"prompt": {"age": float("nan")}}, "prompt", "NaN is not a JSON number"),
        ("generate", {"prompt": {"age": {1}}}, "prompt", "prompt must be a JSON value"),
        ("generate", {"prompt": {"age": "\ud800"}}, "prompt", "prompt has half a surrogate pair"),
        ("stream", {"prompt": []}, "prompt", "prompt is an empty list"),
        ("outputs", {"prompt": {}, "num_samples": 0}, "num_samples", "num_samples must be"),
        ("score", {"prompt": {}}, "prompt", "no position is known"),
        ("order", {"prompt": {}, "length": 3}, "length", "length"),
    ],
)
def test_what_is_refused_is_named(adult: unveil.Model, method: str, fields: Any, param: str, said: str) -> None:
    with pytest.raises(unveil.UnveilError) as refused:
        getattr(adult, method)(**fields)
    assert said in str(refused.value)
    assert refused.value.param == param
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("device", "tpu"), ("device", 3), ("threads", 0), ("threads", True)])
def test_a_device_or_a_number_of_threads_that_cannot_be_is_named(name: str, value: Any) -> None:
    with pytest.raises(unveil.UnveilError, match=f"{name} must be") as refused:
        unveil.load(ADULT, **{name: value})
    assert refused.value.param == name


def test_a_damaged_artifact_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    write_artifact(tmp_path / "people")
    weights = tmp_path / "people" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(unveil.UnveilError, match="truncated or altered"):
        unveil.load(tmp_path / "people")
    with pytest.raises(unveil.UnveilError, match="nowhere"):
        unveil.load(tmp_path / "nowhere")


def test_importing_and_loading_bring_no_torch_and_computing_does() -> None:
    code = f"""
import sys
import unveil
light = {{"torch", "pydantic", "fastapi", "rich"}} & set(sys.modules)
model = unveil.load({str(ADULT)!r})
late = "torch" in sys.modules
model.order()
print(sorted(light), late, "torch" in sys.modules, hasattr(unveil, "nothing"))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[] False True False\n"
