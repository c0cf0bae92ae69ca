"""What does HTTP cost, and how long do requests wait? A real `unveil serve` on one core, its client on another.

    python -m benchmarks.http [--quick] [--json] [--model adult] [--seconds N]

Requests for a whole row (nothing known, one sample, one position a step, learned order). Saturation: 32 connections,
each asking again as soon as it is answered, whole replies and streams; beside it the same requests planned and decoded
in process, in a process pinned to the server's core. CPU seconds of the server a request, and HTTP's share of them.
Then an open loop: arrivals of a Poisson process at shares of the streams' saturation, whatever is answered, with
percentiles of first reveal, of the time between reveals and of the total, and beyond saturation the share refused.
No independent load generator has confirmed it yet.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from service.catalog import Source, load_catalog
from service.planning import plan_generation
from service.schemas import GenerateRequest
from service.settings import Settings
from unveil.speed import engine_decode, load_subject

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
CONNECTIONS, QUICK_CONNECTIONS = 32, 4
LOADS = (0.2, 0.5, 0.8, 0.95, 1.3)
_SERVER_CORE, _CLIENT_CORE = 0, -1


class Answer(NamedTuple):
    """Seconds since the request left: the first reveal (None in whole replies), the gaps between reveals, the end."""

    status: int
    first: float | None
    gaps: tuple[float, ...]
    total: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half a second of everything, one load")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="adult", help="a bundled model")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    given = parser.parse_args()
    seconds, loads = (0.5, LOADS[1:2]) if given.quick else (given.seconds, LOADS)
    connections = QUICK_CONNECTIONS if given.quick else CONNECTIONS
    found = measured(given.model, seconds=seconds, loads=loads, connections=connections)
    print(json.dumps(found, indent=2) if given.json else as_text(found))


def measured(model: str, *, seconds: float, loads: Sequence[float], connections: int) -> dict[str, Any]:
    """All of it, on one server."""
    alone = in_process(model, num=connections)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "unveil.cli", "serve", str(CHECKPOINTS / model), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    cores = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(process.pid, {cores[_SERVER_CORE]})
        os.sched_setaffinity(0, {cores[_CLIENT_CORE]})
        asyncio.run(_until_ready(port, process))
        sides = {
            name: saturated(
                port, process.pid, model, seconds=seconds, connections=connections, is_streamed=name == "streamed"
            )
            for name in ("plain", "streamed")
        }
        rate = sides["streamed"]["requests_per_second"]
        open_loop = [
            {"load": load, **asyncio.run(_open_loop(port, model, rate=load * rate, seconds=seconds))} for load in loads
        ]
    finally:
        os.sched_setaffinity(0, cores)
        process.terminate()
        process.wait(timeout=60)
    for side in sides.values():
        side["over_in_process"] = side["requests_per_second"] / alone["requests_per_second"]
        side["http_share_of_cpu"] = 1 - alone["cpu_seconds_a_request"] / side["server_cpu_seconds_a_request"]
    return {"model": model, "seconds": seconds, "connections": connections, "in_process": alone, **sides} | {
        "open_loop": open_loop
    }


def in_process(model: str, *, num: int) -> dict[str, float]:
    """The same requests planned and decoded without HTTP, on the server's core."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[_SERVER_CORE]})
    try:
        source, settings = Source(model, CHECKPOINTS / model), Settings()
        subject = load_subject(source, max_batch=settings.max_batch)
        served = load_catalog([source]).get(None)
        canvases = [
            plan_generation(GenerateRequest(prompt=_prompt(model), seed=seed), served, settings).canvases[0]
            for seed in range(num)
        ]
        engine_decode(subject, canvases)
        rounds, begin, begin_cpu = 3, time.perf_counter(), time.process_time()
        for _ in range(rounds):
            engine_decode(subject, canvases)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    finally:
        os.sched_setaffinity(0, cores)
    return {"requests_per_second": rounds * num / seconds, "cpu_seconds_a_request": cpu / (rounds * num)}


