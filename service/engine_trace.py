"""Both stages of a denoiser, recorded once a shape and replayed without Python in between.

A small network's forward on a CPU is mostly the cost of calling it: some forty operations of a few microseconds each.
`torch.jit.trace` replays the same kernels in half the time, with the same bits, and shares the weights. What was tried
beside it (`docs/results.md`): inductor is slower on small batches, takes a C++ compiler and most of a minute a shape,
and gives other bits; an exported module is slower than no recording. On CUDA nothing is recorded here, nor are wide
networks on a CPU: there the arithmetic takes the time, and oneDNN's packed weights cannot be recorded.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.denoiser import Begun, Stages

Run = Callable[..., tuple[Tensor, ...]]
_RUNS_TO_SETTLE = 2  # the first calls of a recording are spent on optimising it


class Traced:
    """`Stages` around stages: shapes that were recorded are replayed, others run as they are."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._begins: dict[torch.Size, Run] = {}
        self._finishes: dict[int, Run] = {}

    def begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Begun:
        """See `model.denoiser.Stages`."""
        replay = self._begins.get(tokens.shape)
        if replay is None:
            return self._stages.begin(tokens, hidden, lengths)
        return Begun(*replay(tokens, hidden, lengths))

    def finish(self, states: Tensor, positions: Tensor) -> Tensor:
        """See `model.denoiser.Stages`."""
        replay = self._finishes.get(len(positions))
        if replay is None:
            return self._stages.finish(states, positions)
        return replay(states, positions)[0]

    def rounded(self, num: int) -> int:
        """See `model.denoiser.Stages`."""
        return self._stages.rounded(num)

    @torch.inference_mode()
    def record_begin(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> bool:
        """Records these inputs' shape; False, and nothing recorded, if that gives other bits than what it recorded.

        It is compared on these inputs and on the same canvases without padding: a recording keeps whatever branch the
        first inputs took.
        """
        full = torch.full_like(lengths, tokens.shape[1])
        tried = [(tokens, hidden, own) for own in ([lengths] if torch.equal(lengths, full) else [lengths, full])]
        replay = _recorded(self._stages.begin, tried)
        if replay is not None:
            self._begins[tokens.shape] = replay
        return replay is not None

    @torch.inference_mode()
    def record_finish(self, states: Tensor, positions: Tensor) -> bool:
        """The same for the second stage and a number of positions."""
        replay = _recorded(lambda *inputs: (self._stages.finish(*inputs),), [(states, positions)])
        if replay is not None:
            self._finishes[len(positions)] = replay
        return replay is not None


def _recorded(run: Run, tried: Sequence[tuple[Tensor, ...]]) -> Run | None:
    """A recording of `run` on the first inputs, if it gives the same bits on all of them, when it has settled too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # deprecated in favour of what was measured to be slower; branches: see above
            replay: Run = torch.jit.trace(_as_tuple(run), tried[0], check_trace=False)  # type: ignore[no-untyped-call]
        for _ in range(_RUNS_TO_SETTLE):
            for inputs in tried:
                if not all(torch.equal(a, b) for a, b in zip(run(*inputs), replay(*inputs), strict=True)):
                    return None
    except (RuntimeError, Warning):  # a warning that the process takes for an error
        return None
    return replay


def _as_tuple(run: Run) -> Run:
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(run(*inputs))

    return forward
