"""A network's forward, recorded once a shape and replayed without Python in between. Knows no canvas and no request.

A small network's forward on a CPU is mostly the cost of calling it: some fifty operations of a few microseconds each.
`torch.jit.trace` replays the same kernels in half the time, with the same bits, and shares the weights. What was tried
beside it (`docs/results.md`): inductor is slower on small batches, takes a C++ compiler and most of a minute a shape,
and gives other bits; an exported module is slower than no recording. On CUDA nothing is recorded here.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.denoiser import Denoiser, Prediction

Replay = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
_RUNS_TO_SETTLE = 2  # the first calls of a recording are spent on optimising it


class Traced:
    """A `Denoiser` around a network: shapes that `record` has seen are replayed, others run as they are."""

    def __init__(self, network: Denoiser) -> None:
        if isinstance(network, nn.Module):
            network.requires_grad_(False)  # a recording takes no weights that could still be trained
        self._network = network
        self._replays: dict[torch.Size, Replay] = {}

    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        """See `model.denoiser.Denoiser`."""
        replay = self._replays.get(tokens.shape)
        if replay is None:
            return self._network(tokens, hidden, lengths)
        return Prediction(*replay(tokens, hidden, lengths))

    @torch.inference_mode()
    def record(self, tokens: Tensor, hidden: Tensor, lengths: Tensor) -> bool:
        """Records these inputs' shape; False, and nothing recorded, if that gives other bits than the network itself.

        It is compared on these inputs and on the same canvases without padding: a recording keeps whatever branch the
        first inputs took.
        """
        full = torch.full_like(lengths, tokens.shape[1])
        tried = [lengths] if torch.equal(lengths, full) else [lengths, full]
        try:
            replay = _recorded(self._network, tokens, hidden, lengths)
            for _ in range(_RUNS_TO_SETTLE):
                for own_lengths in tried:
                    expected = self._network(tokens, hidden, own_lengths)
                    found = replay(tokens, hidden, own_lengths)
                    if not all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)):
                        return False
        except (RuntimeError, Warning):  # a warning that the process takes for an error
            return False
        self._replays[tokens.shape] = replay
        return True


def _recorded(network: Denoiser, *inputs: Tensor) -> Replay:
    def forward(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        token_logits, order_logits = network(tokens, hidden, lengths)
        return token_logits, order_logits

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # deprecated in favour of what was measured to be slower; branches: see `record`
        traced: Replay = torch.jit.trace(forward, inputs, check_trace=False)  # type: ignore[no-untyped-call]
    return traced
