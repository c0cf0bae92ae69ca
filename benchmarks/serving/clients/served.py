"""A real `unveil serve` on a core of its own, and what it costs there."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from unveil.training.run.parent import bound

_POLL_SECONDS, _STOP_SECONDS = 0.05, 60.0


class Served(NamedTuple):
    """A server that is ready."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """What all threads of the server have taken so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keeps this process on one core; -1 is the last of those it has."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def served(folder: Path | None, settings: Mapping[str, object], *, core: int) -> Iterator[Served]:
    """Serves one artifact, or the bundled ones, with these settings, named without their prefix. Raises RuntimeError if
    it ends early."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {f"UNVEIL_{name.upper()}": str(value) for name, value in settings.items()}
    folders = [] if folder is None else [str(folder)]
    with on_core(core):  # before it starts: its threads inherit the core
        process = subprocess.Popen(
            bound([sys.executable, "-m", "unveil.cli", "serve", *folders, "--port", str(port)]),
            env={**os.environ, **environment},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    try:
        asyncio.run(_until_ready(port, process))
        yield Served(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _until_ready(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            status = (await reader.readline()).split()[1:2]
            writer.close()
            if status == [b"200"]:
                return
        except OSError:
            pass
        await asyncio.sleep(_POLL_SECONDS)
    raise RuntimeError("the server ended before it was ready")
