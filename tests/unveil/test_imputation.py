"""`unveil impute`: what is filled, what stays, and what is refused."""

import csv
import gzip
import io
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tests.model.artifacts import text_tokenizer, write_artifact
from tests.unveil.commands import Outcome, run_command
from unveil import api
from unveil.model.artifact.folder import load_artifact
from unveil.model.tokenizers.table.columns import MISSING
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.training.data.config import TableData
from unveil.training.data.table.table import load_table

Run = Callable[..., Outcome]
TABLE = '\ufeffid,"age",workclass,rate,income,note\r\n'
ROWS = [
    "1,39,class 1,0.5,>50K,\r\n",
    '2,,"class 2",0.25,,x\r\n',
    "\r\n",
    '3," 40 ",,,"<=50K","a ""b"", c"\r\n',
    "4,,,,,\n",
    f"5,41,{MISSING},,>50K,last",
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return lambda *arguments: run_command(capsys, monkeypatch, "impute", *arguments)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "people"
    write_artifact(folder)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_bytes((TABLE + "".join(ROWS)).encode())
    return path


def test_every_empty_cell_is_filled_and_everything_else_stays_byte_for_byte(
    artifact: Path, table: Path, run: Run
) -> None:
    out = table.with_name("out.csv")
    code, printed, err = run(artifact, table, "--out", out, "--seed", 3)
    assert (code, printed) == (0, ""), err
    assert "note: the table lacks columns of the model, unknown in every row: hours\n" in err
    assert 'note: column "note" is not the model\'s: 2 empty cells left as they are' in err
    assert err.endswith(f"wrote {out}: 9 cells filled in, seed 3\n")
    age, level, rate, income = r"\d+", r"class \d", r"-?\d+\.\d+", r"[<>]=?50K"
    pattern = re.escape(TABLE + ROWS[0])
    pattern += rf'2,{age},"class 2",0.25,{income},x\r\n\r\n'
    pattern += rf'3," 40 ",{level},{rate},"<=50K","a ""b"", c"\r\n'
    pattern += rf"4,{age},{level},{rate},{income},\n5,41,{re.escape(MISSING)},{rate},>50K,last"
    assert re.fullmatch(pattern, out.read_bytes().decode())
    assert not out.with_name("out.csv.partial").exists()


def test_a_seed_gives_the_same_file_in_windows_of_any_size(
    artifact: Path, table: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = [table.with_name(f"{name}.csv") for name in "abc"]
    assert run(artifact, table, "--out", outs[0], "--seed", 3)[0] == 0
    monkeypatch.setattr(api, "_LARGEST_WINDOW", 1)
    assert run(artifact, table, "--out", outs[1], "--seed", 3)[0] == 0
    assert run(artifact, table, "--out", outs[2], "--seed", 4)[0] == 0
    contents = [out.read_bytes() for out in outs]
    assert contents[0] == contents[1] != contents[2]


def test_the_mode_is_the_likeliest_value_and_needs_no_seed(artifact: Path, tmp_path: Path, run: Run) -> None:
    table = tmp_path / "one.csv"
    table.write_text("age,workclass,income,hours,rate\n39,class 1,,3,0.5\n")
    for out in ("a.csv", "b.csv"):
        code, _, err = run(artifact, table, "--out", tmp_path / out, "--mode")
        assert code == 0
        assert "seed" not in err
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    loaded = load_artifact(artifact)
    template = loaded.tokenizer.encode({"age": 39, "workclass": "class 1", "hours": 3, "rate": 0.5})
    tokens, hidden = torch.tensor([template.tokens]), torch.tensor([template.hidden])
    best = int(loaded.denoiser(tokens, hidden, torch.tensor([5])).token_logits[0, 2].argmax())
    assert (tmp_path / "a.csv").read_text().splitlines()[1].split(",")[2] == loaded.tokenizer.token(2, best)


def test_drawn_values_follow_the_models_law_without_the_missing_level(artifact: Path, tmp_path: Path, run: Run) -> None:
    table, out = tmp_path / "many.csv", tmp_path / "out.csv"
    table.write_text("age,workclass,income,hours,rate\n" + "39,,>50K,3,0.5\n" * 2000)
    assert run(artifact, table, "--out", out, "--seed", 1)[0] == 0
    drawn = [row["workclass"] for row in csv.DictReader(io.StringIO(out.read_text()))]
    loaded = load_artifact(artifact)
    template = loaded.tokenizer.encode({"age": 39, "income": ">50K", "hours": 3, "rate": 0.5})
    tokens, hidden = torch.tensor([template.tokens]), torch.tensor([template.hidden])
    logits = loaded.denoiser(tokens, hidden, torch.tensor([5])).token_logits[0, 1, :4].detach()
    expected = logits.softmax(-1).numpy()
    found = np.array([drawn.count(f"class {i}") / 2000 for i in range(4)])
    assert np.abs(found - expected).max() < 0.05
    assert MISSING not in drawn


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_a_packed_file_stays_byte_for_byte_and_a_result_named_gz_is_compressed(
    artifact: Path, tmp_path: Path, run: Run, encoding: str
) -> None:
    content = "age,income,note\r39,>50K,ü\r40,,\r".encode(encoding)
    table, out = tmp_path / "in.csv", tmp_path / "out.csv.gz"
    table.write_bytes(gzip.compress(content))
    assert run(artifact, table, "--out", out, "--seed", 3)[0] == 0
    filled = gzip.decompress(out.read_bytes()).decode(encoding)
    assert re.fullmatch("age,income,note\r39,>50K,ü\r40,[<>]=?50K,\r", filled)
    assert gzip.decompress(out.read_bytes()).startswith(content[: content.index("ü".encode(encoding)[-2:])])
    assert run(artifact, table, "--out", tmp_path / "out.csv", "--seed", 3)[0] == 0
    assert (tmp_path / "out.csv").read_bytes() == gzip.decompress(out.read_bytes())
    assert run(artifact, table, "--out", out, "--seed", 3, "--samples", 2, "--force")[0] == 0
    assert (tmp_path / "out.1.csv.gz").read_bytes() == out.read_bytes()


def test_several_samples_are_several_files(artifact: Path, table: Path, run: Run) -> None:
    code, _, err = run(artifact, table, "--out", table.with_name("out.csv"), "--seed", 3, "--samples", 2)
    assert code == 0, err
    first, second = (table.with_name(f"out.{k}.csv").read_bytes() for k in (1, 2))
    assert first != second
    assert run(artifact, table, "--out", table.with_name("one.csv"), "--seed", 3)[0] == 0
    assert table.with_name("one.csv").read_bytes() == first


def test_the_file_that_a_model_was_trained_on_can_be_filled_in_and_new_cells_look_like_old_ones(
    tmp_path: Path, run: Run
) -> None:
    rng = np.random.default_rng(0)
    table, out = tmp_path / "in.csv", tmp_path / "out.csv"
    prices = [f"{x:,.2f}".replace(",", " ").replace(".", ",") + " €" for x in rng.normal(5000, 4000, 60).round(2)]
    days = [f"{rng.integers(1, 13)}/{i % 28 + 1}/2024 0:00" for i in range(60)]
    kinds = [f"kind {i % 3}" if i else "rare" for i in range(60)]
    rows = [*zip(prices, days, kinds, strict=True)]
    holes = [tuple("" if (i + j) % 4 == 0 else cell for j, cell in enumerate(row)) for i, row in enumerate(rows)]
    table.write_text("price;day;kind\n" + "".join(f"{';'.join(row)}\n" for row in rows))
    tokenizer: Any = load_table(TableData(path=table, delimiter=";")).tokenizer
    write_artifact(tmp_path / "shop", tokenizer=tokenizer)
    table.write_text("price;day;kind\n" + "".join(f"{';'.join(row)}\n" for row in holes))
    code, _, err = run(tmp_path / "shop", table, "--out", out, "--delimiter", ";", "--seed", 1)
    assert code == 0, err
    filled = [line.split(";") for line in out.read_text().splitlines()[1:]]
    for before, after in zip(holes, filled, strict=True):
        assert all(old in ("", new) for old, new in zip(before, after, strict=True))
        assert re.fullmatch(r"-?\d{1,3}( \d{3})*,\d\d €", after[0])
        assert re.fullmatch(r"[1-9]\d?/[1-9]\d?/2024 0:00", after[1])
        assert after[2] in kinds


def test_a_cell_that_the_model_cannot_know_is_refused_or_kept_from_it(artifact: Path, table: Path, run: Run) -> None:
    table.write_text("age,income\n39,>50K\n120,\n")
    out = table.with_name("out.csv")
    code, _, err = run(artifact, table, "--out", out)
    assert code == 1
    assert f"error: {table} line 3: age must be an integer between 17 and 90, got 120; --ignore-foreign keeps" in err
    assert not out.exists()
    code, _, err = run(artifact, table, "--out", out, "--ignore-foreign")
    assert code == 0
    assert 'note: column "age": 1 cells not known to the model, left as they are' in err
    assert out.read_text().splitlines()[2].startswith("120,")


def test_an_existing_file_stays_unless_it_may_go(artifact: Path, table: Path, run: Run) -> None:
    out = table.with_name("out.csv")
    out.write_text("mine")
    code, _, err = run(artifact, table, "--out", out)
    assert (code, err) == (2, f"error: --out {out}: exists; --force replaces it\n")
    assert out.read_text() == "mine"
    assert run(artifact, table, "--out", out, "--force")[0] == 0
    assert out.read_text() != "mine"


def test_the_file_to_fill_in_is_not_written_over(artifact: Path, table: Path, run: Run) -> None:
    source = table.rename(table.with_name("out.csv.partial"))
    before = source.read_bytes()
    code, _, err = run(artifact, source, "--out", table.with_name("out.csv"))
    assert (code, err.count("\n")) == (2, 1)
    assert "is written as" in err
    assert "that is the file to fill in" in err
    assert source.read_bytes() == before


def test_a_pipe_is_refused_as_it_cannot_be_read_twice(artifact: Path, tmp_path: Path, run: Run) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code, _, err = run(artifact, pipe, "--out", tmp_path / "out.csv")
    assert (code, err) == (1, f"error: {pipe} is a pipe or a device: must be a file, which is read twice\n")
    assert not (tmp_path / "out.csv").exists()


def test_cells_besides_empty_ones_are_filled_where_the_user_says_so(artifact: Path, table: Path, run: Run) -> None:
    table.write_text("age;income\n39;?\n40;unknown\n")
    out = table.with_name("out.csv")
    options = ("--delimiter", ";", "--missing", "?", "--missing", "unknown")
    assert run(artifact, table, "--out", out, *options)[0] == 0
    assert re.fullmatch(r"age;income\n39;[<>]=?50K\n40;[<>]=?50K\n", out.read_text())


def test_dates_are_filled_in_their_format(tmp_path: Path, run: Run) -> None:
    tokenizer = TableTokenizer.fit(
        {"day": np.arange(19000.0, 19200.0), "x": np.arange(200.0) % 5}, date_formats={"day": "DD.MM.YYYY"}
    )
    write_artifact(tmp_path / "dated", tokenizer=tokenizer)
    table, out = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text("x,day\n1,\n,8.1.2022\n")
    code, _, err = run(tmp_path / "dated", table, "--out", out)
    assert code == 0, err
    assert re.fullmatch(r"x,day\n1,\d\d\.\d\d\.2022\n[0-4],8\.1\.2022\n", out.read_text())


@pytest.mark.parametrize(
    ("content", "options", "code", "line"),
    [
        ("q\n1\n", (), 2, "has none of the model's columns (age, workclass, income, hours, rate)"),
        ("age\n\n", ("--order", "best"), 2, "--order: must be one of learned, uniform"),
        ("age\n\n", ("--mode", "--samples", "2"), 2, "--mode and --samples exclude each other"),
        ("age\n\n", ("--delimiter", "x"), 2, "--delimiter: must be"),
        ("age,income\n1\n", (), 1, "line 2 has 1 cell, the header 2"),
        ("age,income\nx,\n", (), 1, 'line 2: age must be an integer between 17 and 90, got "x"'),
    ],
)
def test_every_mistake_gets_one_line(
    artifact: Path, table: Path, run: Run, content: str, options: tuple[str, ...], code: int, line: str
) -> None:
    table.write_text(content)
    found, _, err = run(artifact, table, "--out", table.with_name("out.csv"), *options)
    assert found == code, err
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert line in last


def test_a_text_model_fills_no_table(tmp_path: Path, table: Path, run: Run) -> None:
    write_artifact(tmp_path / "prose", tokenizer=text_tokenizer())
    code, _, err = run(tmp_path / "prose", table, "--out", tmp_path / "out.csv")
    assert code == 2
    assert "impute needs a model of a table" in err


def test_memory_does_not_grow_with_the_file(artifact: Path, tmp_path: Path, run: Run) -> None:
    peaks = []
    for number in (3_000, 30_000):
        table = tmp_path / f"{number}.csv"
        table.write_text("age,income,note\n" + f"39,>50K,{'x' * 200}\n" * number)
        tracemalloc.start()
        assert run(artifact, table, "--out", tmp_path / f"out{number}.csv")[0] == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (tmp_path / f"out{number}.csv").read_bytes() == table.read_bytes()
    assert peaks[1] < 1.5 * peaks[0]


def test_a_parquet_file_is_filled_as_csv_is_and_keeps_its_types(artifact: Path, tmp_path: Path, run: Run) -> None:
    source, table = tmp_path / "people.parquet", tmp_path / "people.csv"
    moments = [datetime(2024, 1, 2, 3, 4, 5), None, None]
    frame = pl.DataFrame(
        {"age": [39, None, 41], "workclass": ["class 1", None, None], "at": moments, "rate": [None, 0.5, None]}
    ).with_columns(pl.col("age").cast(pl.Int16), pl.col("workclass").cast(pl.Categorical))
    frame.write_parquet(source)
    frame.write_csv(table)
    out = tmp_path / "full.parquet"
    code, _, err = run(artifact, source, "--out", out, "--seed", 3)
    assert code == 0, err
    assert 'note: column "at" is not the model\'s: 2 empty cells left as they are' in err
    assert err.endswith(f"wrote {out}: 5 cells filled in, seed 3\n")
    full = pl.read_parquet(out)
    assert full.schema == frame.schema
    assert full["at"].to_list() == moments
    assert run(artifact, table, "--out", tmp_path / "full.csv", "--seed", 3)[0] == 0
    rows = list(csv.DictReader((tmp_path / "full.csv").read_text().splitlines()))
    assert [int(row["age"]) for row in rows] == full["age"].to_list()
    assert [row["workclass"] for row in rows] == full["workclass"].to_list()
    assert [float(row["rate"]) for row in rows] == full["rate"].to_list()
    assert run(artifact, source, "--out", tmp_path / "as.csv.gz", "--seed", 3)[0] == 0
    assert pl.read_csv(gzip.decompress((tmp_path / "as.csv.gz").read_bytes()))["rate"].equals(full["rate"])
    assert run(artifact, source, "--out", tmp_path / "two.parquet", "--seed", 3, "--samples", 2)[0] == 0
    assert pl.read_parquet(tmp_path / "two.1.parquet").equals(full)
    assert not pl.read_parquet(tmp_path / "two.2.parquet").equals(full)


def test_what_a_parquet_file_cannot_become_is_refused(artifact: Path, table: Path, tmp_path: Path, run: Run) -> None:
    source = tmp_path / "lists.parquet"
    pl.DataFrame({"age": [39, None], "tags": [["a"], []]}).write_parquet(source)
    code, _, err = run(artifact, source, "--out", tmp_path / "x.csv", "--seed", 1)
    assert (code, err.splitlines()[-1][:6]) == (1, "error:")
    assert "a CSV file cannot hold lists, structs and bytes (tags); write .parquet" in err
    assert run(artifact, source, "--out", tmp_path / "x.parquet", "--seed", 1)[0] == 0
    assert pl.read_parquet(tmp_path / "x.parquet")["tags"].to_list() == [["a"], []]
    pl.DataFrame({"age": [39, 200]}).write_parquet(source)
    code, _, err = run(artifact, source, "--out", tmp_path / "y.parquet")
    assert (code, "row 1 (counted from 0): age must be an integer between 17 and 90" in err) == (1, True)
    assert not (tmp_path / "y.parquet").exists()
    code, _, err = run(artifact, table, "--out", tmp_path / "z.parquet")
    assert (code, "a CSV file is filled in as it is written, and comes out as CSV" in err) == (2, True)


def test_stdin_and_stdout_give_the_bytes_of_files(artifact: Path, table: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unveil.cli", "impute", str(artifact)]
    out = tmp_path / "out.csv"
    subprocess.run([*command, str(table), "--out", str(out), "--seed", "3"], check=True, capture_output=True)
    with table.open("rb") as given:
        piped = subprocess.run(
            [*command, "-", "--out", "-", "--seed", "3"], stdin=given, check=True, capture_output=True
        )
    assert piped.stdout == out.read_bytes()
    assert piped.stderr.decode().endswith("wrote stdout: 9 cells filled in, seed 3\n")
    assert "/unveil-" not in piped.stderr.decode()
    wrong = subprocess.run([*command, "-", "--out", "-"], input=b"age\n39\n200\n", check=False, capture_output=True)
    assert (wrong.returncode, wrong.stdout) == (1, b"age\n")
    assert wrong.stderr.splitlines()[-1].startswith(b"error: stdin line 3: age must be")


def test_one_stdout_holds_one_sample(artifact: Path, table: Path, run: Run) -> None:
    code, _, err = run(artifact, table, "--out", "-", "--samples", 2)
    assert (code, err) == (2, "error: --samples: makes several files, and --out - is one\n")


def test_a_condition_and_rules_hold_where_cells_are_filled(artifact: Path, tmp_path: Path, run: Run) -> None:
    table, out = tmp_path / "holes.csv", tmp_path / "full.csv"
    table.write_text("age,hours,income\n,5,\n20,5,\n,,\n80,,\n")
    given = ("--where", '{"income": ">50K"}', "--rule", "hours * 10 <= age", "--seed", 3)
    code, _, err = run(artifact, table, "--out", out, *given)
    assert code == 0, err
    assert 'note: the rule "hours * 10 <= age" cannot be kept in 1 rows, whose known cells break it' in err
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    assert {row[2] for row in rows} == {">50K"}
    assert [int(row[1]) * 10 <= int(row[0]) for row in rows] == [True, False, True, True]
    code, _, err = run(artifact, table, "--out", out, "--force", "--mode", "--rule", "hours < age")
    assert (code, "mode and rules exclude each other" in err) == (2, True)
