"""Both sides of the speed comparison do the same work; the published loop finds what the sampler finds."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.model.artifacts import random_transformer, table_tokenizer, text_tokenizer, write_artifact
from unveil import cli
from unveil.benchmarks.speed.in_process import Subject, compare, engine_decode, load_subject, mixed_canvases, report
from unveil.benchmarks.speed.reference_loop import Rule, reference_decode
from unveil.engine.catalog import Source
from unveil.model.decoding.batch import collate
from unveil.model.decoding.canvas import Canvas
from unveil.model.decoding.sampler import decode


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("speed") / "small"
    write_artifact(folder, tokenizer=text_tokenizer())
    return load_subject(Source("small", folder), max_batch=8)


def _finished(subject: Subject, canvases: list[Canvas]) -> list[Canvas]:
    return [canvas for canvas, _ in decode(subject.denoise, canvases)]


def test_by_confidence_the_published_loop_fills_in_what_the_sampler_does(subject: Subject) -> None:
    canvases = mixed_canvases(subject, num=6, rule="confidence")
    expected = _finished(subject, canvases)
    found = reference_decode(
        subject.denoise, *collate(canvases), rule="confidence", temperature=0.0, generator=torch.Generator()
    )
    for number, canvas in enumerate(canvases):
        assert tuple(found[number, : canvas.length].tolist()) == expected[number].tokens


def test_at_random_the_published_loop_changes_nothing_that_is_known(subject: Subject) -> None:
    canvases = mixed_canvases(subject, num=5, rule="random")
    tokens, hidden, lengths = collate(canvases)
    generator = torch.Generator().manual_seed(1)
    found = reference_decode(
        subject.denoise, tokens, hidden, lengths, rule="random", temperature=1.0, generator=generator
    )
    assert torch.equal(found[~hidden], tokens[~hidden])
    assert len(set(found[hidden].tolist())) > 1


def test_canvases_are_of_mixed_lengths_and_the_same_every_time(subject: Subject) -> None:
    canvases = mixed_canvases(subject, num=8, rule="random")
    assert canvases == mixed_canvases(subject, num=8, rule="random")
    assert len({canvas.length for canvas in canvases}) == 4
    assert all(0 < canvas.num_at_start <= canvas.length for canvas in canvases)
    table = Subject("t", subject.runner, random_transformer(table_tokenizer()), (3,) * 5, 5, False, 8)
    assert {canvas.length for canvas in mixed_canvases(table, num=8, rule="random")} == {5}


def test_the_engine_answers_every_canvas_or_says_why_not(subject: Subject) -> None:
    canvases = mixed_canvases(subject, num=3, rule="random")
    engine_decode(subject, canvases)
    too_long = Canvas.start((0,) * 4000, (True,) * 4000, seed=0, params=canvases[0].params)
    with pytest.raises(RuntimeError, match="StopIteration"):
        engine_decode(subject, [*canvases, too_long])


@pytest.mark.parametrize("rule", ["confidence", "random"])
def test_a_comparison_reports_ratios_of_the_seconds_it_took(subject: Subject, rule: Rule) -> None:
    row = compare(subject, rule=rule, rounds=1, num=4)
    assert row["requests"] == 4
    rates = row["reference_tokens_per_second"]
    assert row["over_reference_one_by_one"] == pytest.approx(row["engine_tokens_per_second"] / rates["1"])
    assert row["over_reference_best_batch"] == pytest.approx(row["engine_tokens_per_second"] / max(rates.values()))
    keys = report([row, {**row, "over_reference_alone": 9e9}])
    assert keys["over_reference_alone"] == (row["over_reference_alone"] if rule == "confidence" else None)


def test_an_artifact_is_measured_as_it_is_served(tmp_path: Path) -> None:
    write_artifact(tmp_path / "table")
    loaded = load_subject(Source("table", tmp_path / "table"), max_batch=2)
    assert loaded.length == 5
    assert len(loaded.vocabulary_sizes) == 5
    engine_decode(loaded, mixed_canvases(loaded, num=3, rule="random"))


def test_bench_prints_both_sides_and_the_ratios(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_artifact(tmp_path / "table")
    (tmp_path / "benchmarks").mkdir()  # of the user's own
    (tmp_path / "benchmarks" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    small = ["--requests", "3", "--rounds", "1", "--max-batch", "2"]
    monkeypatch.setattr(sys, "argv", ["unveil", "bench", str(tmp_path / "table"), "--json", *small])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    found = json.loads(capfd.readouterr().out)
    assert [row["rule"] for row in found["rows"]] == ["confidence", "random"]
    assert found["over_reference_one_by_one"] == found["rows"][0]["over_reference_one_by_one"]
    monkeypatch.setattr(sys, "argv", ["unveil", "bench", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    refused = capfd.readouterr().err
    assert refused.startswith("error: ")
    assert refused.count("\n") == 1
