"""Sudoku puzzles with one solution each, made here, and the symmetries of the grid.

Everything is a function of a seed and a block's number, so a pool can be made in any number of sittings.
"""

import numpy as np
from numpy.typing import NDArray

from unveil.training.data.sudoku.solver import CELLS, Flags, Grids, Masks, solve

BLOCK = 2048  # puzzles made together


def make_solutions(count: int, generator: np.random.Generator) -> Grids:
    """Complete grids [N, 81]: three boxes of the diagonal at random, the rest by the solver, digits renamed."""
    grids = np.zeros((count, 9, 9), dtype=np.int8)
    for box in range(0, 9, 3):
        filled = generator.permuted(np.tile(np.arange(1, 10, dtype=np.int8), (count, 1)), axis=1)
        grids[:, box : box + 3, box : box + 3] = filled.reshape(-1, 3, 3)
    return shuffled(solve(grids.reshape(count, CELLS), limit=1).grids, generator)


def dig(solutions: Grids, generator: np.random.Generator) -> Flags:
    """Clues [N, 81] that leave one solution and none of which can be spared: cell after cell is emptied, in an order of
    its own for each grid, wherever its digit follows from what remains."""
    clues = np.ones(solutions.shape, dtype=np.bool_)
    order = generator.permuted(np.tile(np.arange(CELLS), (len(solutions), 1)), axis=1)
    rows = np.arange(len(solutions))
    for cells in order.T:
        clues[rows, cells] = False
        forbidden: Masks = np.zeros(solutions.shape, dtype=np.uint16)
        forbidden[rows, cells] = np.uint16(1) << (solutions[rows, cells].astype(np.uint16) - np.uint16(1))
        is_needed = solve(np.where(clues, solutions, 0).astype(np.int8), limit=1, forbidden=forbidden).counts > 0
        clues[rows, cells] = is_needed
    return clues


def refilled(clues: Flags, extra: NDArray[np.int64], generator: np.random.Generator) -> Flags:
    """The clues and `extra` [N] more of each grid's cells, at random."""
    scores = np.where(clues, -1.0, generator.random(clues.shape))
    ranks = scores.argsort(1).argsort(1)
    is_clue: Flags = ranks < (clues.sum(1) + extra)[:, None]
    return is_clue


def shuffled(grids: Grids, generator: np.random.Generator) -> Grids:
    """Each grid under a random symmetry: digits renamed, rows, columns, bands and stacks permuted, perhaps transposed;
    0 stays 0."""
    cells, digits = draw_symmetries(len(grids), generator)
    renamed = np.concatenate([np.zeros((len(grids), 1), dtype=np.int64), digits + 1], axis=1)
    moved = np.take_along_axis(grids, cells, axis=1)
    return np.take_along_axis(renamed, moved.astype(np.int64), axis=1).astype(np.int8)


def draw_symmetries(count: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Random symmetries: `cells` [N, 81], which old cell comes to each place, and `digits` [N, 9], the new digit of
    each old one, both from 0."""
    rows, columns = (_lines(generator.random((count, 3)), generator.random((count, 3, 3))) for _ in range(2))
    cells = rows[:, :, None] * 9 + columns[:, None, :]  # [N, 9, 9]
    flips = generator.random(count) < 0.5
    cells = np.where(flips[:, None, None], cells.transpose(0, 2, 1), cells)
    return cells.reshape(count, CELLS), generator.random((count, 9)).argsort(1)


def _lines(bands: NDArray[np.float64], inside: NDArray[np.float64]) -> NDArray[np.int64]:
    """An order of nine rows that keeps bands together: [N, 3] and [N, 3, 3] noise -> [N, 9]."""
    order = bands.argsort(1)[:, :, None] * 3 + inside.argsort(2)
    return order.reshape(-1, 9)


def orbit_marks(solutions: Grids) -> NDArray[np.uint64]:
    """A number for each complete grid that no symmetry changes: [N]. Different numbers prove that no symmetry turns
    one grid into the other; equal ones prove nothing.

    For any two rows, what stands below what is a permutation of the digits; renaming them or permuting columns keeps
    its cycle lengths. The mark holds those of all pairs of rows, without regard to their order within a band and among
    bands, and the same of columns.
    """
    grids = solutions.reshape(-1, 9, 9).astype(np.int64) - 1
    halves = np.sort(np.stack([_half_mark(grids), _half_mark(grids.transpose(0, 2, 1))]), axis=0)
    return _mix(_mix(np.zeros(len(grids), dtype=np.uint64), halves[0]), halves[1])


def _half_mark(grids: NDArray[np.int64]) -> NDArray[np.uint64]:
    N = len(grids)
    cycles = np.zeros((N, 9, 9), dtype=np.uint64)
    where = grids.argsort(2)  # the column of each digit
    for a in range(9):
        for b in range(9):
            step = np.take_along_axis(grids[:, b], where[:, a], axis=1)  # [N, 9]: digit of row a -> digit below it
            cycles[:, a, b] = _cycle_code(step)
    own = np.stack([_sorted_mix([cycles[:, 3 * k + i, 3 * k + j] for i, j in _PAIRS]) for k in range(3)])  # [3, N]
    across = {
        (k, m): _sorted_mix([cycles[:, 3 * k + i, 3 * m + j] for i in range(3) for j in range(3)]) for k, m in _PAIRS
    }
    bands = [_mix(own[k], _sorted_mix([across[pair] for pair in _PAIRS if k in pair])) for k in range(3)]
    return _sorted_mix(bands)


_PAIRS = ((0, 1), (0, 2), (1, 2))


def _cycle_code(step: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The cycle lengths of a permutation of nine as a number: how many digits return after 2 to 7 steps."""
    digits, now = np.arange(9), step
    code = np.zeros(len(step), dtype=np.uint64)
    for _ in range(6):
        now = np.take_along_axis(step, now, axis=1)
        code = code * np.uint64(10) + (now == digits).sum(1).astype(np.uint64)
    return code


def _sorted_mix(parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """One number of several in any order."""
    mark = np.zeros(len(parts[0]), dtype=np.uint64)
    for part in np.sort(np.stack(parts), axis=0):
        mark = _mix(mark, part)
    return mark


def _mix(mark: NDArray[np.uint64], part: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser over both, modulo 2**64."""
    z = mark * np.uint64(0x9E3779B97F4A7C15) + part + np.uint64(0x632BE59BD9B4E019)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
