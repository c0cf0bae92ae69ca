"""The walls of the house: who may import whom, how long things may grow, and that every figure has its script."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.module_graph import Tree, functions_of, imports_of, num_lines

ROOT = Path(__file__).parent.parent
ROOMS = ("model", "training", "service", "unveil", "benchmarks")
TREE = Tree(ROOT, ROOMS)
SOURCES, MODULES = TREE.files, TREE.modules

# Who may know whom; a room always knows itself.
MAY_IMPORT = {
    "model": set(),
    "training": {"model"},
    "service": {"model"},
    "unveil": {"model", "training", "service"},
    "benchmarks": {"model", "training", "service", "unveil"},
}
# The mathematics takes a callable; it never knows the network.
PURE = (
    *("schedule", "orders", "prefixes", "draws", "objective", "baseline", "exact", "noise", "policies", "sampler"),
    *("scoring", "decode_loop"),
)
BEHIND_THE_COMMAND = ("in_process", "reference_loop")  # what `unveil bench` runs; the results' figures are engine's
MAX_FILE_LINES, MAX_FUNCTION_LINES, MEDIAN_FUNCTION_LINES = 400, 50, 10


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# What must be there where torch is not: all that serves but the engine. Three may import the engine when it is needed.
TORCH_FREE = (
    *(module for module in MODULES if module.startswith("service") and not module.startswith("service.engine")),
    *(module for module in MODULES if module.startswith("model.tokenizers")),
    *(f"model.{name}" for name in ("canvas", "chain", "decode_loop", "errors", "manifest", "seeds")),
    *("unveil", "unveil.api", "unveil.cli"),
)
MAY_LOAD_TORCH_LATE = ("service.server", "unveil.api", "unveil.cli")
HEAVY = ("torch", "lightning", "transformers", "safetensors")


def test_there_is_something_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(ROOMS)
    for name in PURE:
        assert (ROOT / "model" / f"{name}.py").exists(), name


def test_the_way_to_an_import_is_found_through_others_and_through_functions_where_asked() -> None:
    assert TREE.reached("unveil.cli", when=["module"])["service.environment"] == ["unveil.cli", "service.environment"]
    assert "torch" not in TREE.reached("unveil.cli", when=["module"])
    assert TREE.reached("unveil.cli")["torch"][0] == "unveil.cli"
    assert len(TREE.reached("service.engine", when=["module"])["torch"]) > 2, "torch comes through others"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room: str) -> None:
    others = [module for module in MODULES if module.split(".")[0] not in {room, *MAY_IMPORT[room]}]
    assert not TREE.ways((m for m in MODULES if m.split(".")[0] == room), others)


@pytest.mark.parametrize("name", PURE)
def test_the_mathematics_never_imports_the_network(name: str) -> None:
    networks = [module for module in MODULES if "transformer" in module or "artifact" in module]
    assert not TREE.ways([f"model.{name}"], networks)


def test_only_the_engine_knows_torch_in_the_service() -> None:
    assert set(TORCH_FREE) <= set(MODULES)
    assert not TREE.ways(TORCH_FREE, HEAVY, when=["module"])
    assert not TREE.ways(set(TORCH_FREE) - set(MAY_LOAD_TORCH_LATE), HEAVY, when=["module", "function"])


def test_the_http_side_runs_where_there_is_no_torch() -> None:
    """What others' packages import, no reading of our files can tell."""
    code = f"import sys\nsys.modules['torch'] = None\nimport {', '.join(TORCH_FREE)}"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_scheduler_and_the_messages_know_no_http_and_no_torch() -> None:
    forbidden = {"fastapi", "starlette", "uvicorn", "torch", "prometheus_client"}
    assert not TREE.ways(["service.scheduler", "service.messages"], forbidden)


def test_the_engine_knows_no_http() -> None:
    engine = [module for module in MODULES if module.startswith("service.engine")]
    assert not TREE.ways(engine, {"uvicorn", "service.app", "service.routes", "service.dispatcher"})


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
        if path == ROOT / "training" / "imports" / "source.py":
            assert len(loads) == 1, "old weights are read in one place"
            assert "weights_only=True" in loads[0]
        else:
            assert not loads, _name(path)
        assert not {name for name, _ in imports_of(path)} & {"pickle", "dill", "joblib"}, _name(path)


def test_every_benchmark_named_in_the_results_exists_and_every_benchmark_is_named() -> None:
    named = set(re.findall(r"python -m benchmarks\.(\w+)", (ROOT / "docs" / "results.md").read_text()))
    existing = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__", *BEHIND_THE_COMMAND}
    assert named == existing


def test_nothing_in_the_project_needs_a_folder_outside_it() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "training" / "recipes").glob("*.toml")]
    for path in [*documents, *SOURCES]:
        assert "../shared" not in path.read_text(), _name(path)
