"""Ends absorb: behind the end of a sequence stands nothing but ends, and before a token no end can stand.

For data that obey this, both are certain, so a denoiser's law is conditioned on them exactly: an end is not offered
before a known token, the other ids share its mass; and what lies behind a revealed end is revealed with it, at no cost
and without a forward. Nobody reads these ends, as if they came last in the order.
"""

from collections.abc import Sequence

from unveil.model.decoding.canvas import Canvas


def last_token(canvas: Canvas, end_id: int) -> int:
    """The last position known to hold something else than an end; -1 if there is none."""
    known = zip(canvas.tokens, canvas.hidden, strict=True)
    return max((i for i, (token_id, is_hidden) in enumerate(known) if not is_hidden and token_id != end_id), default=-1)


def absorbed_by(position: int, open_: Sequence[bool]) -> list[int]:
    """Which of the open positions an end at `position` decides."""
    return [i for i in range(position + 1, len(open_)) if open_[i]]
