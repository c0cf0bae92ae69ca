"""Models along their order are timed beside whole canvases, and with every number of positions a step."""

from pathlib import Path

import pytest

from tests.benchmarks.quick import run
from tests.model.artifacts import text_tokenizer, write_artifact
from unveil.benchmarks.speed import ahead, along
from unveil.benchmarks.speed.along_subjects import WORKS, at_pace, goes_along, load_along, requests
from unveil.benchmarks.speed.in_process import Subject
from unveil.engine.catalog import Source
from unveil.model.decoding.canvas import SamplingParams
from unveil.model.network.fixed_shapes import FixedShapes


def _source(folder: Path, name: str, query_layers: int) -> Source:
    write_artifact(folder / name, tokenizer=text_tokenizer(), query_layers=query_layers)
    return Source(name, folder / name)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("along")
    sources = [_source(folder, "whole", 0), _source(folder, "along", 1)]
    assert [goes_along(source) for source in sources] == [False, True]
    (subject,) = load_along(sources, max_batch=4)
    return subject


@pytest.mark.parametrize("name", ["along", "ahead"])
def test_bundled_models_along_their_order_are_timed(name: str) -> None:
    rows = run(name, "--models", "adult,moses")["rows"]
    assert {row["model"] for row in rows} == {"adult", "moses"}
    assert {row["work"] for row in rows} == set(WORKS)


def test_the_engine_is_timed_at_once_and_alone_beside_whole_canvases(subject: Subject) -> None:
    sides = {
        along.SERVED: at_pace(subject, None),
        along.SINGLE: at_pace(subject, 1),
        along.WHOLE: along.whole_canvases(subject),
    }
    assert isinstance(sides[along.WHOLE].runner.denoiser, FixedShapes)
    canvases = requests(subject, "whole", num=3, params=SamplingParams())
    for together in (True, False):
        row = along.measured(sides, canvases, together=together, rounds=1)
        taken = row["microseconds_a_token"]
        assert row["times_whole"] == taken[along.WHOLE] / taken[along.SERVED] > 0
    text = along.as_text([{"model": "m", "work": "whole", "at_once": 1, **row}])
    assert "| `m`, whole, alone |" in text


def test_prompts_are_parts_of_the_models_own_rows(subject: Subject) -> None:
    params = SamplingParams(temperature=0.5)
    canvases = requests(subject, "mixed", num=8, params=params)
    assert canvases == requests(subject, "mixed", num=8, params=params)
    assert len({canvas.length for canvas in canvases}) > 1
    assert all(0 < canvas.num_at_start <= canvas.length and canvas.params == params for canvas in canvases)
    assert any(any(canvas.tokens) for canvas in canvases)


def test_every_window_decodes_alike_and_what_it_saves_is_counted(subject: Subject) -> None:
    canvases = requests(subject, "mixed", num=4, params=SamplingParams())
    rows = ahead.measured(subject, canvases, sizes=(1, 2), rounds=1)
    assert [(row["at_a_time"], row["window"]) for row in rows] == [(n, w) for n in (1, 2) for w in ahead.WINDOWS]
    for row in rows:
        assert row["microseconds_a_token"] > 0
        assert 0 < row["forwards_a_token"] <= 1
        if row["window"] == 1:
            assert row["forwards_saved"] == row["time_saved"] == 0
        elif row["at_a_time"] == 1:
            assert row["forwards_saved"] > 0
    own = {"model": "m", "work": "mixed", "temperature": 1.0}
    assert "| `m`, mixed, 2, 1.0 |" in ahead.as_text([{**own, **row} for row in rows])


def test_other_bytes_are_reported(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter(range(2))
    monkeypatch.setattr(ahead.Side, "take", lambda side, canvases: [next(taken)])
    with pytest.raises(SystemExit, match="other bytes"):
        ahead.measured(subject, [], sizes=(1,), rounds=1)
