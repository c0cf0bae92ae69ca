"""What does HTTP cost, and how long do requests wait? A real `unveil serve` on one core, its clients on another.

    python -m benchmarks http [--quick] [--json] [--seconds N] [--models adult,moses,...] [--no-large] [--large-only]

Saturation: connections that are kept, each asking again as soon as it is answered, whole replies and streams, counted
while all are busy, requests at the edges by their share; beside it the same canvases decoded by the same engine in
process, on the server's core, before and after (both are given, their mean is compared). CPU seconds of the server a
request, and HTTP's share of them. The bundled models get whole rows, grids, and 24 or 64 new tokens, at 32 connections;
a random network of BERT-base's shape texts with 4 holes among 128 characters, at 8. One sample a request, one position
a step, the model's own order, one thread.

Of the first model also: a new connection for every request; an open loop on a short queue, arrivals of a Poisson
process at shares of the streams' saturation, with percentiles of first reveal, of the time between reveals and of the
total, and the share refused (429); and locust, where it is installed, beside our own clients: the same requests, users
and seconds, so that neither generator has to be believed alone. The seeds of requests and weights are fixed.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from unveil.benchmarks.serving.clients.http_load import Answer, Body, closed_loop, open_loop, percentiles
from unveil.benchmarks.serving.clients.served import Served, on_core, served
from unveil.benchmarks.speed.engine import LARGE, QUICK_LARGE, SEED
from unveil.benchmarks.speed.in_process import engine_decode, load_subject
from unveil.engine.catalog import Source, load_catalog
from unveil.engine.request.planning import plan_generation
from unveil.engine.request.schemas import GenerateRequest
from unveil.model.artifact.folder import save_artifact
from unveil.model.network.architecture import Architecture, OrderSpec
from unveil.model.network.transformer import Transformer
from unveil.model.tokenizers.text import TextTokenizer
from unveil.service.settings import Settings
from unveil.training.run.parent import bound

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
LOCUSTFILE = Path(__file__).resolve().parent / "clients" / "locustfile.py"
_MOST_LOCUST_SECONDS = 300
PROMPTS: dict[str, Any] = {"adult": {}, "sudoku": "." * 81, "moses": "[MASK:24]", "text": "[MASK:64]"}
CONNECTIONS, LARGE_CONNECTIONS, QUICK_CONNECTIONS = 32, 8, 4
LOADS, QUICK_LOADS = (0.2, 0.5, 0.8, 0.95, 1.3, 2.0), (0.5,)
QUEUE, HOLES, FIRST_CHARACTER = 64, 4, 0x4E00
SERVER_CORE, CLIENT_CORE = 0, -1
SERVER = {"device": "cpu", "threads": 1}  # as the engine in process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half a second of everything, one model, one load")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of each measurement; six times as long on the large"
    )
    parser.add_argument("--models", default=",".join(PROMPTS), help="bundled ones, the first of them in every detail")
    parser.add_argument("--no-large", action="store_true", help="without the network of BERT-base's shape")
    parser.add_argument("--large-only", action="store_true", help="nothing but that one")
    given = parser.parse_args()
    names = [] if given.large_only else given.models.split(",")[: 1 if given.quick else None]
    if unknown := set(names) - PROMPTS.keys():
        parser.error(f"--models: {', '.join(sorted(unknown))}: not one of {', '.join(PROMPTS)}")
    seconds = 0.5 if given.quick else given.seconds
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("needs two cores, one for the server and one for its clients")
    num = QUICK_CONNECTIONS if given.quick else CONNECTIONS
    report: dict[str, Any] = {"seconds": seconds, "torch": torch.__version__, "models": []}
    for name in names:
        report["models"].append(saturation(CHECKPOINTS / name, PROMPTS[name], seconds=seconds, num=num))
    if names:
        report |= details(names[0], seconds=seconds, num=num, loads=QUICK_LOADS if given.quick else LOADS)
    if not given.no_large:
        report["large"] = large(seconds=seconds, is_quick=given.quick)
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def large(*, seconds: float, is_quick: bool) -> dict[str, Any]:
    """A random network of BERT-base's shape, whose arithmetic takes nearly all of the time."""
    torch.manual_seed(SEED)
    architecture = Architecture(**(QUICK_LARGE if is_quick else LARGE))
    L, V = architecture.length, architecture.vocabulary_sizes[0]
    characters = "".join(map(chr, range(FIRST_CHARACTER, FIRST_CHARACTER + V)))
    prompt = ("".join(characters[:: V // L][: L // HOLES - 1]) + "[MASK:1]") * HOLES
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large"
        save_artifact(
            path,
            denoiser=Transformer(architecture, OrderSpec(kind="uniform")),
            tokenizer=TextTokenizer.train_characters([characters], length=L, default_length=L),
            training={},
            metrics={},
            card="Random weights, to measure with.",
        )
        num = QUICK_CONNECTIONS if is_quick else LARGE_CONNECTIONS
        return saturation(path, prompt, seconds=6 * seconds, num=num, max_batch=num, name="random, BERT-base's shape")


def saturation(
    folder: Path, prompt: Any, *, seconds: float, num: int, name: str = "", **settings: int
) -> dict[str, Any]:
    """The engine in process and `num` kept connections, plain and streamed: requests a second and CPU seconds each."""
    alone = InProcess(folder, prompt, num=num, **settings)
    first = alone.measured(seconds)
    with served(folder, {**SERVER, **settings}, core=SERVER_CORE) as server, on_core(CLIENT_CORE):
        sides = {
            side: saturated(server, request(folder.name, prompt, is_streamed=side == "streamed"), seconds, num)
            for side in ("plain", "streamed")
        }
    both = [first, alone.measured(seconds)]
    mean = {key: sum(one[key] for one in both) / len(both) for key in first}
    for row in sides.values():
        row["over_in_process"] = row["requests_per_second"] / mean["requests_per_second"]
        row["cpu_over_in_process"] = mean["cpu_seconds_a_request"] / row["server_cpu_seconds_a_request"]
        row["http_share_of_cpu"] = 1 - row["cpu_over_in_process"]
    return {"model": name or folder.name, "connections": num, "in_process": both, **sides}


def details(name: str, *, seconds: float, num: int, loads: Sequence[float]) -> dict[str, Any]:
    """Of one bundled model, on a short queue: new connections, locust beside our clients, and the open loop."""
    prompt, queue = PROMPTS[name], max(QUEUE, num)
    plain, streamed = (request(name, prompt, is_streamed=is_streamed) for is_streamed in (False, True))
    settings = {**SERVER, "queue_capacity": queue}
    with served(CHECKPOINTS / name, settings, core=SERVER_CORE) as server, on_core(CLIENT_CORE):
        new = {
            side: saturated(server, body, seconds, num, is_kept=False)
            for side, body in (("plain", plain), ("streamed", streamed))
        }
        ours = saturated(server, plain, seconds, num)
        theirs = locust(server, plain, seconds, num)
        rate = saturated(server, streamed, seconds, num)["requests_per_second"]
        rows = [
            {
                "load": load,
                **latencies(asyncio.run(open_loop(server.port, streamed, rate=load * rate, seconds=seconds))),
            }
            for load in loads
        ]
    return {
        "new_connections": new,
        "generators": {"ours": ours, "locust": theirs},
        "open_loop": {"model": name, "queue_capacity": queue, "saturation": rate, "loads": rows},
    }


def request(model: str, prompt: Any, *, is_streamed: bool) -> Body:
    """Request after request: the same prompt, other seeds."""
    return lambda number: {"model": model, "prompt": prompt, "seed": number, "stream": is_streamed}


class InProcess:
    """The same canvases through the engine's own loop, on the server's core, without HTTP."""

    def __init__(self, folder: Path, prompt: Any, *, num: int, max_batch: int | None = None) -> None:
        source, settings = Source(folder.name, folder), Settings()
        model = load_catalog([source]).get(None)
        self._canvases = [
            plan_generation(GenerateRequest(prompt=prompt, seed=seed), model, settings.limits).canvases[0]
            for seed in range(num)
        ]
        with on_core(SERVER_CORE):
            self._decode = partial(engine_decode, load_subject(source, max_batch=max_batch or settings.max_batch))
            self._decode(self._canvases)

    def measured(self, seconds: float) -> dict[str, float]:
        """Decodes all again and again, for about so many seconds."""
        rounds, begin, begin_cpu = 0, time.perf_counter(), time.process_time()
        with on_core(SERVER_CORE):
            while not rounds or time.perf_counter() < begin + seconds:
                self._decode(self._canvases)
                rounds += 1
        num = rounds * len(self._canvases)
        wall, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
        return {"requests_per_second": num / wall, "cpu_seconds_a_request": cpu / num}


def saturated(server: Served, body: Body, seconds: float, num: int, *, is_kept: bool = True) -> dict[str, Any]:
    """Requests a second when every connection asks again at once, the server's CPU seconds for each, the latency."""
    window = asyncio.run(
        closed_loop(server.port, body, seconds=seconds, num=num, is_kept=is_kept, meter=server.cpu_seconds)
    )
    answers = window.answers
    assert all(answer.status == 200 for answer in answers)
    return {
        "requests": len(answers),
        "requests_per_second": window.num / window.seconds,
        "server_cpu_seconds_a_request": window.metered / window.num,
        "total_seconds": percentiles([answer.total for answer in answers]),
    }


def locust(server: Served, body: Body, seconds: float, num: int) -> dict[str, Any] | None:
    """What locust measures of as many users; None where it is not installed. Where nothing was answered in its time, as
    on a busy machine, it gets twice as much. Raises CalledProcessError."""
    if find_spec("locust") is None:
        return None
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--skip-log", "--json"]
    command += ["--exit-code-on-error", "0"]  # failures are counted, and reported
    command += ["--host", f"http://127.0.0.1:{server.port}", "-u", str(num), "-r", str(num)]
    environment = {**os.environ, "UNVEIL_BODY": json.dumps(body(0))}
    rows: list[dict[str, Any]] = []
    given = max(seconds, 1)
    while not rows and given < _MOST_LOCUST_SECONDS:
        timed = bound([*command, "-t", f"{given:.0f}s"])
        rows = json.loads(subprocess.run(timed, env=environment, capture_output=True, text=True, check=True).stdout)
        given *= 2
    if not rows:
        raise SystemExit(f"error: locust got no answer within {given / 2:.0f} seconds")
    (row,) = rows
    took = row["last_request_timestamp"] - row["start_time"]
    times = [int(ms) / 1000 for ms, count in row["response_times"].items() for _ in range(count)]
    return {
        "requests": row["num_requests"],
        "failures": row["num_failures"],
        "requests_per_second": row["num_requests"] / took,
        "total_seconds": percentiles(times),
    }


def latencies(answers: Sequence[Answer]) -> dict[str, Any]:
    """Of those that were accepted, and how many were not."""
    good = [answer for answer in answers if answer.status == 200]
    return {
        "requests": len(answers),
        "refused": sum(answer.status == 429 for answer in answers),
        "failed": sum(answer.status not in (200, 429) for answer in answers),
        "first_reveal_seconds": percentiles([answer.first for answer in good if answer.first is not None]),
        "inter_reveal_seconds": percentiles([gap for answer in good for gap in answer.gaps]),
        "total_seconds": percentiles([answer.total for answer in good]),
    }


def as_text(report: dict[str, Any]) -> str:
    """The same for a reader."""
    lines = []
    for row in [*report["models"], *([report["large"]] if "large" in report else [])]:
        lines.append(
            f"{row['model']}, {row['connections']} connections: in process "
            + ", ".join(
                f"{one['requests_per_second']:.1f}/s at {1000 * one['cpu_seconds_a_request']:.2f} ms"
                for one in row["in_process"]
            )
        )
        lines += [
            f"  {side}: {row[side]['requests_per_second']:.1f}/s (x{row[side]['over_in_process']:.2f}),"
            f" {1000 * row[side]['server_cpu_seconds_a_request']:.2f} ms of CPU,"
            f" in process {row[side]['cpu_over_in_process']:.0%} of it"
            for side in ("plain", "streamed")
        ]
    for name, row in [*report.get("new_connections", {}).items(), *report.get("generators", {}).items()]:
        if row is not None:
            total = ", ".join(f"{key} {1000 * value:.0f} ms" for key, value in row["total_seconds"].items())
            lines.append(f"{name}: {row['requests_per_second']:.1f}/s, {total}")
    for row in report.get("open_loop", {}).get("loads", []):
        first, total = row["first_reveal_seconds"], row["total_seconds"]
        lines.append(
            f"load {row['load']:.2f}: first reveal p50 {1000 * first['p50']:.1f} ms, p99 {1000 * first['p99']:.1f} ms;"
            f" total p50 {1000 * total['p50']:.1f} ms, p99 {1000 * total['p99']:.1f} ms;"
            f" {row['refused']} of {row['requests']} refused"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
