"""The walls of the house: who may import whom, how long things may grow, and that every figure has its script."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("model", "training", "service", "unveil", "benchmarks")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

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
    "scoring",
)
TORCH_FREE_IN_MODEL = ("canvas", "chain", "errors", "manifest", "seeds", "tokenizers")
MAX_FILE_LINES, MAX_FUNCTION_LINES, MEDIAN_FUNCTION_LINES = 400, 50, 10


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_there_is_something_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(ROOMS)
    for name in PURE:
        assert (ROOT / "model" / f"{name}.py").exists(), name


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_rooms_import_only_what_they_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for imported in _imports(path):
        top = imported.split(".")[0]
        assert top not in ROOMS or top == room or top in MAY_IMPORT[room], f"{_name(path)} imports {imported}"


@pytest.mark.parametrize("name", PURE)
def test_the_mathematics_never_imports_the_network(name: str) -> None:
    assert not [i for i in _imports(ROOT / "model" / f"{name}.py") if "transformer" in i or "artifact" in i]


def test_only_the_engine_knows_torch_in_the_service() -> None:
    for path in (ROOT / "service").rglob("*.py"):
        if not path.name.startswith("engine"):
            assert not [i for i in _imports(path) if i.split(".")[0] == "torch"], _name(path)


def test_the_scheduler_knows_no_http() -> None:
    forbidden = {"fastapi", "starlette", "uvicorn", "torch", "prometheus_client"}
    assert not {i.split(".")[0] for i in _imports(ROOT / "service" / "scheduler.py")} & forbidden


def test_what_the_http_side_shares_with_the_model_needs_no_torch() -> None:
    front = ["service.catalog", "service.messages", "service.planning", "service.scheduler", "unveil.cli"]
    modules = [f"model.{name}" for name in TORCH_FREE_IN_MODEL] + front
    code = f"import sys\nimport {', '.join(modules)}\nassert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_model_reads_no_clock_and_no_environment_and_prints_nothing() -> None:
    for path in (ROOT / "model").rglob("*.py"):
        imported = set(_imports(path))
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
    for node in _functions(path):
        assert _length(node) <= MAX_FUNCTION_LINES, f"{_name(path)}:{node.lineno} {node.name} is {_length(node)} lines"


def test_functions_are_short() -> None:
    lengths = sorted(_length(node) for path in SOURCES for node in _functions(path))
    assert lengths[len(lengths) // 2] <= MEDIAN_FUNCTION_LINES


def test_no_pickle_is_read_but_by_the_checkpoints_and_the_import_takes_tensors_alone() -> None:
    for path in SOURCES:
        loads = re.findall(r"(?<!safetensors\.)torch\.load\(.*", path.read_text())
        if path == ROOT / "training" / "imports" / "source.py":
            assert len(loads) == 1, "old weights are read in one place"
            assert "weights_only=True" in loads[0]
        else:
            assert not loads, _name(path)
        assert not set(_imports(path)) & {"pickle", "dill", "joblib"}, _name(path)


def test_every_benchmark_named_in_the_results_exists_and_every_benchmark_is_named() -> None:
    named = set(re.findall(r"python -m benchmarks\.(\w+)", (ROOT / "docs" / "results.md").read_text()))
    existing = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__"}
    assert named == existing


def test_nothing_in_the_project_needs_a_folder_outside_it() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "training" / "recipes").glob("*.toml")]
    for path in [*documents, *SOURCES]:
        assert "../shared" not in path.read_text(), _name(path)
