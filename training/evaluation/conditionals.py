"""What a denoiser says of rows whose positions are revealed one after the other. Knows no law of orders.

Most networks answer for the set that is visible, and a state of a row costs a forward. One that attends to what was
revealed earlier (`Network.reads_ranks`) answers for the order of the past too, as it is served: it is given ranks, 0
for what was known from the start, then 1, 2, ... as positions were revealed. Along an order known ahead it says all of
a row in one forward.

Where an id ends a sequence, what is said is as it is served (`model.decoding.canvas`): no end is offered before a known
token, and an end behind a revealed one is decided by it.
"""

from typing import Protocol, cast

import torch
from torch import Tensor

from unveil.model.denoiser import Denoiser, Prediction, cross_entropy
from unveil.model.network.base import Network


class _Ranked(Protocol):
    def __call__(self, tokens: Tensor, hidden: Tensor, lengths: Tensor, *, ranks: Tensor) -> Prediction: ...


def reads_ranks(denoise: Denoiser) -> bool:
    """Whether the order of the past matters to it."""
    return bool(getattr(denoise, "reads_ranks", False))


def ask(
    denoise: Denoiser, x: Tensor, hidden: Tensor, lengths: Tensor, ranks: Tensor | None, *, end_id: int | None = None
) -> Prediction:
    """What it says of the `hidden` positions [B, L] of clean ids `x` [B, L], as of now.

    `ranks` [B, L] say when the others were revealed, and where hidden all have the next one; None where all that is
    visible was known from the start. The denoiser gets zeros where it must not look.
    """
    shown = x.masked_fill(hidden, 0)
    if ranks is None or not reads_ranks(denoise):
        found = denoise(shown, hidden, lengths)
    else:
        answer = denoise.predict_now if isinstance(denoise, Network) else cast(_Ranked, denoise)
        found = answer(shown, hidden, lengths, ranks=ranks)
    if end_id is None:
        return found
    is_token = _tokens(x, lengths, end_id) & ~hidden
    return _without_ends(found, is_token.flip(-1).cumsum(-1).flip(-1) > is_token, end_id)


def ask_in_turn(
    denoise: Denoiser, x: Tensor, ranks: Tensor, lengths: Tensor, *, end_id: int | None = None
) -> Prediction:
    """What a denoiser that reads ranks [B, L] says of every position of rank 1 or more of clean ids `x` [B, L], as of
    just before its turn."""
    assert reads_ranks(denoise)
    found = cast(_Ranked, denoise)(x, ranks > 0, lengths, ranks=ranks)
    return found if end_id is None else _without_ends(found, end_barred(x, ranks, lengths, end_id), end_id)


def end_barred(x: Tensor, ranks: Tensor, lengths: Tensor, end_id: int) -> Tensor:
    """Where no end can stand, as a token behind is known by the turn of the position, `ranks`: [B, L] each."""
    places = torch.arange(x.shape[1], device=x.device)
    is_known = (ranks[:, None, :] < ranks[:, :, None]) & _tokens(x, lengths, end_id)[:, None, :]  # [B, L, L]
    return (is_known & (places > places[:, None])).any(-1)


def ask_set(denoise: Denoiser, x: Tensor, hidden: Tensor, *, end_id: int | None = None) -> tuple[Prediction, Tensor]:
    """What it says of the `hidden` positions of clean rows `x` [B, L] without padding, the others revealed in any way,
    and what each costs in nats [B, L]. For denoisers that do not read ranks."""
    lengths = torch.full((len(x),), x.shape[1], device=x.device)
    decided = torch.zeros_like(hidden) if end_id is None else hidden & behind(~hidden & (x == end_id))
    found = ask(denoise, x, hidden & ~decided, lengths, None, end_id=end_id)
    return found, cross_entropy(found.token_logits, x).masked_fill(decided, 0.0)


def behind(ends: Tensor) -> Tensor:
    """The positions behind the first of these ends: [..., L] bool each."""
    return ends.cumsum(-1) - ends.long() > 0


def _tokens(x: Tensor, lengths: Tensor, end_id: int) -> Tensor:
    """Where a row holds something else than an end, [B, L]."""
    return (x != end_id) & (torch.arange(x.shape[1], device=x.device) < lengths[:, None])


def _without_ends(found: Prediction, is_barred: Tensor, end_id: int) -> Prediction:
    """No end where [B, L] none can stand: the other ids share its mass."""
    logits = found.token_logits.clone()
    logits[..., end_id].masked_fill_(is_barred, -torch.inf)
    return Prediction(logits, found.order_logits)
