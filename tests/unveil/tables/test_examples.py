"""The examples run as they stand, on fewer rows and steps."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LESS = {
    "sample(2000,": "sample(60,",
    'time="2m"': 'optimizer={"steps": 3, "batch_size": 8}, run={"evaluate_rows": 4, "threads": 1}',
}


def test_the_example_of_tables_prints_samples_filled_cells_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "examples" / "tables.py").read_text()
    for part, other in LESS.items():
        assert text.count(part) == 1
        text = text.replace(part, other)
    (tmp_path / "tables.py").write_text(text)
    monkeypatch.chdir(ROOT)
    names = runpy.run_path(str(tmp_path / "tables.py"))
    assert names["model"].sample(20, where={"age": {"max": 40}}, seed=1)["age"].max() <= 40
    assert names["model"].impute(names["holes"], seed=1)["occupation"].null_count() == 0
    assert capsys.readouterr().out.count("shape: (5,") == 4
