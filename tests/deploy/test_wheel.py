"""The installed package: the wheel in an environment of its own, where nothing of this checkout is on the path."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
ROOMS = ("model", "engine", "service", "training", "importers", "benchmarks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "unveil", *ROOMS):
        subprocess.run(["cp", "-a", str(ROOT / name), str(source)], check=True)  # links stay links, as in a clone
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "-w", str(folder), str(source)], check=True, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel, and of this environment the packages it depends on, but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    found = folder / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        str(found),
        "install",
        "-q",
        "--no-deps",
    ]
    subprocess.run([*pip, str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched, and .pth files in it are not read: so the editable install stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return found


def _run(python: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments], cwd=python.parent, env=environment, capture_output=True, text=True, check=False
    )


def test_nothing_but_unveil_lands_on_the_import_path(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"unveil"}
    assert {name.split("/")[1] for name in names if name.count("/") > 1 and name.startswith("unveil/")} == {
        *ROOMS,
        "commands",
        "tables",
    }


def test_the_wheel_has_every_file_that_the_code_reads(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    kinds = {".py", ".toml", ".html", ".css", ".js", ".svg", ".csv"}
    ours = {
        f"unveil/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in kinds and "results" not in path.parts and "__pycache__" not in path.parts
    }
    assert ours <= names, sorted(ours - names)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_found_in_the_package_and_nowhere_else(python: Path, room: str) -> None:
    code = f"import importlib.util as u; print(u.find_spec('{room}'), u.find_spec('unveil.{room}').origin)"
    result = _run(python, ["-c", code])
    assert result.returncode == 0, result.stderr
    alone, _, origin = result.stdout.strip().partition(" ")
    assert alone == "None"
    assert str(ROOT) not in origin


def test_the_installed_command_generates_as_the_checkout_does(python: Path) -> None:
    arguments = ["generate", str(ROOT / "checkpoints" / "adult"), '{"age": 39}', "--seed", "7", "--json"]
    installed = _run(python, [str(python.parent / "unveil"), *arguments])
    assert installed.returncode == 0, installed.stderr
    here = _run(Path(sys.executable), ["-m", "unveil.cli", *arguments])
    assert installed.stdout == here.stdout
    assert '"age": 39' in installed.stdout