def saturated(
    port: int, pid: int, model: str, *, seconds: float, connections: int, is_streamed: bool
) -> dict[str, float]:
    """Requests a second when every connection asks again at once, and the server's CPU seconds for each."""
    before = _cpu_seconds(pid)
    begin = time.perf_counter()
    answers = asyncio.run(_closed_loop(port, model, seconds=seconds, connections=connections, is_streamed=is_streamed))
    taken = time.perf_counter() - begin
    assert all(answer.status == 200 for answer in answers)
    return {
        "requests_per_second": len(answers) / taken,
        "server_cpu_seconds_a_request": (_cpu_seconds(pid) - before) / len(answers),
    }


async def _closed_loop(port: int, model: str, *, seconds: float, connections: int, is_streamed: bool) -> list[Answer]:
    end = time.perf_counter() + seconds

    async def ask_again(number: int) -> list[Answer]:
        answers: list[Answer] = []
        while not answers or time.perf_counter() < end:
            answers.append(
                await ask(port, model=model, seed=number + connections * len(answers), is_streamed=is_streamed)
            )
        return answers

    return [answer for own in await asyncio.gather(*map(ask_again, range(connections))) for answer in own]


async def _open_loop(port: int, model: str, *, rate: float, seconds: float) -> dict[str, Any]:
    draws = random.Random(0)
    tasks: list[asyncio.Task[Answer]] = []
    end = time.perf_counter() + seconds
    while not tasks or time.perf_counter() < end:
        tasks.append(asyncio.create_task(ask(port, model=model, seed=len(tasks), is_streamed=True)))
        await asyncio.sleep(draws.expovariate(rate))
    answers = await asyncio.gather(*tasks)
    good = [answer for answer in answers if answer.status == 200]
    return {
        "requests": len(answers),
        "refused": sum(answer.status == 429 for answer in answers),
        "first_reveal_seconds": _percentiles([answer.first for answer in good if answer.first is not None]),
        "inter_reveal_seconds": _percentiles([gap for answer in good for gap in answer.gaps]),
        "total_seconds": _percentiles([answer.total for answer in good]),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ranked = sorted(values)
    return {f"p{p}": ranked[min(len(ranked) * p // 100, len(ranked) - 1)] for p in (50, 95, 99)}


async def ask(port: int, *, model: str, seed: int, is_streamed: bool) -> Answer:
    """One request on a connection of its own, read to its end."""
    body = json.dumps({"prompt": _prompt(model), "seed": seed, "stream": is_streamed}).encode()
    head = f"POST /generate HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    begin, times = time.perf_counter(), []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        status = int((await reader.readline()).split()[1])
        while line := await reader.readline():
            if line.startswith(b"event: reveal"):
                times.append(time.perf_counter() - begin)
    finally:
        writer.close()
    gaps = tuple(b - a for a, b in pairwise(times))
    return Answer(status, times[0] if times else None, gaps, time.perf_counter() - begin)


def _prompt(model: str) -> Any:
    """Everything hidden."""
    return {} if model == "adult" else "." * 81


async def _until_ready(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            if (await reader.readline()).split()[1:2] == [b"200"]:
                return
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(0.05)
    raise RuntimeError("the server ended before it was ready")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def as_text(found: dict[str, Any]) -> str:
    """The same for a reader."""
    lines = [f"{found['model']}: in process {found['in_process']['requests_per_second']:.1f} requests a second"]
    for name in ("plain", "streamed"):
        side = found[name]
        lines.append(
            f"{name}: {side['requests_per_second']:.1f} a second (x{side['over_in_process']:.2f} of in process),"
            f" {1000 * side['server_cpu_seconds_a_request']:.2f} ms of CPU each, {side['http_share_of_cpu']:.0%} HTTP's"
        )
    for row in found["open_loop"]:
        first, total = row["first_reveal_seconds"], row["total_seconds"]
        lines.append(
            f"load {row['load']:.2f}: first reveal p50 {1000 * first['p50']:.1f} ms, p99 {1000 * first['p99']:.1f} ms;"
            f" total p50 {1000 * total['p50']:.1f} ms, p99 {1000 * total['p99']:.1f} ms; {row['refused']} refused"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
