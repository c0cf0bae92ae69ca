"""A recorder of forwards that needs no GPU: it notes every operation, and replays them on the same memory.

As with a CUDA graph, a replay knows nothing of the arguments of later calls: what does not lie in the memory that was
recorded is as it was on that day.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Replayed:
    """The noted operations."""

    def __init__(self, operations: list[tuple[Any, Any, Any, Any]], output: Tensor) -> None:
        self._operations, self.output = operations, output

    def replay(self) -> None:
        for operation, args, kwargs, found in self._operations:
            for old, new in zip(tree_leaves(found), tree_leaves(operation(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # no view, and not in place
                    old.copy_(new)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """`model.along.graphs.Record`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._noted: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = operation(*args, **(kwargs or {}))
        self._noted.append((operation, args, kwargs or {}, found))
        return found

    def __call__(self, compute: Callable[[], Tensor]) -> Replayed:
        self._noted = []
        with self:
            output = compute()
        return Replayed(self._noted, output)


def refusing(compute: Callable[[], Tensor]) -> Replayed:
    """A recorder that cannot."""
    raise torch.OutOfMemoryError("CUDA out of memory.\n Tried to record.")
