"""A time budget: how many steps fit into it here, measured once, and kept so that a resumed run has as many."""

import json
import math
import re
import tempfile
import time
from pathlib import Path

from unveil.model.errors import UnveilError
from unveil.training.config import Recipe
from unveil.training.data.dataset import Dataset
from unveil.training.trainer import Rehearsal

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|)")
_KEPT = "budget.json"
_SHARE = 0.05  # of the budget, spent on measuring
_FIRST, _FEWEST, _MOST = 3, 5, 200  # steps that are not timed, and those that are
_OTHER = 0.9  # of the rest goes into steps: searches, validation and checkpoints take some


def parse_time(text: str) -> float:
    """Seconds: 90, 90s, 10m or 1.5h. Raises UnveilError."""
    match = _TIME.fullmatch(text.strip())
    if match is None or not 0 < (seconds := float(match[1]) * _UNITS[match[2]]) < math.inf:
        raise UnveilError(f"--time: must be as 90s, 10m or 1.5h, got {text}")
    return seconds


def fit_steps(recipe: Recipe, dataset: Dataset, *, seconds: float, work: Path) -> Recipe:
    """The settled recipe with as many steps as fit into `seconds` of training on this machine, at most its own.

    Measured on the first steps of a run that is thrown away, so that schedules follow the number and a resumed run is
    exact: the number is kept in `work`. Raises UnveilError where `work` holds a run of another budget.
    """
    kept = work / _KEPT
    if kept.exists():
        try:
            found = json.loads(kept.read_text(encoding="utf-8"))
            own, steps = float(found["seconds"]), int(found["steps"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UnveilError(f"{kept}: damaged; remove {work}") from None
        if own != seconds:
            raise UnveilError(f"{work}: holds a run of --time {own:g}s; remove the folder or choose another --out")
        return _with_steps(recipe, min(steps, recipe.optimizer.num_steps))
    rate = _steps_per_second(recipe, dataset, seconds=_SHARE * seconds)
    fitting = max(int(rate * seconds * (1 - _SHARE) * _OTHER), 1)
    work.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"seconds": seconds, "steps": fitting, "steps_per_second": rate}), encoding="utf-8")
    return _with_steps(recipe, min(fitting, recipe.optimizer.num_steps))


def _with_steps(recipe: Recipe, steps: int) -> Recipe:
    return recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"steps": steps})})


def _steps_per_second(recipe: Recipe, dataset: Dataset, *, seconds: float) -> float:
    """Of the first steps of a run, taken for so long."""
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = Rehearsal(recipe, dataset, work=Path(folder))
        for step in range(_FIRST):
            rehearsal.take(step)
        began, num = time.perf_counter(), 0
        while num < _FEWEST or (num < _MOST and time.perf_counter() - began < seconds):
            rehearsal.take(_FIRST + num)
            num += 1
        return num / (time.perf_counter() - began)
