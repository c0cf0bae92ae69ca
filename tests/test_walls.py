"""The walls of the house: who may know whom, how long functions and how full folders may grow. Imports are followed to
the end, through others' modules, inside functions and under TYPE_CHECKING."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.module_graph import ALWAYS, Tree, functions_of, is_within, num_lines

ROOT = Path(__file__).parent.parent
PREFIX = "unveil."
FOLDERS = ("model", "engine", "service", "training", "importers", "benchmarks", "unveil")
TREE = Tree(ROOT, FOLDERS, PREFIX)

# Room: those that it may know, and whom they may know. It knows itself; the name of a room stands for the rooms in it.
# A module is of the room with the longest name.
WALLS: dict[str, tuple[str, ...]] = {
    "model": (),
    "model.errors": (),
    "model.confidence": (),
    "model.denoiser": (),
    "model.order": (),
    "model.loss": ("model.order",),
    "model.oracle": ("model.order",),
    "model.search": ("model.loss", "model.oracle"),
    "model.decoding": ("model.order", "model.confidence", "model.denoiser", "model.errors"),
    "model.network": ("model.order", "model.confidence", "model.denoiser", "model.errors"),
    "model.along": ("model.network", "model.decoding"),
    "model.tokenizers": ("model.errors",),
    "model.artifact": ("model.network", "model.tokenizers"),
    "engine": ("model", "engine.request.errors"),
    "engine.request": ("engine",),
    "engine.request.errors": ("model.errors",),
    "service": ("engine",),
    "training": (),
    "training.levels": (),
    "training.data": ("model", "training.levels"),
    "training.order_config": ("model", "training.levels"),
    "training.config": ("training.data", "training.order_config"),
    "training.evaluation": ("training.config",),
    "training.step": ("training.evaluation",),
    "training.run": ("training.step",),
    "training.trainer": ("training.run",),
    "training.budget": ("training.trainer",),
    "training.publishing": ("training.trainer",),
    "importers": ("model",),
    "unveil": ("service", "training", "importers"),
    "benchmarks": ("unveil",),
}

HEAVY = ("torch", "lightning", "transformers", "safetensors")
HTTP = ("fastapi", "starlette", "uvicorn", "h11", "prometheus_client")
# What must be there where torch is not: all that serves but the engine. Three load the engine when it is needed.
NO_TORCH = (
    *("service", "engine.request", "engine.messages", "engine.scheduler", "model.tokenizers"),
    *("unveil.cli", "unveil.api"),
)
TORCH_IN_FUNCTIONS = ("service.server", "unveil.cli", "unveil.api")
NO_HTTP = ("model", "engine", "training", "importers")

MAX_FOLDER_FILES, MAX_FUNCTION_LINES = 14, 50


def room_of(module: str, walls: dict[str, tuple[str, ...]]) -> str:
    return max((room for room in walls if is_within(module, room)), key=len)


def may_know(room: str, walls: dict[str, tuple[str, ...]]) -> set[str]:
    """The rooms that it may know, those that they may know, and so on."""
    found: set[str] = set()
    waiting = [room]
    while waiting:
        for other in walls[waiting.pop()]:
            inside = {name for name in walls if is_within(name, other)} - found
            found |= inside
            waiting += inside
    return found


def trespasses(tree: Tree, room: str, walls: dict[str, tuple[str, ...]]) -> list[str]:
    """How the modules of a room come to know what they must not, a line each."""
    known = {room, *may_know(room, walls)}
    forbidden = {module for module in tree.modules if room_of(module, walls) not in known}
    return tree.ways((module for module in tree.modules if room_of(module, walls) == room), forbidden)


def without_prefix(tree: Tree) -> list[str]:
    """Imports of our folders by their bare names, which nobody has who installs the package."""
    bare = [folder for folder in tree.folders if f"{folder}." != tree.prefix]
    firsts = ((module, found.name.partition(".")[0]) for module in tree.modules for found in tree.imports(module))
    return [f"{module} > {first}" for module, first in firsts if first in bare]


def full_folders(tree: Tree) -> list[str]:
    folders = [path.parent for path in tree.files]
    counts = {str(folder.relative_to(tree.root)): folders.count(folder) for folder in set(folders)}
    return sorted(f"{name}: {count} files" for name, count in counts.items() if count > MAX_FOLDER_FILES)


def long_functions(tree: Tree) -> list[str]:
    return [
        f"{module}.{function.name}: {num_lines(function)} lines"
        for module, path in tree.modules.items()
        for function in functions_of(path)
        if num_lines(function) > MAX_FUNCTION_LINES
    ]


def test_every_room_has_a_module_and_every_module_a_room() -> None:
    assert [room for room in WALLS if not TREE.within([room])] == []
    assert TREE.within(WALLS) == list(TREE.modules)


@pytest.mark.parametrize("room", WALLS)
def test_a_room_knows_only_what_it_may(room: str) -> None:
    assert trespasses(TREE, room, WALLS) == []


def test_all_is_imported_under_the_prefix() -> None:
    assert without_prefix(TREE) == []


def test_what_serves_is_importable_without_torch() -> None:
    modules = TREE.within(NO_TORCH)
    assert TREE.ways(modules, HEAVY, when=["module"]) == []
    assert TREE.ways(set(modules) - set(TORCH_IN_FUNCTIONS), HEAVY, when=["module", "function"]) == []


def test_what_serves_is_imported_where_there_is_no_torch() -> None:
    """What others' packages import, no reading of our files can tell."""
    names = [name if name.startswith(PREFIX) else PREFIX + name for name in TREE.within(NO_TORCH)]
    code = f"import sys\nsys.modules['torch'] = None\nimport {', '.join(names)}"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_what_does_not_serve_knows_no_http() -> None:
    assert TREE.ways(TREE.within(NO_HTTP), HTTP, when=["module", "function"]) == []


