"""How long things may grow, what they say of themselves, and that documents name what there is."""

import ast
import re
from pathlib import Path

import pytest

from tests.module_graph import functions_of, imports_of, num_lines
from tests.test_walls import ROOT, TREE
from unveil.benchmarks.__main__ import found

SOURCES = TREE.files

BEHIND_THE_COMMAND = ("in_process",)  # what `unveil bench` runs; the results' figures are engine's
MAX_FILE_LINES, MAX_FUNCTION_LINES, MEDIAN_FUNCTION_LINES = 400, 50, 10


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_model_reads_no_clock_and_no_environment_and_prints_nothing() -> None:
    for path in (ROOT / "model").rglob("*.py"):
        imported = {name for name, _ in imports_of(path)}
        assert not imported & {"time", "datetime", "logging", "os.environ"}, _name(path)
        calls = {node.func.id for node in ast.walk(ast.parse(path.read_text())) if _is_named_call(node)}  # type: ignore[attr-defined]
        assert "print" not in calls, _name(path)
        assert "os.environ" not in path.read_text(), _name(path)


def _is_named_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_every_module_says_what_it_is_and_stays_within_its_size(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{_name(path)} has no docstring"
    assert len(text.splitlines()) <= MAX_FILE_LINES, f"{_name(path)} is too long"
    lengths = {f"{node.lineno} {node.name}": num_lines(node) for node in functions_of(path)}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}, _name(path)


def test_there_is_one_error_for_all_that_users_can_cause() -> None:
    """A ValueError of another kind would be a traceback on the command line."""
    classes = [
        node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    ]
    own = {node.name for node in classes if "ValueError" in map(ast.unparse, node.bases)}
    assert own == {"UnveilError"}


def test_functions_are_short() -> None:
    lengths = sorted(num_lines(node) for path in SOURCES for node in functions_of(path))
    assert lengths[len(lengths) // 2] <= MEDIAN_FUNCTION_LINES


def test_no_pickle_is_read_but_by_the_checkpoints_and_the_import_takes_tensors_alone() -> None:
    for path in SOURCES:
        loads = re.findall(r"(?<!safetensors\.)torch\.load\(.*", path.read_text())
        if path == ROOT / "importers" / "source.py":
            assert len(loads) == 1, "old weights are read in one place"
            assert "weights_only=True" in loads[0]
        else:
            assert not loads, _name(path)
        assert not {name for name, _ in imports_of(path)} & {"pickle", "dill", "joblib"}, _name(path)


def test_every_benchmark_named_in_the_results_exists_and_every_benchmark_is_named() -> None:
    named = set(re.findall(r"python -m benchmarks (\w+)", (ROOT / "docs" / "results.md").read_text()))
    assert named == set(found()) - set(BEHIND_THE_COMMAND)


def test_every_file_that_the_plan_names_exists_and_a_road_has_at_most_25() -> None:
    text = (ROOT / "docs" / "lifecycle.md").read_text()
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")[1:]}
    named = {title: set(re.findall(r"`([\w/]+\.py)`", part)) for title, part in sections.items()}
    assert sorted(name for names in named.values() for name in names if not (ROOT / name).exists()) == []
    roads = {title: len(names) for title, names in named.items() if title.endswith("in 25 files")}
    assert len(roads) == 2
    assert set(roads.values()) == {25}


def test_nothing_in_the_project_needs_a_folder_outside_it() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "training" / "recipes").glob("*.toml")]
    for path in [*documents, *SOURCES]:
        assert "../shared" not in path.read_text(), _name(path)
