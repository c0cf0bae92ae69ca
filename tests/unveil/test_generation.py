"""`unveil generate --out`: rows into a file, whole or not there."""

import csv
import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.model.artifacts import text_tokenizer, write_artifact
from tests.unveil.commands import Outcome, run_command
from unveil import api
from unveil.commands.result_files import written
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.tables import files

Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return lambda *arguments: run_command(capsys, monkeypatch, "generate", *arguments)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "people"
    write_artifact(folder)
    return folder


@pytest.mark.parametrize("options", [(), ("--order", "margin"), ("--steps", "3"), ("--temperature", "0")])
def test_the_rows_of_a_file_are_those_of_the_same_seed_elsewhere(
    artifact: Path, tmp_path: Path, run: Run, options: tuple[str, ...]
) -> None:
    command = (artifact, '{"age": 39}', "-n", 70, "--seed", 7, *options)
    code, _, err = run(*command, "--out", tmp_path / "rows.csv")
    assert (code, err) == (0, f"wrote {tmp_path / 'rows.csv'}: 70 rows, seed 7\n")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    samples = json.loads(run(*command, "--json")[1])["samples"]
    outputs = [sample["output"] for sample in samples]
    assert any(None in output.values() for output in outputs) == any("" in row.values() for row in rows)
    assert rows == [{name: "" if own is None else str(own) for name, own in output.items()} for output in outputs]


