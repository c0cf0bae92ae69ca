"""The command: what it prints, its exit codes, and one line for every mistake."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console

from tests.model.artifacts import text_tokenizer, write_artifact
from tests.training.small import write_csv
from unveil import cli
from unveil.commands import generation
from unveil.commands.output import print_json
from unveil.commands.reveal_view import RevealView
from unveil.training.evaluation.estimate import Estimate


def _run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["unveil", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    code = stop.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *arguments: _run(capsys, monkeypatch, *map(str, arguments))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "people"
    write_artifact(folder)
    return folder


@pytest.fixture(scope="module")
def text_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "prose"
    write_artifact(folder, tokenizer=text_tokenizer())
    return folder


def test_the_whole_road_from_a_csv_file_to_rows(tmp_path: Path, run: Any) -> None:
    table, out = write_csv(tmp_path / "mine.csv"), tmp_path / "mine"
    small = [
        "model.width=16",
        "model.layers=1",
        "optimizer.steps=20",
        "run.precision=32-true",
        "advanced.run.accelerator=cpu",
    ]
    code, _, err = run("train", "--table", table, "--out", out, *(p for s in small for p in ("--set", s)))
    assert code == 0, err
    assert "a: 4 levels (a0, a1, a2, a3)" in err
    assert f"wrote {out}; serve it with: unveil serve {out}" in err
    code, printed, _ = run("evaluate", out, "--json")
    assert code == 0
    metrics = json.loads(printed)
    assert metrics == json.loads((out / "config.json").read_text())["metrics"]
    assert all(0 <= metrics["fidelity"]["generated"][score] <= 1 for score in ("shape", "trend"))
    code, printed, _ = run("evaluate", out, "--rows", "20")
    assert code == 0
    assert "20 rows of the test split" in printed
    assert "beside the test rows" in printed
    code, printed, _ = run("order", out, "--plot", tmp_path / "order.svg")
    assert code == 0
    assert "First to last:" in printed
    assert ElementTree.fromstring((tmp_path / "order.svg").read_bytes()).tag.endswith("svg")
    code, _, err = run("generate", out, '{"a": "a1"}', "-n", "5", "--out", tmp_path / "rows.csv")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert len(rows) == 5
    assert all(row["a"] == "a1" and row["b"] in ("b0", "b1") and 0 <= int(row["d"]) <= 34 for row in rows)
    _compare_with_a_uniform_model(tmp_path, out, small, run)
    _renew_the_card(out, run)
    moved = table.rename(tmp_path / "moved.csv")
    code, _, err = run("evaluate", out)
    assert (code, err.count("\n")) == (1, 1)
    assert "mine.csv" in err
    assert "--table FILE" in err
    moved.rename(table)
    write_csv(table, num_rows=300)
    code, _, err = run("evaluate", out)
    assert code == 1
    assert "not the data that" in err
    code, _, err = run("evaluate", out, "--table", tmp_path / "none.csv")
    assert code == 1
    assert "none.csv" in err


def _renew_the_card(out: Path, run: Any) -> None:
    """New figures on the card and in the configuration; every other byte stays."""
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    code, printed, err = run("evaluate", out, "--rows", "20", "--update-card", "--json")
    assert code == 0, err
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"README.md", "config.json"}
    config = {name: json.loads(files["config.json"]) for name, files in (("before", before), ("after", after))}
    assert config["after"].pop("metrics") == json.loads(printed)
    assert config["before"].pop("metrics")["rows"] != 20
    assert config["after"] == config["before"]
    cards = {name: files["README.md"].decode() for name, files in (("before", before), ("after", after))}
    assert "On 20 rows of the test split" in cards["after"]
    for section in ("## Data", "## Learned order", "## Recipe", "## Limits"):
        parts = [card.split(f"\n{section}\n")[1].split("\n## ")[0] for card in cards.values()]
        assert parts[0] == parts[1], section
    code, _, err = run("evaluate", out, "--split", "train", "--update-card")
    assert (code, err.count("\n")) == (2, 1)
    assert "--update-card" in err
    del config["after"]["training"]["data"]
    (out / "config.json").write_text(json.dumps({**config["after"], "metrics": {}}), encoding="utf-8")
    code, _, err = run("evaluate", out, "--rows", "20", "--update-card")
    assert (code, err.count("\n")) == (1, 1)
    assert "training.data" in err


def test_a_table_of_another_delimiter_and_an_odd_name_is_taken(tmp_path: Path, run: Any) -> None:
    table = tmp_path / "my table (1).csv"
    table.write_text("a\tb\n" + "".join(f"{i}\tx{i % 2}\n" for i in range(12)), encoding="utf-8")
    code, _, said = run("train", "--table", table, "--schema")
    assert (code, said.count("\n")) == (1, 1)
    assert "one column only; is '\\t' the delimiter? (--delimiter; data.delimiter)" in said
    code, shown, _ = run("train", "--table", table, "--schema", "--delimiter", "\t")
    assert code == 0
    assert "b: 2 levels (x0, x1)" in shown
    code, _, said = run("train", "--table", table, "--schema", "--delimiter", "\t", "--bins", "b=4")
    assert code == 1
    assert 'column "b" holds text, and bins are of numbers and dates (--bins)' in said
    code, _, said = run("train", "--delimiter", ";", tmp_path / "recipe.toml")
    assert (code, said) == (2, "error: --delimiter: is only valid with --table\n")


def test_a_network_that_cannot_be_is_refused_in_one_line(tmp_path: Path, run: Any) -> None:
    table, both = write_csv(tmp_path / "mine.csv"), ("pair_bias=true", "relative_bias=true")
    settings = [part for key in both for part in ("--set", f"advanced.model.{key}")]
    code, _, err = run("train", "--table", table, "--out", tmp_path / "out", *settings)
    assert code == 1
    assert err.endswith("error: model: pair_bias says all that relative_bias can say; give one of them\n")
    assert not (tmp_path / "out").exists()


def test_json_has_null_for_what_is_not_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"mean": 1.5, "parts": [float("nan"), (float("inf"),)]})
    assert json.loads(capsys.readouterr().out) == {"mean": 1.5, "parts": [None, [None]]}
    assert str(Estimate.of(torch.tensor([2.0]))) == "2.0000, of one row"


def test_the_schema_is_shown_without_training_and_follows_the_options(tmp_path: Path, run: Any) -> None:
    table = write_csv(tmp_path / "mine.csv")
    options = ("--drop", "b", "--categorical", "d", "--schema", "--out", tmp_path / "out")
    code, printed, err = run("train", "--table", table, *options)
    assert (code, err) == (0, "")
    lines = printed.splitlines()
    assert lines[1] == "  a: 4 levels (a0, a1, a2, a3)"
    assert [line.split(":")[0].strip() for line in lines[1:4]] == ["a", "c", "d"]
    assert lines[4:] == ["rules that hold in every row; to have generated rows keep them, add", "  --rule 'pair(a, d)'"]
    assert lines[3].startswith("  d: 20 levels (0, 1, 10, 11, ...)")
    assert list(tmp_path.iterdir()) == [table]


def _compare_with_a_uniform_model(tmp_path: Path, out: Path, small: list[str], run: Any) -> None:
    """`--reference`: paired figures, and refusals of what cannot be compared."""
    table, uniform, other = tmp_path / "mine.csv", tmp_path / "uniform", tmp_path / "other"
    settings = [part for setting in small for part in ("--set", setting)]
    assert run("train", "--table", table, "--out", uniform, *settings, "--set", "order.method=uniform")[0] == 0
    code, printed, err = run("evaluate", out, "--rows", "20", "--reference", uniform, "--json")
    assert code == 0, err
    pairs = json.loads(printed)["reference"]["pairs"]
    for pair in pairs.values():
        expected = pair["model"]["mean"] - pair["reference"]["mean"]
        assert pair["difference"]["mean"] == pytest.approx(expected)
    assert {"learned_orders", "learned_order", "random_orders", "margin", "conditional"} == set(pairs), (
        "no sets, no best"
    )
    code, printed, _ = run("evaluate", out, "--rows", "20", "--reference", uniform)
    assert code == 0
    assert "Beside the uniform model. Costs on the same rows" in printed
    code, printed, err = run("evaluate", out, "--reference", out)
    assert (code, printed) == (1, "")
    assert f"--reference {out}: must be a model of uniform orders, and this one's are global" in err
    write_artifact(other, kind="uniform")
    code, printed, err = run("evaluate", out, "--reference", other)
    assert (code, printed) == (1, "")
    assert f"--reference {other}: not trained on the data of {out}" in err
    assert err.count("\n") == 1


def test_a_contextual_order_is_told_and_drawn_without_data(tmp_path: Path, run: Any) -> None:
    write_artifact(tmp_path / "people", kind="contextual")
    code, words, _ = run("order", tmp_path / "people", "--plot", tmp_path / "order.svg")
    assert code == 0
    assert words.startswith("The contextual order may depend on what has been revealed")
    assert "Rows of the least alike orders" in words
    assert ElementTree.fromstring((tmp_path / "order.svg").read_bytes()).tag.endswith("svg")
    code, printed, _ = run("order", tmp_path / "people", "--json")
    assert code == 0
    value = json.loads(printed)
    assert value["kind"] == "contextual"
    assert sorted(position["name"] for position in value["positions"]) == [
        "age",
        "hours",
        "income",
        "rate",
        "workclass",
    ]


def test_generate_gives_the_same_for_the_same_seed_and_keeps_what_is_known(artifact: Path, run: Any) -> None:
    command = ("generate", artifact, '{"age": 39, "income": ">50K"}', "-n", "70", "--seed", "7", "--json")
    replies = [json.loads(run(*command)[1]) for _ in range(2)]
    assert replies[0] == replies[1]
    samples = replies[0]["samples"]
    assert [sample["sample_index"] for sample in samples] == list(range(70))
    assert samples[0]["seed"] == 7
    assert all(sample["output"]["age"] == 39 and sample["output"]["income"] == ">50K" for sample in samples)
    assert replies[0]["usage"] == {"prompt_tokens": 2, "generated_tokens": 210, "denoising_steps": 210}
    alone = json.loads(
        run("generate", artifact, '{"age": 39, "income": ">50K"}', "--seed", samples[69]["seed"], "--json")[1]
    )
    assert alone["samples"][0]["reveals"] == samples[69]["reveals"]


def test_generate_follows_an_explicit_order_and_fills_text(text_artifact: Path, artifact: Path, run: Any) -> None:
    _, printed, _ = run("generate", artifact, "--order", "4,0,3,1,2", "--json")
    assert [r["position"] for r in json.loads(printed)["samples"][0]["reveals"]] == [4, 0, 3, 1, 2]
    _, printed, _ = run("generate", text_artifact, "ab[MASK:3]cd", "--seed", "1", "--order", "left_to_right")
    assert printed.startswith("ab")
    assert printed.endswith("cd\n")
    assert len(printed.replace("\n", "", 0)) == 8
    _, printed, _ = run("generate", text_artifact, "abc", "--length", "5", "--json")
    assert len(json.loads(printed)["samples"][0]["output"]) == 8


def test_score_gives_the_bound_or_the_exact_likelihood_and_a_term_for_each_known_position(
    artifact: Path, text_artifact: Path, run: Any
) -> None:
    prompt = '{"age": 39, "income": ">50K", "workclass": "[MISSING]"}'
    command = ("score", artifact, prompt, "--num-orders", "100", "--seed", "7", "--json")
    drawn, again = (json.loads(run(*command)[1]) for _ in range(2))
    assert drawn == again
    assert (drawn["seed"], drawn["num_orders"]) == (7, 100)
    assert drawn["usage"] == {"positions": 3, "forwards": 300}
    (found,) = drawn["scores"]
    assert found["standard_error"] > 0
    assert sum(term["nats"] for term in found["terms"]) == pytest.approx(found["nelbo"])
    code, printed, _ = run("score", artifact, prompt, "--num-orders", "100", "--seed", "7")
    assert code == 0
    assert f"NELBO {found['nelbo']:.4f} ± {found['standard_error']:.4f} nats, 100 drawn orders, seed 7" in printed
    assert "[MISSING]" in printed
    exact = json.loads(run("score", artifact, prompt, "--order", "2,0,1", "--json")[1])["scores"][0]
    assert {term["name"]: term["mean_step"] for term in exact["terms"]} == {"income": 0, "age": 1, "workclass": 2}
    _, printed, _ = run("score", artifact, prompt, "--order", "2,0,1")
    assert f"log-likelihood {exact['log_likelihood']:.4f} nats, exact along this order" in printed
    _, printed, _ = run("score", text_artifact, "ab\nc[MASK:3]", "--num-orders", "1", "--order", "uniform")
    assert '"\\n"' in printed
    assert "± unknown nats, 1 drawn orders" in printed


def test_a_generated_row_scored_with_its_seed_costs_what_it_said(artifact: Path, run: Any) -> None:
    (sample,) = json.loads(run("generate", artifact, "--seed", "5", "--json")[1])["samples"]
    command = ("score", artifact, json.dumps(sample["output"]), "--seed", "5", "--num-orders", "1", "--json")
    (found,) = json.loads(run(*command)[1])["scores"]
    assert found["nelbo"] == pytest.approx(-sample["logprob"])


def test_what_is_given_to_score_is_free(artifact: Path, run: Any) -> None:
    (sample,) = json.loads(run("generate", artifact, '{"age": 39}', "--seed", "5", "--json")[1])["samples"]
    command = ("score", artifact, json.dumps(sample["output"]), "--given", '{"age": 39}', "--seed", "5", "--json")
    (found,) = json.loads(run(*command, "--num-orders", "1")[1])["scores"]
    assert "age" not in {term["name"] for term in found["terms"]}
    assert found["nelbo"] == pytest.approx(-sample["logprob"])


MISTAKES: list[tuple[tuple[str, ...], int, str]] = [
    (("nonsense",), 2, "No such command 'nonsense'"),
    (("train",), 2, "train: must be given a recipe, --table FILE or --freeze-denoiser ARTIFACT"),
    (("train", "none.toml"), 1, "none.toml: no such recipe"),
    (("train", "--table", "none.csv"), 1, "none.csv"),
    (
        ("train", "--table", "none.csv", "--out", "{artifact}/.."),
        1,
        "holds something that is not an artifact, so it is not replaced",
    ),
    (("train", "--table", "none.csv", "--out", "{artifact}/config.json"), 1, "is a file; an artifact is a folder"),
    (("evaluate", "{artifact}"), 1, "does not say what data it was trained on"),
    (("evaluate", "{artifact}", "--split", "tests"), 2, "--split: must be train, validation or test"),
    (("order", "nowhere"), 1, "nowhere: no such artifact folder"),
    (("order", "{artifact}", "--plot", "order.png"), 2, "must be a file name that ends in .svg, got order.png"),
    (("generate", "{artifact}", "{bad"), 2, "prompt: must be JSON"),
    (("generate", "{artifact}", '{"age": "old"}'), 2, "age must be an integer between 17 and 90"),
    (("generate", "{artifact}", '{"agee": 39}'), 2, 'unknown column "agee"; did you mean "age"?'),
    (("generate", "{artifact}", "--order", "best"), 2, "order"),
    (("generate", "{artifact}", "--order", "0,0"), 2, "order must list every hidden position once"),
    (("generate", "{artifact}", "--steps", "2", "--threshold", "0.5"), 2, "exclude each other"),
    (("generate", "{artifact}", "--length", "3"), 2, "length"),
    (("generate", "{artifact}", "--json", "--out", "x.csv"), 2, "--json and --out exclude each other"),
    (("generate", "{artifact}", "-n", "0"), 2, "--num-samples"),
    (("generate", "{artifact}", "--out", "{artifact}/none/rows.csv"), 1, "/none/rows.csv: No such file or directory"),
    (("generate", "{artifact}", "--out", "{artifact}"), 1, "Is a directory"),
    (("generate", "{artifact}", "--out", "/dev/full"), 1, "No space left on device"),
    (("generate", "{artifact}", '{"age": 39, "age": 40}'), 2, 'the name "age" occurs twice in an object'),
    (("generate", "{artifact}", '{"age": NaN}'), 2, "NaN is not a JSON number"),
    (("generate", "{artifact}", "--order", "²,1"), 2, "order must be one of learned, uniform"),
    (("generate", "{artifact}", "--order", "9" * 5000), 2, "order must be one of learned, uniform"),
    (("generate", "{artifact}", "--top-p", "0"), 2, "top_p must be greater than 0"),
    (("generate", "{artifact}", "--steps", "1001"), 2, "steps must be at most 1000 here"),
    (("order", "{artifact}", "--plot", "{artifact}/none/order.svg"), 1, "/none/order.svg: No such file or directory"),
    (("score", "{artifact}"), 2, "nothing to score: no position is known"),
    (("score", "{artifact}", "{bad"), 2, "prompt: must be JSON"),
    (("score", "{artifact}", '{"age": 39}', "--given", "{bad"), 2, "given: must be JSON"),
    (("score", "{artifact}", '{"age": 39}', "--given", '{"age": 20}'), 2, "and"),
    (("score", "{artifact}", '{"agee": 39}'), 2, 'unknown column "agee"; did you mean "age"?'),
    (("score", "{artifact}", '{"age": 39}', "--order", "margin", "--num-orders", "2"), 2, "order margin is one order"),
    (("score", "{artifact}", '{"age": 39}', "--order", "1"), 2, "order must list every known position once"),
    (("score", "{artifact}", '{"age": 39}', "--num-orders", "0"), 2, "--num-orders"),
    (("score", "{artifact}", '{"age": 39}', "--order", "best"), 2, "or a list of all known positions"),
    (("score", "nowhere", "{}"), 1, "nowhere"),
    (("train", "--table", "none.csv", "--bins", "few"), 1, "--bins few: must be a number, or NAME=NUMBER"),
    (("train", "--table", "none.csv", "--date", "a=b"), 1, "data.columns.a: format must be as in YYYY-MM-DD"),
    (("train", "--table", "none.csv", "--drop", "a", "--date", "a"), 1, 'column "a" is named by --drop and by --date'),
    (("impute", "{artifact}", "none.csv", "--out", "x.csv"), 1, "none.csv cannot be read: No such file"),
    (("impute", "{artifact}", "none.csv"), 2, "Missing option '--out'"),
    (("serve", "nowhere"), 1, "nowhere"),
    (("serve", "--port", "99999999"), 2, "--port"),
]


@pytest.mark.parametrize(("arguments", "code", "line"), MISTAKES, ids=[" ".join(m[0])[:40] for m in MISTAKES])
def test_every_mistake_gets_one_line_and_its_exit_code(
    artifact: Path, run: Any, arguments: tuple[str, ...], code: int, line: str
) -> None:
    given = [argument.replace("{artifact}", str(artifact)) for argument in arguments]
    found, out, err = run(*given)
    assert found == code, err
    assert err.startswith("error: ")
    assert line in err
    assert err.count("\n") == 1
    assert out == ""


def test_the_command_is_installed_and_imports_nothing_heavy_for_its_help() -> None:
    code = "import sys, unveil.cli; print(sorted({'torch', 'fastapi', 'polars', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    command = Path(sys.executable).with_name("unveil")
    if not command.exists():
        pytest.skip("the project is not installed in this environment")
    help_text = subprocess.run([command, "--help"], capture_output=True, text=True, check=True, env=dict(os.environ))
    for name in ("train", "import", "evaluate", "order", "generate", "impute", "score", "bench", "serve"):
        assert name in help_text.stdout


def _drawn(view: RevealView) -> str:
    console = Console(file=io.StringIO(), width=60, color_system=None)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_shows_hidden_cells_as_dots_and_numbers_the_reveals() -> None:
    view = RevealView([{"canvas": [39, None, None], "hidden": [1, 2]}], ["age", "sex", "income"])
    steps: list[str] = []
    for position, value in ((2, ">50K"), (1, "Female")):
        view.reveal(0, {"position": position, "value": value})
        steps.append(_drawn(view))
    assert "·" in _drawn(RevealView([{"canvas": [None], "hidden": [0]}], ["age"]))
    assert "[/b]speed [m/s]" in _drawn(RevealView([{"canvas": [1], "hidden": []}], ["[/b]speed [m/s]"]))
    assert ">50K  1" in steps[0]
    assert "·" in steps[0]
    assert "Female  2" in steps[1]
    assert "·" not in steps[1]
    text = RevealView([{"canvas": ["a", None, "c"], "hidden": [1]}], None)
    assert _drawn(text).strip() == "a·c"


def test_a_terminal_gets_a_frame_for_each_step_and_then_the_seeds(
    artifact: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = list[None]()
    monkeypatch.setattr(generation, "_draw", lambda live: frames.append(live.refresh()))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, printed, err = run("generate", artifact, "-n", 3, "--tokens-per-step", 2, "--seed", 4)
    assert code == 0
    assert len(frames) == 3, "five columns, two a step"
    assert "sample 2" in printed
    assert err.splitlines()[0] == "seed 4"
    assert err.count("seed ") == 3


def test_the_terminal_shows_a_grid_in_boxes() -> None:
    start = {"canvas": ["5", *[None] * 80], "hidden": list(range(1, 81))}
    view = RevealView([start], None, side=9)
    view.reveal(0, {"position": 80, "value": "9"})
    lines = [line.rstrip() for line in _drawn(view).splitlines()]
    assert len(lines) == 11
    assert lines[0] == "5 · · │ · · · │ · · ·"
    assert lines[3] == lines[7] == "──────┼───────┼──────"
    assert lines[10] == "· · · │ · · · │ · · 9"
    view.unreveal(0, [80])
    assert _drawn(view).splitlines()[10].rstrip() == "· · · │ · · · │ · · ·"


def test_an_interrupt_says_that_a_training_run_resumes_and_nothing_of_the_kind_elsewhere(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "app", lambda **_: 130)  # what typer gives for a SIGINT
    assert run("train", "recipe.toml") == (130, "", "error: interrupted; the same command resumes the run\n")
    assert run("evaluate", "checkpoints/adult") == (130, "", "error: interrupted\n")
