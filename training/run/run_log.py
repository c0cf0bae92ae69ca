"""What a run says of itself: a JSON-lines log, TensorBoard events and a progress bar."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

LOG = "log.jsonl"


class Journal:
    """Open for the length of a run, on the main process only.

    Lines of steps after `start_step` are dropped: a killed run may have logged further than its last checkpoint, and
    will log those steps again.
    """

    def __init__(self, folder: Path, *, total_steps: int, start_step: int, title: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LOG
        _drop_after(self._path, start_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._events = SummaryWriter(folder / "tensorboard", purge_step=start_step)
        self._started = time.monotonic()
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(title, total=total_steps, completed=start_step, metrics="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()
        self._events.close()

    def say(self, text: str) -> None:
        """One line for a person, on stderr."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def advance(self, step: int) -> None:
        """The bar after `step` steps."""
        self._bar.update(self._task, completed=step)

    def log(self, kind: str, step: int, metrics: Mapping[str, float]) -> None:
        """Writes figures of a step to the log and to TensorBoard, and shows them."""
        line: dict[str, Any] = {
            "kind": kind,
            "step": step,
            "seconds": round(time.monotonic() - self._started, 3),
            **metrics,
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)
        if kind == "train":
            shown = "loss {loss:.3f}  order entropy {order_entropy:.3f}  {steps_per_second:.1f} steps/s".format(
                **metrics
            )
            self._bar.update(self._task, metrics=shown)
        if not sys.stderr.isatty() and kind == "validation":
            self.say(f"step {step}: " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def _drop_after(path: Path, step: int) -> None:
    """Written aside and renamed when whole: a kill in between leaves the log as it was."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # a line cut short by a kill
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