def test_no_folder_is_too_full_and_no_function_too_long() -> None:
    assert full_folders(TREE) == []
    assert long_functions(TREE) == []


# The walls themselves, on small trees that break them.


def make(root: Path, files: dict[str, str]) -> Tree:
    """A tree of files by their paths without `.py`; no folder holds an `__init__` that is not named."""
    for name, text in files.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(root, FOLDERS, PREFIX)


def test_an_import_through_others_is_found_with_its_way(tmp_path: Path) -> None:
    tree = make(
        tmp_path,
        {
            "model/order/a": "from unveil.model.order import b",
            "model/order/b": "from unveil.model.confidence import c\nimport numpy",
            "model/confidence": "import unveil.service.app\nc = 1",
            "service/app": "",
        },
    )
    through = "model.order.b > model.confidence"
    assert set(trespasses(tree, "model.order", WALLS)) == {
        through,
        f"{through} > service.app",
        f"model.order.a > {through}",
        f"model.order.a > {through} > service.app",
    }
    assert trespasses(tree, "model.confidence", WALLS) == ["model.confidence > service.app"]


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    from unveil.training.trainer import train",
        "class A:\n    def f(self):\n        import unveil.training.trainer",
        "f = lambda: __import__('unveil.training.trainer')",
        "from importlib import import_module\ntrainer = import_module('unveil.training.trainer')",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from unveil.training.trainer import Trainer",
        "try:\n    import unveil.training.trainer as t\nexcept ImportError:\n    t = None",
    ],
)
def test_an_import_is_found_wherever_it_is_written(tmp_path: Path, text: str) -> None:
    tree = make(tmp_path, {"model/errors": text, "training/trainer": ""})
    assert trespasses(tree, "model.errors", WALLS) == ["model.errors > training.trainer"]


