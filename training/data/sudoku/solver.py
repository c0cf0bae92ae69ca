"""Many sudoku grids solved at once by bit masks: singles to the fixpoint, then branching. Makes no puzzle.

A state holds a mask of candidates a cell, bit d for digit d + 1: uint16 [9, 9, N], the grids last, so that every rule
is a handful of whole-array operations. Digits are 1 to 9 and 0 is empty, in grids [N, 81] int8.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Grids = NDArray[np.int8]
Masks = NDArray[np.uint16]
Flags = NDArray[np.bool_]

CELLS, DIGITS, ALL = 81, 9, np.uint16(0x1FF)
_COUNTS = np.array([bin(mask).count("1") for mask in range(512)], dtype=np.uint8)
_CHUNK = 4096  # states worked on at once: they stay in the cache


class Solutions(NamedTuple):
    """`grids` [N, 81], the first solution found of each grid (zeros where there is none); `counts` [N], how many were
    found, up to the limit asked for."""

    grids: Grids
    counts: NDArray[np.int64]


def masks_of(grids: Grids) -> Masks:
    """Candidates before any rule: the given digit, or all nine."""
    given = (np.uint16(1) << np.maximum(grids.T.astype(np.uint16), 1) - 1).astype(np.uint16)
    return np.where(grids.T > 0, given, ALL).astype(np.uint16).reshape(9, 9, -1)


def grids_of(masks: Masks) -> Grids:
    """The digits of cells with one candidate, 0 elsewhere."""
    flat = masks.reshape(CELLS, -1)
    digits = np.zeros(flat.shape, dtype=np.int8)
    for digit in range(DIGITS):
        digits[flat == 1 << digit] = digit + 1
    return np.ascontiguousarray(digits.T)


def propagate(masks: Masks) -> tuple[Masks, Flags]:
    """Naked and hidden singles until nothing changes; the states, and which hold no contradiction so far [N]."""
    masks = masks.copy()
    alive = np.arange(masks.shape[-1])
    sound = np.ones(len(alive), dtype=np.bool_)
    while len(alive):
        before = masks[..., alive]
        after = before.copy()
        is_sound = np.ones(len(alive), dtype=np.bool_)
        for cells in _cells(after):
            is_sound &= _singles(cells)
        masks[..., alive] = after
        sound[alive] = is_sound
        alive = alive[is_sound & (after != before).any((0, 1))]
    return masks, sound


def solve(grids: Grids, *, limit: int = 2, forbidden: Masks | None = None) -> Solutions:
    """Up to `limit` solutions of each grid. `forbidden` [N, 81]: masks of digits that a cell must not take."""
    found, counts = np.zeros_like(grids), np.zeros(len(grids), dtype=np.int64)
    for start in range(0, len(grids), _CHUNK):
        cut = slice(start, start + _CHUNK)
        masks = masks_of(grids[cut])
        if forbidden is not None:
            masks &= ~forbidden[cut].T.reshape(masks.shape)
        found[cut], counts[cut] = _search(masks, limit)
    return Solutions(found, counts)


def _search(masks: Masks, limit: int) -> Solutions:
    """Depth first for every grid at once: each turn takes the newest states of all grids that still want solutions."""
    N = masks.shape[-1]
    found, counts = np.zeros((N, CELLS), dtype=np.int8), np.zeros(N, dtype=np.int64)
    owners, stack = np.arange(N), masks
    while len(owners):
        take = max(len(owners) - _CHUNK, 0)
        now, mine = propagate(stack[..., take:]), owners[take:]
        stack, owners = stack[..., :take], owners[:take]
        states, mine = now[0][..., now[1]], mine[now[1]]
        sizes = _COUNTS[states].reshape(CELLS, -1)
        is_done = (sizes == 1).all(0)
        solved, whose = grids_of(states[..., is_done]), mine[is_done]
        found[whose] = solved
        np.add.at(counts, whose, 1)
        left, right = _branches(states[..., ~is_done], sizes[:, ~is_done])
        stack = np.concatenate([stack, left, right], axis=-1)
        owners = np.concatenate([owners, mine[~is_done], mine[~is_done]])
        wanted = counts[owners] < limit
        stack, owners = stack[..., wanted], owners[wanted]
    return Solutions(found, np.minimum(counts, limit))


def _branches(states: Masks, sizes: NDArray[np.uint8]) -> tuple[Masks, Masks]:
    """At each state's cell of fewest candidates: without its lowest one, and with that one alone (taken up first)."""
    flat = states.reshape(CELLS, -1)
    cells = np.where(sizes > 1, sizes, 99).argmin(0)
    columns = np.arange(flat.shape[1])
    chosen = flat[cells, columns]
    lowest = chosen & (~chosen + np.uint16(1))
    without, alone = flat.copy(), flat.copy()
    without[cells, columns] = chosen & ~lowest
    alone[cells, columns] = lowest
    return without.reshape(states.shape), alone.reshape(states.shape)


def _cells(masks: Masks) -> list[list[Masks]]:
    """The cells of all rows, of all columns, of all boxes: nine views each, units first, [9, N] or [3, 3, N]."""
    boxes = masks.reshape(3, 3, 3, 3, -1)
    return [
        [masks[:, j] for j in range(9)],
        [masks[i] for i in range(9)],
        [boxes[:, i, :, j] for i in range(3) for j in range(3)],
    ]


def _singles(cells: list[Masks]) -> Flags:
    """One round of both rules in nine units at once, in place; which grids [N] show no contradiction."""
    once, twice, placed, doubled = (np.zeros_like(cells[0]) for _ in range(4))
    fixed = []
    for cell in cells:
        twice |= once & cell
        once |= cell
        fixed.append(np.where(cell & (cell - np.uint16(1)), np.uint16(0), cell))
        doubled |= placed & fixed[-1]
        placed |= fixed[-1]
    single = once & ~twice
    is_sound = (once == ALL) & (doubled == 0)
    for cell, own in zip(cells, fixed, strict=True):
        cell &= ~placed | own
        hidden = cell & single
        np.copyto(cell, hidden, where=hidden != 0)
        is_sound &= cell != 0
    all_units: Flags = is_sound.reshape(-1, is_sound.shape[-1]).all(0)
    return all_units
