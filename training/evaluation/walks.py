"""The one walk over rows' orders: what is hidden becomes known, a few positions a forward.

Training and evaluation walk along true values: a reveal uncovers what the row holds, and costs what was thought of it
just before. Who walks says what is seen of a canvas, and which positions come next.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from unveil.model.decoding.canvas import UNREAD
from unveil.training.evaluation.conditionals import behind

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Step(Generic[Seen]):
    """One forward of the A rows that still go on: the `rows` themselves [A], what was `hidden` of them [A, L] bool,
    what was `seen` of them, and which positions it reveals, `taken` [A, L] bool."""

    rows: Tensor
    hidden: Tensor
    seen: Seen
    taken: Tensor


def walk(
    hidden: Tensor,
    *,
    see: Callable[[Tensor, Tensor, Tensor], Seen],
    take: Callable[[Seen, Tensor, Tensor, int], Tensor],
    wanted: Tensor | None = None,
    stop: Tensor | None = None,
    ends: Tensor | None = None,
) -> Iterator[Step[Seen]]:
    """Reveals all of `hidden` [B, L] bool, which it changes in place, or what is `wanted` [B, L] bool of it.

    `see(rows, hidden, ranks)` is asked about the rows [A] that go on, with what is hidden of them [A, L], and the ranks
    of all positions [A, L] int64: 0 what was never hidden, then the steps in which they were revealed, counted from 1;
    what is hidden has the next one. Then `take(seen, free, rows, number)` says which of the `free` positions [A, L]
    come next in step `number`, counted from 0: [A, L] bool, at least one of each row. A row goes on while something
    wanted is hidden, for at most `stop` [B] steps.

    `ends` [B, L] bool are true ends of sequences: one that is revealed decides the free positions behind it. These
    become known with it, and nobody reads them: their rank is UNREAD.
    """
    number, ranks = 0, torch.zeros_like(hidden, dtype=torch.int64)
    while True:
        free = hidden if wanted is None else hidden & wanted
        goes_on = free.any(-1) if stop is None else free.any(-1) & (stop > number)
        rows = goes_on.nonzero().squeeze(-1)
        if not len(rows):
            return
        before = hidden[rows]
        ranks.masked_fill_(hidden, number + 1)
        seen = see(rows, before, ranks[rows])
        taken = take(seen, free[rows], rows, number)
        yield Step(rows, before, seen, taken)
        left = before & ~taken
        if ends is not None:
            decided = free[rows] & left & behind(taken & ends[rows])
            left &= ~decided
            ranks[rows] = ranks[rows].masked_fill(decided, UNREAD)
        hidden[rows] = left
        number += 1