def test_times_of_imports_are_told_apart(tmp_path: Path) -> None:
    tree = make(
        tmp_path,
        {
            "service/app": "from unveil.service import server",
            "service/server": "import typing\nif typing.TYPE_CHECKING:\n    import torch\ndef f(): import safetensors",
        },
    )
    assert tree.ways(["service.app"], HEAVY, when=["module"]) == []
    assert tree.ways(["service.app"], HEAVY, when=["module", "function"]) == [
        "service.app > service.server > safetensors"
    ]
    assert len(tree.ways(["service.app"], HEAVY, when=ALWAYS)) == 2


def test_what_a_packages_init_imports_is_imported_by_all_that_is_in_it(tmp_path: Path) -> None:
    tree = make(
        tmp_path,
        {
            "unveil/__init__": "def __getattr__(name):\n    from unveil import api",
            "unveil/api": "import torch",
            "service/app": "from unveil.engine.request import limits",
            "engine/__init__": "import torch",
            "engine/request/limits": "",
            "importers/one": "from unveil import load",
        },
    )
    assert tree.ways(["service.app"], HEAVY) == ["service.app > engine.request.limits > engine > torch"]
    assert trespasses(tree, "engine.request", WALLS) == [], "what a package holds is not asked for by its name"
    assert tree.ways(["engine.request.limits"], HEAVY) == ["engine.request.limits > engine > torch"]
    assert trespasses(tree, "importers", WALLS) == ["importers.one > unveil", "importers.one > unveil > unveil.api"]


def test_rooms_in_a_room_are_known_with_it_and_not_by_each_other(tmp_path: Path) -> None:
    tree = make(
        tmp_path,
        {
            "model/network/base": "import unveil.model.decoding.batch",
            "model/decoding/batch": "import unveil.model.errors",
            "model/errors": "",
            "engine/runner": "import unveil.model.network.base",
            "training/data/rows": "import unveil.training.step.batches",
            "training/step/batches": "import unveil.training.data.rows, unveil.model.errors",
        },
    )
    assert trespasses(tree, "model.network", WALLS) == ["model.network.base > model.decoding.batch"]
    assert trespasses(tree, "training.data", WALLS) == ["training.data.rows > training.step.batches"]
    assert trespasses(tree, "engine", WALLS) == trespasses(tree, "training.step", WALLS) == []


def test_nobody_may_know_the_benchmarks() -> None:
    assert [room for room in WALLS if "benchmarks" in may_know(room, WALLS)] == []
    assert may_know("benchmarks", WALLS) == set(WALLS) - {"benchmarks"}


def test_a_bare_import_of_a_folder_of_ours_is_found(tmp_path: Path) -> None:
    tree = make(tmp_path, {"model/a": "from model.errors import E", "unveil/cli": "import unveil.model.a"})
    assert without_prefix(tree) == ["model.a > model"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    tree = make(tmp_path, {"model/a": "", "unveil/cli": "from unveil.model import a"})
    (tmp_path / "unveil" / "model").symlink_to("../model")
    assert sorted(tree.modules) == ["model.a", "unveil.cli"]
    assert tree.reached("unveil.cli")["model.a"] == ["unveil.cli", "model.a"]


def test_a_folder_of_fifteen_files_and_a_function_of_fifty_one_lines_are_found(tmp_path: Path) -> None:
    files = {f"model/order/m{n}": "" for n in range(MAX_FOLDER_FILES)}
    fits = "def fits():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1)
    tree = make(tmp_path, {**files, "model/a": fits})
    assert full_folders(tree) == long_functions(tree) == []
    tree = make(tmp_path, {"model/order/more": "", "model/a": fits + "    x = 1\n"})
    assert full_folders(tree) == ["model/order: 15 files"]
    assert long_functions(tree) == ["model.a.fits: 51 lines"]


def test_relative_imports_are_refused(tmp_path: Path) -> None:
    tree = make(tmp_path, {"model/a": "from . import b", "model/b": ""})
    with pytest.raises(AssertionError, match="imports must be absolute"):
        tree.reached("model.a")
