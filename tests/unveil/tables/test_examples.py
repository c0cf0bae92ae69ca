"""The examples run as they stand, on fewer rows and steps."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from unveil.training.run.parent import bound

ROOT = Path(__file__).parents[3]
LESS = {
    "sample(2000,": "sample(60,",
    'time="2m"': 'optimizer={"steps": 3, "batch_size": 8}, run={"evaluate_rows": 4, "threads": 1}',
}
MORE = """
rows = model.sample(20, where={"age": {"max": 40}}, seed=1)
assert rows["age"].max() <= 40
pairs = set(people.select("education", "education-num").iter_rows())
assert set(rows.select("education", "education-num").iter_rows()) <= pairs
assert model.impute(holes, seed=1)["occupation"].null_count() == 0
print("all of it holds")
"""


@pytest.mark.skipif(find_spec("xgboost") is None, reason="its judges come with unveil[evaluate]")
def test_the_example_of_tables_prints_samples_filled_cells_scores_and_what_judges_say(tmp_path: Path) -> None:
    """In a process of its own: what judges import does not stay here."""
    text = (ROOT / "examples" / "tables.py").read_text()
    for part, other in LESS.items():
        assert text.count(part) == 1
        text = text.replace(part, other)
    (tmp_path / "tables.py").write_text(text + MORE)
    run = bound([sys.executable, str(tmp_path / "tables.py")])
    found = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("shape: (5,") == 4
    assert "{'generated': " in found.stdout
    assert found.stdout.endswith("all of it holds\n")
