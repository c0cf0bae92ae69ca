"""Forwards over slots recorded once a shape and replayed: on CUDA a step is one launch, not hundreds.

A recording has addresses in it: of its inputs, of the rows that it computes and of what it gives. So there is one for
each number of rows, contents and queries, width, and first row. What stays on the host, the choice of that shape, is
done at every call. Recordings share their scratch memory, so what one gives is copied before another is replayed.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from unveil.model.along.forward import Along, Ints, Slots
from unveil.model.along.memory import Memory
from unveil.model.denoiser import sent, staged

_MOST = 512  # recordings; shapes beyond are computed as without any


class Recording(Protocol):
    """What was done, to be done again on the same inputs' memory; `output` is then written anew."""

    output: Tensor

    def replay(self) -> None: ...


Record = Callable[[Callable[[], Tensor]], Recording]
Key = tuple[int, int, int, int, int]  # first row, rows, slots a row, width, queries a row


class CudaRecording:
    """A CUDA graph."""

    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor) -> None:
        self._graph, self.output = graph, output

    def replay(self) -> None:
        self._graph.replay()


class CudaRecorder:
    """Records on a CUDA device, into memory that all its recordings share."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Callable[[], Tensor]) -> Recording:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            output = compute()
        return CudaRecording(graph, output)


class _Known(NamedTuple):
    inputs: Tensor
    recording: Recording


class Graphs:
    """`Along.run`, recorded the second time that a shape occurs.

    `report` is told once, in a line, where recording fails; from then on nothing is recorded.
    """

    def __init__(self, network: Along, *, new_recorder: Callable[[], Record], report: Callable[[str], object]) -> None:
        self._network, self._new_recorder, self._report = network, new_recorder, report
        self._is_on = True
        self._forget(None)

    def __len__(self) -> int:
        """How many recordings there are."""
        return len(self._known)

    @torch.inference_mode()
    def run(self, memory: Memory, first: int, slots: Slots, *, num_contents: int) -> Tensor:
        """See `Along.run`."""
        if memory is not self._memory:
            self._forget(memory)
        values, network = slots.all, self._network
        key = first, *slots.turns.shape, network.width(num_contents), slots.num_asked
        known = self._known.get(key)
        if known is None:
            if not self._is_worth_it(key):
                return network.run(memory, first, slots, num_contents=num_contents)
            return self._recorded(memory, key, values)
        known.inputs.copy_(staged(values, known.inputs.device), non_blocking=True)
        known.recording.replay()
        return known.recording.output.clone()

    def _forget(self, memory: Memory | None) -> None:
        self._memory = memory
        self._known: dict[Key, _Known] = {}
        self._seen: set[Key] = set()
        self._record: Record | None = None  # a recorder's memory is not taken up again once its recordings are gone

    def _is_worth_it(self, key: Key) -> bool:
        """Not the first time: that is also when libraries prepare what a recording must not contain."""
        if key in self._seen:
            return self._is_on and len(self._known) < _MOST
        self._seen.add(key)
        return False

    def _recorded(self, memory: Memory, key: Key, values: Ints) -> Tensor:
        first, _, _, width, num_asked = key
        inputs = sent(values, self._network.size.device)

        def compute() -> Tensor:
            return self._network.compute(memory, first, inputs, width=width, num_asked=num_asked)

        try:
            self._record = self._record or self._new_recorder()
            recording = self._record(compute)
        except RuntimeError as error:
            self._is_on = False
            self._report(f"no more CUDA graphs are recorded, {' '.join(str(error).split())[:300]}")
            return compute()
        self._known[key] = _Known(inputs, recording)
        recording.replay()
        return recording.output.clone()
