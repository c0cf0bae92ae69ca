"""What a denoiser says of rows whose positions are revealed one after the other. Knows no law of orders.

Most networks answer for the set that is visible, and a state of a row costs a forward. One that attends to what was
revealed earlier (`Network.reads_ranks`) answers for the order of the past too, as it is served: it is given ranks, 0
for what was known from the start, then 1, 2, ... as positions were revealed. Along an order known ahead it says all of
a row in one forward.
"""

from typing import Protocol, cast

from torch import Tensor

from unveil.model.denoiser import Denoiser, Prediction


class _Ranked(Protocol):
    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor, *, ranks: Tensor) -> Prediction: ...


def reads_ranks(denoise: Denoiser) -> bool:
    """Whether the order of the past matters to it."""
    return bool(getattr(denoise, "reads_ranks", False))


def ask(denoise: Denoiser, x: Tensor, hidden: Tensor, lengths: Tensor, ranks: Tensor | None) -> Prediction:
    """What it says of the `hidden` positions [B, L] of clean ids `x` [B, L], as of now.

    `ranks` [B, L] say when the others were revealed, and are higher where hidden; None where all that is visible was
    known from the start. The denoiser gets zeros where it must not look.
    """
    shown = x.masked_fill(hidden, 0)
    if ranks is None or not reads_ranks(denoise):
        return denoise(shown, hidden, lengths)
    return cast(_Ranked, denoise)(shown, hidden, lengths, ranks=ranks)


def ask_in_turn(denoise: Denoiser, x: Tensor, ranks: Tensor, lengths: Tensor) -> Prediction:
    """What a denoiser that reads ranks [B, L] says of every position of rank 1 or more of clean ids `x` [B, L], as of
    just before its turn."""
    assert reads_ranks(denoise)
    return cast(_Ranked, denoise)(x, ranks > 0, lengths, ranks=ranks)
