"""How long does each bundled model train on this machine? Some steps of each of its recipes, and what all would take.

    python -m benchmarks recipes [--quick] [--json] [--rounds N] [--processes 1,2] [--recipes NAME,...] [--steps N]

Each recipe of `training/recipes` that a bundled model comes from is begun as `unveil train` begins it, or as
`torchrun` does in several processes of a thread each (orders learned on walks, which run in one, in one), and stopped
after so many steps; the seconds between the first that are logged and the last are those of the trainer's own log.
Minutes are of all the recipe's steps at that pace, without reading the data, validation, checkpoints and the
evaluation at the end. A recipe that goes on from another's artifact does so where that has been trained here, and
otherwise goes on from the bundled model, which has the same network (`start` says which): a network with loops that
has learned more stops sooner, so that `sudoku-denoiser` would seem quicker than it is. The steps of a run do not all
cost the same: the first ones follow uniform orders.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from unveil.benchmarks.common.runs import Fields, timing_arguments
from unveil.training.run.parent import bound

RECIPES = Path("training/recipes")
# By bundled model, the recipes that it takes one after the other.
MODELS: dict[str, tuple[str, ...]] = {
    "adult": ("adult",),
    "text": ("text",),
    "moses": ("moses",),
    "sudoku": ("sudoku-start", "sudoku-denoiser", "sudoku"),
}
WALKED = ("next_cost", "cost_to_go")
LOG_EVERY = 5
PATIENCE = 3600.0  # seconds for a step to come, beside other work


def main() -> None:
    parser = timing_arguments(__doc__, rounds=1)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--recipes", help="default all")
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_args()
    every = [name for parts in MODELS.values() for name in parts]
    names, steps = given.recipes.split(",") if given.recipes else every, given.steps
    if unknown := [name for name in names if name not in every]:
        parser.error(f"--recipes: {unknown[0]!r} is none of {', '.join(every)}")
    if not all(part.isdecimal() and int(part) > 0 for part in given.processes.split(",")):
        parser.error(f"--processes: takes numbers of processes such as 1,2, not {given.processes!r}")
    if steps < 2 * LOG_EVERY:
        parser.error(f"--steps: takes {2 * LOG_EVERY} or more, not {steps}")
    processes = [int(part) for part in given.processes.split(",")]
    if given.quick:
        names, processes, steps = ["adult"], [1], 2 * LOG_EVERY
    rows = [
        timed(name, count, steps=steps, rounds=given.rounds)
        for name in names
        for count in sorted({1 if is_walked(name) else count for count in processes})
    ]
    report = {"recipes": rows, "minutes": totals(rows), "steps_timed": steps, "rounds": given.rounds}
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def timed(name: str, processes: int, *, steps: int, rounds: int) -> Fields:
    """Median seconds a step over rounds, and the minutes of all of the recipe's steps."""
    taken = [seconds_a_step(name, processes, steps=steps) for _ in range(rounds)]
    total, seconds = read(name)["optimizer"]["steps"], statistics.median(taken)
    print(f"{name} in {processes}: {seconds:.3f} s a step", file=sys.stderr, flush=True)
    return {
        "recipe": name,
        "processes": processes,
        "start": start_of(name),
        "steps": total,
        "seconds_a_step": seconds,
        "minutes": total * seconds / 60,
    }


def read(name: str) -> Fields:
    return tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))


def is_walked(name: str) -> bool:
    """Whether its order is learned on whole walks, which run in one process."""
    return read(name)["order"]["method"] in WALKED


def start_of(name: str) -> str | None:
    """The artifact that the recipe goes on from: its own, or the bundled one where that is not there."""
    own: str | None = read(name).get("start", {}).get("artifact")
    if own is None or Path(own).is_dir():
        return own
    return next(f"checkpoints/{model}" for model, parts in MODELS.items() if name in parts)


def seconds_a_step(name: str, processes: int, *, steps: int) -> float:
    """Of one run that is stopped once it has taken so many steps."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "artifact"
        started = bound(command(name, processes, out=out))
        with subprocess.Popen(started, stdout=subprocess.DEVNULL, stderr=sys.stderr) as run:
            try:
                lines = logged(out.with_name("artifact.run") / "log.jsonl", run, what=name, steps=steps)
            finally:
                run.terminate()
    first, last = lines[0], lines[-1]
    return float((last["seconds"] - first["seconds"]) / (last["step"] - first["step"]))


def command(name: str, processes: int, *, out: Path) -> list[str]:
    """What begins the recipe, with one thread a process, and neither validation nor a checkpoint on its way."""
    settings = [
        "run.threads=1",
        f"advanced.run.log_every={LOG_EVERY}",
        "advanced.run.validate_every=1000000",
        "advanced.run.checkpoint_every=1000000",
    ]
    if (start := start_of(name)) is not None:
        settings.append(f"start.artifact={start}")
    arguments = [
        str(Path(sys.executable).with_name("unveil")),
        "train",
        str(RECIPES / f"{name}.toml"),
        "--out",
        str(out),
    ]
    arguments += [part for setting in settings for part in ("--set", setting)]
    if processes == 1:
        return [sys.executable, *arguments]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *arguments]


def logged(path: Path, run: subprocess.Popen[bytes], *, what: str, steps: int) -> list[Fields]:
    """The log's training lines once the last is of step `steps` or beyond. Ends the benchmark if the run ends first."""
    begin = time.monotonic()
    while True:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        lines = [line for line in lines if line["kind"] == "train"]
        if len(lines) > 1 and lines[-1]["step"] >= steps:
            return lines
        if run.poll() is not None or time.monotonic() - begin > PATIENCE:
            raise SystemExit(f"error: {what}: ended, or did not come to step {steps}")
        time.sleep(0.1)


def totals(rows: list[Fields]) -> Fields:
    """Minutes of each bundled model whose recipes have all been timed, by the number of processes."""
    minutes = {(row["recipe"], row["processes"]): row["minutes"] for row in rows}
    found: Fields = {}
    for processes in sorted({row["processes"] for row in rows}):
        parts = {model: [(name, 1 if is_walked(name) else processes) for name in MODELS[model]] for model in MODELS}
        found[str(processes)] = {
            model: sum(minutes[part] for part in parts[model]) for model in MODELS if set(parts[model]) <= set(minutes)
        }
    return found


def as_text(report: Fields) -> str:
    """A table for `docs/results.md`."""
    lines = ["| recipe | processes | steps | seconds a step | minutes |", "|---" * 5 + "|"]
    for row in report["recipes"]:
        pace = f"{row['seconds_a_step']:.3f} | {row['minutes']:.0f}"
        lines.append(f"| {row['recipe']} | {row['processes']} | {row['steps']:,} | {pace} |")
    for processes, minutes in report["minutes"].items():
        lines.append(
            f"{processes}: " + ", ".join(f"{model} {total:.0f}" for model, total in minutes.items()) + " minutes"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