def test_a_drawn_seed_is_told_and_gives_the_file_again(artifact: Path, tmp_path: Path, run: Run) -> None:
    _, _, err = run(artifact, "-n", 9, "--out", tmp_path / "a.csv")
    seed = err.split("seed ")[1].strip()
    run(artifact, "-n", 9, "--seed", seed, "--out", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_an_existing_file_is_replaced_only_if_the_user_says_so(artifact: Path, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("mine")
    code, _, err = run(artifact, "--out", path)
    assert (code, err) == (2, f"error: --out {path}: exists; --force replaces it\n")
    assert path.read_text() == "mine"
    assert run(artifact, "--out", path, "--force")[0] == 0
    assert path.read_text().startswith("age,workclass")
    assert run(artifact, "--force")[0] == 2


def test_what_is_interrupted_leaves_the_old_file_and_a_marked_part(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")

    def torn() -> None:
        with written(path) as file:
            file.write("half a row")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        torn()
    assert path.read_text() == "old"
    assert (tmp_path / "rows.csv.partial").read_text() == "half a row"
    with written(path) as file:
        file.write("new")
    assert path.read_text() == "new"
    assert not (tmp_path / "rows.csv.partial").exists()


def test_a_file_of_rows_takes_a_table(tmp_path: Path, run: Run) -> None:
    write_artifact(tmp_path / "prose", tokenizer=text_tokenizer())
    code, _, err = run(tmp_path / "prose", "--out", tmp_path / "x.csv")
    assert code == 2
    assert "--out: is only valid with tables, and this is a text model" in err


def test_a_file_of_rows_takes_one_prompt(artifact: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run(artifact, '[{"age": 39}, {"age": 40}]', "--out", tmp_path / "x.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "prompt: must be one row with --out, got a list of 2" in err
    assert list(tmp_path.iterdir()) == []


def test_missing_values_are_null_and_empty_cells(artifact: Path, tmp_path: Path, run: Run) -> None:
    where, path = '{"workclass": null}', tmp_path / "rows.csv"
    run(artifact, "-n", 3, "--where", where, "--out", path)
    assert {row["workclass"] for row in csv.DictReader(io.StringIO(path.read_text()))} == {""}
    (sample,) = json.loads(run(artifact, "--where", where, "--json")[1])["samples"]
    assert sample["output"]["workclass"] is None
    assert [reveal["value"] for reveal in sample["reveals"] if reveal["name"] == "workclass"] == [None]
    assert "workclass: [MISSING]" in sample["text"]


def test_rows_and_samples_meet_a_condition(artifact: Path, tmp_path: Path, run: Run) -> None:
    where, path = json.dumps({"age": {"min": 30, "max": 60}, "income": ">50K"}), tmp_path / "rows.csv"
    code, _, err = run(artifact, "-n", 12, "--where", where, "--out", path, "--seed", 3)
    assert (code, "12 samples exact" in err) == (0, True)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert len(rows) == 12
    assert all(30 <= int(row["age"]) <= 60 and row["income"] == ">50K" for row in rows)
    code, out, err = run(artifact, "-n", 3, "--where", where, "--seed", 3)
    assert (code, len(out.splitlines())) == (0, 3)
    assert "condition: probability 0." in err
    assert "3 samples exact" in err
    for text, line in (("{", "--where: must be JSON"), ("3", "--where: must be a JSON object")):
        code, _, err = run(artifact, "--where", text)
        assert (code, line in err) == (2, True)


def test_rows_keep_rules_shares_and_what_may_not_repeat(artifact: Path, tmp_path: Path, run: Run) -> None:
    path, rules = tmp_path / "rows.csv", ["--rule", "hours * 10 < age", "--rule", "unique(age, hours)"]
    shares = ["--share", "income=>50K:0.25,<=50K:0.75"]
    code, _, err = run(artifact, "-n", 60, *rules, *shares, "--out", path, "--seed", 3)
    assert (code, "condition: probability 0." in err, "repeated" in err) == (0, True, True)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert len(rows) == 60
    assert all(int(row["hours"]) * 10 < int(row["age"]) for row in rows)
    assert len({(row["age"], row["hours"]) for row in rows}) == 60
    assert sum(row["income"] == ">50K" for row in rows) == 15
    model = api.load(artifact)
    free = model.sample(60, seed=3, rules=["hours * 10 < age"], shares={"income": {">50K": 0.25, "<=50K": 0.75}})
    assert len({(row["age"], row["hours"]) for row in free.to_dicts()}) < 60


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--rule", "hours <"], 2, "must name a column or a number"),
        (["--rule", "pair(age, hours)"], 1, "does not say what data it was trained on"),
        (["--share", "income=>50K"], 2, "must be COLUMN=VALUE:SHARE,..."),
        (["--share", "income=>50K:0.5"], 2, "those of income must sum to 1, got 0.5"),
        (["--share", "income=rich:1"], 2, "income must be one of"),
        (["--share", "nothing=a:1"], 2, "unknown column"),
        (["--rule", "unique(income)"], 1, "the model has too few"),
    ],
)
def test_a_mistake_in_rules_and_shares_gets_one_line(
    artifact: Path, tmp_path: Path, run: Run, options: list[str], code: int, line: str
) -> None:
    found, _, err = run(artifact, "-n", 4, *options, "--out", tmp_path / "rows.csv", "--seed", 1)
    assert (found, line in err.splitlines()[-1]) == (code, True), err


def test_memory_does_not_grow_with_the_number_of_rows(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_LARGEST_WINDOW", 100)
    model, peaks = api.load(artifact), []
    for number in (200, 200, 2000):  # the first one fills caches
        tracemalloc.start()
        canvases = (Canvas.start((0,) * 5, (True,) * 5, seed=i, params=SamplingParams()) for i in range(number))
        assert sum(1 for _ in model.decode(canvases)) == number
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 2 * peaks[1]


def test_a_parquet_file_has_the_rows_in_the_types_of_the_columns(artifact: Path, tmp_path: Path, run: Run) -> None:
    command = (artifact, "-n", 70, "--seed", 7)
    assert run(*command, "--out", tmp_path / "rows.csv")[0] == 0
    code, _, err = run(*command, "--out", tmp_path / "rows.parquet")
    assert (code, err) == (0, f"wrote {tmp_path / 'rows.parquet'}: 70 rows, seed 7\n")
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    assert list(rows.schema.values()) == [pl.Int64, pl.String, pl.String, pl.Int64, pl.Float64]
    assert rows.equals(pl.read_csv(tmp_path / "rows.csv"))


def test_a_parquet_file_is_written_in_blocks(
    artifact: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(artifact, "-n", 70, "--seed", 7, "--out", tmp_path / "one.parquet")[0] == 0
    monkeypatch.setattr(files, "_BLOCK_ROWS", 16)
    assert run(artifact, "-n", 70, "--seed", 7, "--out", tmp_path / "blocks.parquet")[0] == 0
    assert pl.read_parquet(tmp_path / "blocks.parquet").equals(pl.read_parquet(tmp_path / "one.parquet"))


def test_stdout_gets_the_bytes_of_a_file_and_may_be_closed_early(artifact: Path, tmp_path: Path, run: Run) -> None:
    assert run(artifact, "-n", 9, "--seed", 7, "--out", tmp_path / "rows.csv")[0] == 0
    command = [sys.executable, "-m", "unveil.cli", "generate", str(artifact), "--seed", "7", "--out", "-"]
    whole = subprocess.run([*command, "-n", "9"], check=True, capture_output=True)
    assert whole.stdout == (tmp_path / "rows.csv").read_bytes()
    assert whole.stderr == b"wrote stdout: 9 rows, seed 7\n"
    reader = subprocess.Popen(["head", "-n", "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    cut = subprocess.run([*command, "-n", "9000"], stdout=reader.stdin, stderr=subprocess.PIPE, check=False)
    assert reader.communicate()[0] == b"".join(whole.stdout.splitlines(keepends=True)[:2])
    assert (cut.returncode, cut.stderr) == (1, b"")
