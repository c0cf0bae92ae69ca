"""A few small pools, made once."""

from functools import cache

import numpy as np

from unveil.training.data.sudoku.puzzles import dig, make_solutions
from unveil.training.data.sudoku.solver import Flags, Grids


@cache
def pool(count: int = 24, seed: int = 0) -> tuple[Grids, Flags]:
    generator = np.random.default_rng(seed)
    solutions = make_solutions(count, generator)
    return solutions, dig(solutions, generator)


def grid(text: str) -> Grids:
    return np.array([[0 if cell in ".0" else int(cell) for cell in text]], dtype=np.int8)
