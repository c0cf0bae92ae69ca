"""The service as a process: it serves an artifact from disk, drains on SIGTERM, and ends with the right exit code."""

import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.integration.processes import serving, start
from tests.model.artifacts import text_tokenizer, write_artifact
from tests.service.mocks import WAIT_SECONDS
from tests.service.servers import events_of, wait_until
from unveil.engine.worker import MAX_FAILED_STEPS

PROGRAM = """
import sys
from unveil.engine import environment
environment.prepare()
from unveil.service.server import serve
from unveil.service.settings import load_settings
sys.exit(serve(load_settings({"artifacts": sys.argv[1:], "port": 0})))
"""
STUCK = f"""
import torch
from unveil.engine import runner
def step(self, canvases):
    while True:
        torch.ones(64, 64).softmax(-1)
runner.Runner.step = step
{PROGRAM}"""

HELD = f"""
import os, time
from unveil.engine import runner
step = runner.Runner.step
def held(self, canvases):
    while not os.path.exists(os.environ["HELD_UNTIL"]):
        time.sleep(0.01)
    return step(self, canvases)
runner.Runner.step = held
{PROGRAM}"""
BROKEN = f"""
from unveil.engine import runner
def step(self, canvases):
    raise RuntimeError("CUDA error: device-side assert triggered")
runner.Runner.step = step
{PROGRAM}"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "words"
    write_artifact(folder, tokenizer=text_tokenizer(length=256, default_length=240), kind="contextual")
    return folder


def _serving(
    artifact: Path, program: str = PROGRAM, **environment: str
) -> AbstractContextManager[tuple["subprocess.Popen[str]", str]]:
    command = [sys.executable, "-c", program, str(artifact)]
    return serving(command, UNVEIL_LOG_LEVEL="info", UNVEIL_MAX_BATCH="4", **environment)


def test_sigterm_lets_a_running_stream_finish_behind_an_open_socket_and_the_process_ends_with_0(
    artifact: Path, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    environment = {"HELD_UNTIL": str(go_on), "UNVEIL_DRAIN_TIMEOUT_SECONDS": str(WAIT_SECONDS)}
    with (
        _serving(artifact, program=HELD, **environment) as (process, url),
        httpx.Client(base_url=url, timeout=WAIT_SECONDS) as client,
    ):
        with client.stream("POST", "/generate", json={"prompt": "", "stream": True, "num_samples": 4}) as response:
            events = events_of(response.iter_lines())
            assert next(events)[0] == "start"
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: client.get("/health/ready").status_code == 503)
            assert client.get("/health/live").status_code == 200
            assert client.post("/generate", json={"prompt": ""}).json()["error"]["type"] == "draining"
            go_on.touch()
            kinds = [kind for kind, _ in events]
        assert kinds.count("sample") == 4
        assert kinds[-1] == "done"
        assert process.wait(WAIT_SECONDS) == 0


def test_what_is_not_finished_when_the_drain_is_over_is_answered_and_the_exit_code_is_0(
    artifact: Path, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    environment = {"HELD_UNTIL": str(go_on), "UNVEIL_DRAIN_TIMEOUT_SECONDS": "0"}
    with _serving(artifact, program=HELD, **environment) as (process, url):
        body = {"prompt": "", "stream": True, "num_samples": 64}
        with httpx.stream("POST", f"{url}/generate", json=body, timeout=WAIT_SECONDS) as response:
            events = events_of(response.iter_lines())
            assert next(events)[0] == "start"
            process.send_signal(signal.SIGTERM)
            kind, data = list(events)[-1]
        go_on.touch()
        assert (kind, data["error"]["type"]) == ("error", "draining")
        assert process.wait(WAIT_SECONDS) == 0


def test_the_exit_code_is_0_even_if_the_engine_is_in_a_step_that_does_not_end(artifact: Path) -> None:
    with _serving(artifact, program=STUCK, UNVEIL_DRAIN_TIMEOUT_SECONDS="0") as (process, url):
        body = {"prompt": "", "stream": True}
        with httpx.stream("POST", f"{url}/generate", json=body, timeout=WAIT_SECONDS) as response:
            events = events_of(response.iter_lines())
            assert next(events)[0] == "start"
            process.send_signal(signal.SIGTERM)
            kind, data = list(events)[-1]
        assert (kind, data["error"]["type"]) == ("error", "draining")
        assert process.wait(WAIT_SECONDS) == 0


def test_an_engine_that_fails_at_every_step_answers_and_then_ends_the_process_with_1(artifact: Path) -> None:
    with (
        _serving(artifact, program=BROKEN) as (process, url),
        httpx.Client(base_url=url, timeout=WAIT_SECONDS) as client,
    ):
        for _ in range(MAX_FAILED_STEPS):
            assert client.get("/health/live").status_code == 200
            assert client.post("/generate", json={"prompt": "[MASK]"}).json()["error"]["type"] == "internal"
        assert process.wait(WAIT_SECONDS) == 1


def test_damaged_weights_are_one_line_on_stderr_and_exit_code_1(artifact: Path, tmp_path: Path) -> None:
    write_artifact(tmp_path / "a")
    weights = tmp_path / "a" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    process = start([sys.executable, "-c", PROGRAM, str(tmp_path / "a")], UNVEIL_LOG_LEVEL="error")
    _, stderr = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert "truncated or altered" in line
    assert "Traceback" not in stderr
