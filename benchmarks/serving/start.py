"""How soon does a server answer, and what does one command cost? Fresh processes, the bundled models.

    python -m benchmarks start [--quick] [--json] [--rounds N]

`unveil serve` with all bundled models on one core, asked for a row of `adult` every twentieth of a second: seconds from
the start of the process to the first reply, and to the first 200 of /health/ready; of the clock, and of the server's
own CPU time, which has a resolution of a hundredth. Beside it one call each of `unveil generate`, `score` and `order`
of every model, and `impute` of one, with the CPU seconds of the whole process; and Python importing torch and doing
nothing. All take turns, medians of the rounds. Seeds are fixed.
"""

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unveil.benchmarks.common.runs import timing_arguments
from unveil.benchmarks.serving.clients.served import Served, on_core
from unveil.training.run.parent import bound

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
FIRST = "adult"
PROMPTS = {"adult": '{"age": 39}', "sudoku": "53..7...." + "." * 72, "moses": "CC(=O)N[MASK:5]", "text": "[MASK:8]"}
SCORED = {"adult": '{"age": 39}', "sudoku": "53..7...." + "." * 72, "moses": "CC(=O)N", "text": "And he died."}
ROWS = "age,education,income\n39,,>50K\n"
SERVER_CORE, POLL_SECONDS = 0, 0.05


def main() -> None:
    given = timing_arguments(__doc__, rounds=5).parse_args()
    rounds = 1 if given.quick else given.rounds
    with tempfile.TemporaryDirectory() as folder:
        calls = commands([FIRST] if given.quick else list(PROMPTS), Path(folder))
        artifacts = [CHECKPOINTS / FIRST] if given.quick else []
        starts, taken = list[dict[str, float]](), {name: list[float]() for name in calls}
        for _ in range(rounds):
            starts.append(started(artifacts))
            for name, command in calls.items():
                taken[name].append(cpu_seconds(command))
    report = {
        "serve": {key: statistics.median(one[key] for one in starts) for key in starts[0]},
        "commands": {name: statistics.median(seconds) for name, seconds in taken.items()},
        "rounds": rounds,
    }
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def commands(models: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """What is called once in a fresh process, by name."""
    rows = folder / "rows.csv"
    rows.write_text(ROWS, encoding="utf-8")
    unveil = [sys.executable, "-m", "unveil.cli"]
    calls = {"import torch": [sys.executable, "-c", "import torch"]}
    for model in models:
        path = str(CHECKPOINTS / model)
        calls[f"generate {model}"] = [*unveil, "generate", path, PROMPTS[model], "--seed", "1"]
        calls[f"score {model}"] = [*unveil, "score", path, SCORED[model], "--seed", "1"]
        calls[f"order {model}"] = [*unveil, "order", path]
    target = [str(rows), "--out", str(folder / "full.csv"), "--force", "--seed", "1"]
    return calls | {f"impute {FIRST}": [*unveil, "impute", str(CHECKPOINTS / FIRST), *target]}


def cpu_seconds(command: Sequence[str]) -> float:
    """CPU time of a process and of all that it waited for, from its start to its end. Raises RuntimeError if it
    fails."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {said.read().decode()}")
    return usage.ru_utime + usage.ru_stime


def started(artifacts: Sequence[Path]) -> dict[str, float]:
    """Seconds until a new server answers for its first model, and for all. Raises RuntimeError if it ends early."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "unveil.cli", "serve", *map(str, artifacts), "--port", str(port)]
    begin = time.perf_counter()
    with on_core(SERVER_CORE):  # before it starts: its threads inherit the core
        process = subprocess.Popen(bound(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server, found = Served(port, process.pid), dict[str, float]()
    try:
        for name, body in (("first", {"model": FIRST, "prompt": {}, "seed": 1}), ("all", None)):
            while not is_answered(port, body):
                if process.poll() is not None:
                    raise RuntimeError("the server ended before it was ready")
                time.sleep(POLL_SECONDS)
            found[f"{name}_cpu_seconds"] = server.cpu_seconds()
            found[f"{name}_seconds"] = time.perf_counter() - begin
    finally:
        process.terminate()
        process.wait()
    return found


def is_answered(port: int, body: Mapping[str, Any] | None) -> bool:
    """Whether this request to /generate gets a 200, or without one /health/ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        if body is None:
            connection.request("GET", "/health/ready")
        else:
            connection.request("POST", "/generate", json.dumps(body))
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def as_text(report: Mapping[str, Any]) -> str:
    """The same for a reader."""
    serve = report["serve"]
    lines = [
        f"serve: {words} after {serve[f'{key}_cpu_seconds']:.2f} s of CPU, {serve[f'{key}_seconds']:.2f} s"
        for key, words in (("first", f"{FIRST} answers"), ("all", "all are ready"))
    ]
    return "\n".join([*lines, *(f"{name}: {value:.2f} s of CPU" for name, value in report["commands"].items())])


if __name__ == "__main__":
    main()
