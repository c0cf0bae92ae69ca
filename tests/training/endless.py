"""A benchmark in the small whose workers never end: see `test_parent`."""

import os
import subprocess
import sys
from pathlib import Path

from unveil.benchmarks.common.runs import Fields, run_all
from unveil.training.run.parent import bound


def work(task: Fields) -> Fields:
    """Says that it is there, and is busy for good."""
    _there(Path(task["folder"]) / f"{task['seed']}.pid")
    while True:
        pass


def _there(path: Path) -> None:
    path.with_suffix(".writing").write_text(str(os.getpid()))
    path.with_suffix(".writing").rename(path)


def main(kind: str, folder: Path) -> None:
    if kind == "pool":
        run_all(work, [{"folder": str(folder), "seed": seed} for seed in range(2)], folder=folder / "kept", jobs=2)
    elif kind == "command":
        subprocess.run(bound([sys.executable, "-m", "tests.training.endless", "worker", str(folder)]), check=False)
    else:
        work({"folder": str(folder), "seed": 0})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
