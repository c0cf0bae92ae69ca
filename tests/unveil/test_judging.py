"""`unveil evaluate --judge` on a small trained table, in a process of its own."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.apart import apart
from tests.training.small import write_csv
from tests.unveil.commands import run_command
from unveil.training.run.parent import bound

needs_judges = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("pandas", "sklearn", "xgboost")), reason="they come with unveil[evaluate]"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    small = ("model.width=16", "optimizer.steps=60", "run.precision=32-true", "advanced.run.accelerator=cpu")
    sets = [word for setting in (*small, "run.evaluate_rows=10") for word in ("--set", setting)]
    code, _, err = _run("train", "--table", write_csv(folder / "mine.csv"), "--out", folder / "mine", *sets)
    assert code == 0, err
    return folder / "mine"


def _run(*arguments: Any) -> tuple[int, str, str]:
    command = bound([sys.executable, "-m", "unveil.cli", *map(str, arguments)])
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.returncode, found.stdout, found.stderr


@needs_judges
def test_judges_say_what_they_found_with_a_page_and_fail_where_it_is_not_enough(trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "mine.html"
    limits = ("--fail-below", "shape=0.1", "--fail-below", "c2st=1.01")
    code, out, err = _run("evaluate", trained, "--judge", "--target", "a", "--html", page, "--json", *limits)
    judged = json.loads(out)
    assert code == 1
    assert err.splitlines()[-1].startswith(f"error: c2st is {judged['c2st']['generated']:.4f}, below 1.01")
    assert "generating 480 rows" in err
    assert judged["rows"] == 480
    assert judged["target"] == "a"
    assert judged["learned"]["measure"] == "accuracy"
    for name in ("c2st", "logistic", "shape", "trend", "precision", "recall"):
        assert 0 <= judged[name]["generated"] <= 1, name
        assert 0 <= judged[name]["test_rows"] <= 1, name
    assert judged["c2st"]["test_rows"] > 0.7
    assert 0 < judged["attack"] < 1
    assert [column["name"] for column in judged["columns"]] == ["a", "b", "c", "d"]
    assert "<svg" in page.read_text()
    assert _evaluate(trained) == judged


def _evaluate(folder: Path) -> dict[str, Any]:
    return apart(_evaluated, folder)  # type: ignore[no-any-return]


def _evaluated(folder: Path) -> dict[str, Any]:
    import unveil

    return unveil.load(folder).evaluate(target="a")


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (("--judge", "--fail-below", "c2ts=1"), 2, "no such figure; did you mean c2st?"),
        (("--judge", "--split", "train"), 2, "--judge: is not valid with --split"),
        (("--html", "x.html"), 2, "--html: is only valid with --judge"),
        (("--fail-below", "c2st=1"), 2, "--fail-below: is only valid with --judge"),
        (("--judge", "--html", "x.txt"), 2, "must be a file name that ends in .html"),
        (("--judge", "--html", "/no/such/folder/x.html"), 2, "its folder does not exist"),
        (("--judge", "--target", "zzz"), 1, "--target zzz: no such column; the columns are a, b, c, d"),
    ],
)
def test_a_mistake_gets_one_line(
    trained: Path,
    options: tuple[str, ...],
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if find_spec("xgboost") is None and "--target" in options:
        pytest.skip("xgboost comes with unveil[evaluate]")
    found, out, err = run_command(capsys, monkeypatch, "evaluate", trained, *options)
    assert (found, out) == (code, "")
    assert line in err.splitlines()[-1]
