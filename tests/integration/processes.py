"""Servers in processes of their own."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.service.mocks import WAIT_SECONDS

ROOT = Path(__file__).resolve().parents[2]


def start(command: Sequence[str], **environment: str) -> "subprocess.Popen[str]":
    """In the project's folder, with no `UNVEIL_*` but those given, and with stderr to be read."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("UNVEIL_")}
    variables = {**inherited, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=variables)


@contextmanager
def serving(command: Sequence[str], **environment: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server on any free port, and its address once it says that it is ready; it is killed in the end."""
    process = start(command, **environment)
    assert process.stderr is not None
    rest = threading.Thread(target=process.stderr.read, daemon=True)
    try:
        url, is_ready = "", False
        for line in process.stderr:
            entry: dict[str, Any] = json.loads(line)
            url = entry.get("url", url)
            if is_ready := entry["event"] == "ready":
                break
        assert is_ready, f"it ended with {process.wait()} before it was ready"
        rest.start()
        yield process, url
    finally:
        process.kill()
        process.wait()
        if rest.is_alive():
            rest.join(WAIT_SECONDS)
        process.stderr.close()
