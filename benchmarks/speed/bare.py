"""The forwards that the engine makes, alone: recorded, run again without scheduler and sampler, their products counted.

A forward's inputs are kept but for last states, which are large: in their place stand random ones.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from unveil.benchmarks.speed.in_process import Subject, engine_decode, medians
from unveil.engine.runner import Runner
from unveil.model.along.denoiser import AlongDenoiser
from unveil.model.along.forward import Along, Slots
from unveil.model.along.memory import Memory
from unveil.model.decoding.canvas import Canvas
from unveil.model.denoiser import Begun, Stages
from unveil.model.network.build import prepare
from unveil.model.network.fixed_shapes import FixedShapes
from unveil.model.network.late import LateQueries

PEAK_ROUNDS = 5


class Forward(NamedTuple):
    """A part of a forward. What has the same `shape` does the same products."""

    shape: tuple[str | int, ...]
    run: Callable[[], object]


class RecordedAlong(Along):
    """`Along` that keeps in `forwards` what it was called for."""

    def __init__(self, network: LateQueries) -> None:
        super().__init__(network)
        self.forwards: list[Forward] = []
        self._states = _States()

    def run(self, memory: Memory, first: int, slots: Slots, *, num_contents: int) -> Tensor:
        """See `Along.run`."""
        shape = ("slots", *slots.turns.shape, slots.num_asked, self.width(num_contents))
        run = partial(super().run, memory, first, slots, num_contents=num_contents)
        self.forwards.append(Forward(shape, run))
        return run()

    def logits(self, x: Tensor, positions: Tensor) -> Tensor:
        """See `Folded.logits`."""
        run = partial(super().logits, self._states.like(x), positions)
        self.forwards.append(Forward(("logits", len(x)), run))
        return super().logits(x, positions)


class RecordedStages:
    """`model.denoiser.Stages` that keep in `forwards` what they were called for."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self.forwards: list[Forward] = []
        self._states = _States()

    def begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Begun:
        """See `model.denoiser.Stages`."""
        run = partial(self._stages.begin, tokens, hidden, lengths)
        self.forwards.append(Forward(("begin", *tokens.shape), run))
        return run()

    def finish(self, states: Tensor, positions: Tensor) -> Tensor:
        """See `model.denoiser.Stages`."""
        run = partial(self._stages.finish, self._states.like(states), positions)
        self.forwards.append(Forward(("finish", len(positions)), run))
        return self._stages.finish(states, positions)

    def rounded(self, num: int) -> int:
        """See `model.denoiser.Stages`."""
        return self._stages.rounded(num)


class _States:
    """Random states, the same memory for all."""

    def __init__(self) -> None:
        self._all = torch.empty(0, 0)

    def like(self, states: Tensor) -> Tensor:
        """As many of the same width, [R, S]."""
        if len(self._all) < len(states):
            self._all = torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
        return self._all[: len(states)]


def recorded(subject: Subject) -> tuple[Subject, list[Forward]]:
    """The same served by networks that record, and the list that they add to."""
    served = subject.runner.denoiser
    if isinstance(served, AlongDenoiser):
        assert isinstance(subject.denoise, LateQueries)
        network = RecordedAlong(subject.denoise.requires_grad_(False))
        return with_denoiser(subject, anew(served, network)), network.forwards
    stages = RecordedStages(prepare(subject.denoise))
    whole = FixedShapes(stages, sizes=served.sizes, finish_sizes=served.finish_sizes)
    whole.end_id = served.end_id
    return with_denoiser(subject, whole), stages.forwards


def anew(served: AlongDenoiser, network: Along) -> AlongDenoiser:
    """Another one on the CPU for the same work, with memory and a pace of its own."""
    most, end_id = served.rows.most, served.end_id
    return AlongDenoiser(network, served.shapes, max_rows=most, end_id=end_id, clock=time.thread_time)


def with_denoiser(subject: Subject, denoiser: FixedShapes | AlongDenoiser) -> Subject:
    """The same subject, stepped with this one."""
    version = subject.runner.weights_version
    return replace(subject, runner=Runner(denoiser, weights_version=version, device=torch.device("cpu")))


def shares(subject: Subject, canvases: Sequence[Canvas], *, rounds: int, peak: float) -> dict[str, float]:
    """`of_limit`: seconds of the engine's forwards run again, over the engine's for all of it; `of_peak`: their
    operations over those of `peak`, operations a second, in the engine's seconds."""
    again, forwards = recorded(subject)

    def engine() -> None:
        forwards.clear()
        engine_decode(again, canvases)

    @torch.inference_mode()
    def bare() -> None:
        for forward in forwards:
            forward.run()

    seconds = medians({"engine": engine, "bare": bare}, rounds=rounds)
    return {
        "of_limit": seconds["bare"] / seconds["engine"],
        "of_peak": operations(forwards) / seconds["engine"] / peak,
    }


@torch.inference_mode()
def operations(forwards: Sequence[Forward]) -> int:
    """Floating-point operations of the products in these, linear and in attention; each shape is counted once."""
    counted: dict[tuple[str | int, ...], int] = {}
    for forward in forwards:
        if forward.shape not in counted:
            with FlopCounterMode(display=False, custom_mapping=_UNKNOWN) as counter:
                forward.run()
            counted[forward.shape] = counter.get_total_flops()
    return sum(counted[forward.shape] for forward in forwards)


def _linear_operations(x: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return 2 * out_shape.numel() * x[-1]


def _attention_operations(q: torch.Size, k: torch.Size, v: torch.Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(q, k, v)  # type: ignore[no-untyped-call, no-any-return]


_UNKNOWN = {  # to the counter
    torch.ops.mkldnn._linear_pointwise: _linear_operations,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations,
}


def matmul_peak(size: int) -> float:
    """Operations a second of this thread's float32 products of `size` x `size` matrices, the best of several."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    seconds = []
    for _ in range(PEAK_ROUNDS):
        begin = time.thread_time()
        a @ b
        seconds.append(time.thread_time() - begin)
    return 2 * size**3 / min(seconds)
