"""The Dockerfile is clean, and what it says about the service is what the code says."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.deploy.dockerfile import ROOT, image, image_environment, instructions, last
from unveil.engine.environment import VARIABLES
from unveil.service.settings import PREFIX, Settings


def test_hadolint_finds_nothing() -> None:
    beside_python = str(Path(sys.executable).parent)
    hadolint = shutil.which("hadolint", path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    result = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_every_stage_starts_from_the_one_base() -> None:
    assert ("ARG", "BASE=python:3.11-slim") in instructions()
    stages = [rest for name, rest in instructions() if name == "FROM"]
    assert stages == ["${BASE} AS build", "${BASE} AS runtime"]


def test_buildah_can_build_it_too() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "--link" not in text
    assert "<<" not in text
    assert "--mount" not in text


def test_it_runs_as_a_number_that_is_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))
    assert image().index(("USER", last("USER"))) > max(i for i, (name, _) in enumerate(image()) if name == "RUN")


def test_signals_reach_the_server_itself() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["unveil"]
    assert json.loads(last("CMD")) == ["serve"]
    assert last("STOPSIGNAL") == "SIGTERM"


def test_its_environment_is_made_of_real_settings() -> None:
    environment = image_environment()
    names = {name for name in environment if name.startswith(PREFIX)}
    assert names == {"UNVEIL_HOST", "UNVEIL_PORT", "UNVEIL_CHECKPOINTS"}
    assert {name.removeprefix(PREFIX).lower() for name in names} <= set(Settings.model_fields)
    assert environment["UNVEIL_HOST"] == "0.0.0.0"
    assert environment["UNVEIL_PORT"] == last("EXPOSE") == str(Settings.model_fields["port"].default)
    assert ("COPY", f"checkpoints {environment['UNVEIL_CHECKPOINTS']}") in image()
    assert environment.items() >= VARIABLES.items()


@contextmanager
def _answering(status: int, asked: list[str]) -> Iterator[int]:
    """A server that answers every GET with one status; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _check_health(port: int) -> int:
    command = json.loads(last("HEALTHCHECK").partition("CMD")[2])
    assert command[:2] == ["python", "-c"]
    environment = {**os.environ, "UNVEIL_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    arguments = [sys.executable, *command[1:]]
    return subprocess.run(arguments, env=environment, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_asks_whether_the_server_is_live_and_fails_where_it_is_not(status: int, code: int) -> None:
    asked: list[str] = []
    with _answering(status, asked) as port:
        assert _check_health(port) == code
    assert asked == ["/health/live"]


def test_the_health_check_fails_where_nobody_answers() -> None:
    with _answering(200, []) as port:
        pass
    assert _check_health(port) == 1


def _is_sent(path: str) -> bool:
    """Whether .dockerignore lets a path into the build: its last pattern that fits the path or a folder above it."""
    sent = True
    above = [str(Path(*Path(path).parts[: i + 1])) for i in range(len(Path(path).parts))]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
            if any(re.fullmatch(pattern, part) for part in above):
                sent = line.startswith("!")
    return sent


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".env",
        "runs/adult/model.safetensors",
        "checkpoints/adult.run/step-100/state.pt",
        "tests/conftest.py",
        "deploy/compose.yaml",
        "docs/operations.md",
        "service/__pycache__/app.cpython-311.pyc",
        "service/.env",
        "unveil.egg-info/PKG-INFO",
        "secrets.txt",
    ],
)
def test_what_the_image_does_not_need_is_not_sent_to_the_build(path: str) -> None:
    assert not _is_sent(path)


def test_what_the_image_needs_is_sent_to_the_build() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["unveil*"]
    rooms = ["unveil", *(path.resolve().name for path in (ROOT / "unveil").iterdir() if path.is_symlink())]
    assert "service" in rooms
    sources = [path for room in rooms for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".toml", ".html")]
    assert sources
    needed = [str(path.relative_to(ROOT)) for path in sources]
    needed += ["pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]]
    needed += [f"checkpoints/adult/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")]
    assert [path for path in needed if not _is_sent(path)] == []
