"""The averaged weights that cost validation rows least, kept beside the checkpoints; and when it is time to stop.

Few rows are learned by heart: a run then gets better on them, and worse on rows that it has not seen. What is kept is a
function of the steps, so a resumed run ends as one that was not disturbed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unveil.model.errors import UnveilError

_COSTS, _WEIGHTS = "costs.json", "best.safetensors"


@dataclass(frozen=True)
class Best:
    """`costs`: nats a validation row, by step, ascending; the weights are those of the cheapest."""

    folder: Path
    costs: Mapping[int, float]

    @classmethod
    def at(cls, folder: Path, *, step: int) -> Self:
        """As it was at a step that a run resumes at. Raises UnveilError for a damaged file."""
        path = folder / _COSTS
        if not path.exists():
            return cls(folder, {})
        try:
            found = {int(own): float(cost) for own, cost in json.loads(path.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            raise UnveilError(f"{path}: damaged; remove {folder.parent}") from None
        return cls(folder, {own: cost for own, cost in sorted(found.items()) if own <= step})

    @property
    def step(self) -> int:
        """Of the cheapest, the first of equals."""
        return min(self.costs, key=lambda step: (self.costs[step], step))

    @property
    def num_worse(self) -> int:
        """How many validations there were since."""
        return sum(step > self.step for step in self.costs) if self.costs else 0

    def and_one(self, step: int, cost: float, weights: Callable[[], Mapping[str, Tensor]], *, writes: bool) -> Self:
        """With one validation more; its weights are asked for, on every process, if they are the best. The one that
        `writes` keeps them."""
        found = type(self)(self.folder, {**self.costs, step: cost})
        own = weights() if found.step == step else None
        if writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            if own is not None:
                partial = self.folder / f"{_WEIGHTS}.partial"
                save_file({name: value.contiguous() for name, value in own.items()}, partial)
                partial.rename(self.folder / _WEIGHTS)
            partial = self.folder / f"{_COSTS}.partial"
            partial.write_text(json.dumps(found.costs), encoding="utf-8")
            partial.rename(self.folder / _COSTS)
        return found

    def weights(self) -> dict[str, Tensor]:
        """Of the cheapest. Raises UnveilError where they cannot be read."""
        path = self.folder / _WEIGHTS
        try:
            return load_file(path)
        except (OSError, SafetensorError):
            raise UnveilError(f"{path}: missing or damaged; remove {self.folder.parent}") from None
