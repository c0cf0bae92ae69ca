"""Moves that change one stretch of an order: a position elsewhere, blocks exchanged, two positions swapped.

A move is three numbers: the `first` place of the stretch, the place `stop` behind it, and a `shift`. The stretch is
rotated to the left by the shift; with shift 0 its two ends change places. [P, 3] int64.
"""

import torch
from torch import Tensor

MIN_GAIN = 1e-5  # nats: less may be the rounding of a critic that was asked in another batch


def rotations(L: int, shifts: range, *, longest: int) -> Tensor:
    """All stretches of up to `longest` places, rotated by each shift to the left and to the right: shift 1 takes one
    position elsewhere, shift m a block of m. Moves of one block stand side by side."""
    found = []
    for shift in shifts:
        left = _stretches(L, shortest=2 * shift, longest=longest)  # those of one first place side by side
        right = _stretches(L, shortest=2 * shift + 1, longest=longest)
        right = right[right[:, 1].argsort(stable=True)]
        found += [_with_shift(left, shift), _with_shift(right, -shift)]
    return torch.cat(found)


def swaps(L: int) -> Tensor:
    """Any two positions that are not neighbours."""
    return _with_shift(_stretches(L, shortest=3, longest=L), 0)


def _stretches(L: int, *, shortest: int, longest: int) -> Tensor:
    """First places and stops, [.., 2]."""
    stretches = torch.combinations(torch.arange(L + 1))
    num_places = stretches.diff(dim=1)[:, 0]
    return stretches[(num_places >= shortest) & (num_places <= longest)]


def _with_shift(stretches: Tensor, shift: int) -> Tensor:
    return torch.cat([stretches, torch.full_like(stretches[:, :1], shift)], 1)


def shuffled(moves: Tensor, *, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """The moves in parts of about `size`, in random order; neighbours, which share prefix sets, stay together."""
    parts = torch.split(moves, size)
    return tuple(parts[i] for i in torch.randperm(len(parts), generator=generator).tolist())


def moved(order: Tensor, moves: Tensor) -> Tensor:
    """The order sigma [L] after each of the moves [P, 3]: [P, L]."""
    first, stop, shift = (column[:, None] for column in moves.T)
    places = torch.arange(len(order), device=order.device)
    rotated = first + (places - first + shift).remainder(stop - first)
    swapped = torch.where(places == first, stop - 1, torch.where(places == stop - 1, first, places))
    source = torch.where(shift == 0, swapped, rotated)
    return order[torch.where((places >= first) & (places < stop), source, places)]


def apart(moves: Tensor, gains: Tensor) -> list[int]:
    """Which of the moves [P, 3] are made: those of the largest gains [P], in nats, whose stretches do not overlap.

    Outside its stretch a move changes no prefix set, so the gains of such moves add up.
    """
    taken: list[int] = []
    stretches: list[tuple[int, int]] = []
    helpful = (gains > MIN_GAIN).nonzero()[:, 0]
    for index in helpful[gains[helpful].argsort(descending=True, stable=True)].tolist():
        first, stop, _ = moves[index].tolist()
        if all(stop <= other_first or first >= other_stop for other_first, other_stop in stretches):
            taken.append(index)
            stretches.append((first, stop))
    return taken
