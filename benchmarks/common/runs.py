"""Arms of a benchmark, trained and scored in processes of their own, each result kept.

A result is found again by everything it depends on, so a killed benchmark goes on where it was.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from unveil.training.run.parent import end_with_parent

Fields = dict[str, Any]


def arguments(doc: str | None, *, work: str, seeds: int) -> argparse.ArgumentParser:
    """What every benchmark that trains takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a minute; every path is taken, and the figures mean nothing"
    )
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", type=Path, default=Path(work), help="where results are kept, and found again")
    parser.add_argument("--jobs", type=int, default=1, help="arms trained at once, one thread each; 0: here")
    return parser


def timing_arguments(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """What every benchmark that times takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds; small shapes, one round, figures mean nothing")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser


def run_all(work: Callable[[Fields], Fields], tasks: Sequence[Fields], *, folder: Path, jobs: int) -> list[Fields]:
    """`work(task)` for each task, in order. `work` is a module's function and writes nothing but its result. With no
    `jobs` it runs in this process."""
    results: dict[int, Fields] = {}
    waiting = []
    for number, task in enumerate(tasks):
        path = folder / f"{_key(task)}.json"
        if path.exists():
            results[number] = json.loads(path.read_text(encoding="utf-8"))
        else:
            waiting.append((number, task, path))
    os.environ["OMP_NUM_THREADS"] = "1"

    def keep(number: int, task: Fields, path: Path, result: Fields) -> None:
        results[number] = result
        write_whole(path, result)
        print(f"done: {_name(task)}", file=sys.stderr, flush=True)

    if not jobs:
        for number, task, path in waiting:
            keep(number, task, path, work(task))
        return [results[number] for number in range(len(tasks))]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        futures = {pool.submit(work, task): (number, task, path) for number, task, path in waiting}
        for future in as_completed(futures):
            keep(*futures[future], future.result())
    return [results[number] for number in range(len(tasks))]


def interval(values: Sequence[float]) -> Fields:
    """Mean over seeds with the 95 % interval of Student's t; no interval for a single seed."""
    from scipy import stats  # comes with nothing heavy of its own, and only benchmarks need it

    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return {"mean": mean, "low": None, "high": None, "seeds": n}
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5)
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": n}


def with_interval(found: Fields, form: str = ".4f", *, alone: str = "") -> str:
    """A mean and its interval, each in this format; of a single seed the mean, and what is said of that."""
    mean = f"{found['mean']:{form}}"
    return mean + alone if found["low"] is None else f"{mean} [{found['low']:{form}}, {found['high']:{form}}]"


def _key(task: Mapping[str, Any]) -> str:
    text = json.dumps(task, sort_keys=True)
    return f"{_name(task)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _name(task: Mapping[str, Any]) -> str:
    """What a person tells tasks apart by; not always one alone."""
    return "-".join(str(task[part]) for part in ("problem", "arm", "seed") if part in task)


def write_whole(path: Path, result: object) -> None:
    """As JSON, aside and renamed when whole: a kill leaves no torn result to be found again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".writing")
    staging.write_text(json.dumps(result), encoding="utf-8")
    staging.rename(path)
