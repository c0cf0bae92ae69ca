"""Sudoku puzzles of our own making to a `Dataset`. Knows the cache and the splits, not how a puzzle is made.

No symmetry of the grid turns a validation or test solution into a training one: their orbits' marks differ, and a
puzzle whose mark the other side has is left out. Blocks are kept in the cache one by one, so making them goes on where
it was stopped.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unveil.model.errors import UnveilError
from unveil.model.tokenizers.grid import GridTokenizer
from unveil.training.data.config import SudokuData
from unveil.training.data.dataset import Dataset, Known, Rows
from unveil.training.data.sudoku.puzzles import BLOCK, dig, draw_symmetries, make_solutions, orbit_marks, refilled
from unveil.training.data.sudoku.solver import Flags, Grids

MAKER = 1  # to be raised when the same seed would give other puzzles
_SPLITS = ("train", "validation", "test")


def load_sudoku(config: SudokuData, *, cache: Path) -> Dataset:
    """Makes what the cache does not hold, about 10 ms a puzzle. Raises UnveilError."""
    counts = (config.puzzles, config.validation_puzzles, config.test_puzzles)
    made = {name: make_pool(name, count, config.seed, cache) for name, count in zip(_SPLITS, counts, strict=True)}
    kept, left_out = _apart({name: pool[0] for name, pool in made.items()})
    if gone := next((name for name in _SPLITS if not kept[name].any()), None):
        raise UnveilError(f"sudoku: no {gone} puzzle is left that is no symmetric copy of another split's")
    rows: dict[str, Rows] = {}
    known: dict[str, Known] = {}
    for stream, (name, (solutions, clues)) in enumerate(made.items()):
        generator = np.random.default_rng([config.seed, stream, BLOCK])
        rows[name] = solutions[kept[name]].astype(np.int64) - 1
        known[name] = clues[kept[name]]
        if name == "train":
            rows[name] = np.repeat(rows[name], config.versions, axis=0)
            known[name] = in_versions(known[name], config.versions, config.extra_clues, generator)
        else:
            extra = generator.integers(0, config.extra_clues + 1, len(known[name]))
            known[name] = refilled(known[name], extra, generator)
    return Dataset(
        name="sudoku",
        tokenizer=GridTokenizer(),
        train=rows["train"],
        validation=rows["validation"],
        test=rows["test"],
        known=known,
        symmetries=shuffle_puzzles,
        summary=_summary(config, known, left_out),
    )


def make_pool(split: str, count: int, seed: int, cache: Path) -> tuple[Grids, Flags]:
    """The first `count` solutions of a split and the clues none of which can be spared, [N, 81] each."""
    numbers = range(-(-count // BLOCK))
    blocks = [_block(_SPLITS.index(split), number, seed, cache) for number in numbers]
    solutions, clues = (np.concatenate(parts)[:count] for parts in zip(*blocks, strict=True))
    return solutions, clues


def in_versions(clues: Flags, versions: int, extra_clues: int, generator: np.random.Generator) -> Flags:
    """The clues of each training puzzle [N, 81] as it is and, after it, with up to so many more: [N * versions, 81]."""
    extra = generator.integers(0, extra_clues + 1, len(clues) * versions)
    extra[::versions] = 0
    return refilled(np.repeat(clues, versions, axis=0), extra, generator)


def shuffle_puzzles(rows: Rows, known: Known, generator: np.random.Generator) -> tuple[Rows, Known]:
    """Each puzzle under a random symmetry of its own; ids from 0."""
    cells, digits = draw_symmetries(len(rows), generator)
    moved = np.take_along_axis(rows, cells, axis=1)
    return np.take_along_axis(digits, moved, axis=1), np.take_along_axis(known, cells, axis=1)


def _block(stream: int, number: int, seed: int, cache: Path) -> tuple[Grids, Flags]:
    path = cache / f"sudoku-{MAKER}-{seed}-{_SPLITS[stream]}-{number}.npy"
    try:
        packed = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        generator = np.random.default_rng([seed, stream, number])
        solutions = make_solutions(BLOCK, generator)
        clues = dig(solutions, generator)
        _keep(path, np.where(clues, solutions, -solutions).astype(np.int8))
        return solutions, clues
    except (OSError, ValueError, EOFError) as error:
        raise UnveilError(f"{path}: cannot be read; remove it to have it made anew ({error})") from None
    if packed.shape != (BLOCK, 81) or packed.dtype != np.int8:
        raise UnveilError(f"{path}: holds no puzzles; remove it to have it made anew")
    return np.abs(packed), packed > 0


def _keep(path: Path, array: NDArray[np.int8]) -> None:
    """Written aside and renamed when whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".making-", delete=False) as file:
        np.save(file, array)
    os.replace(file.name, path)


def _apart(solutions: dict[str, Grids]) -> tuple[dict[str, Flags], dict[str, int]]:
    """Which puzzles of each split stay, so that no orbit is in two of them; the test split is spared last."""
    kept: dict[str, Flags] = {}
    taken = np.empty(0, dtype=np.uint64)
    for name in reversed(_SPLITS):
        marks = orbit_marks(solutions[name])
        kept[name] = ~np.isin(marks, taken)
        taken = np.concatenate([taken, marks])
    return kept, {name: int((~flags).sum()) for name, flags in kept.items()}


def _summary(config: SudokuData, known: dict[str, Known], left_out: dict[str, int]) -> dict[str, object]:
    return {
        "source": f"puzzles of one solution each, made by Unveil (maker {MAKER}, seed {config.seed})",
        "license": "MIT",
        **{
            name: {
                "rows": len(clues),
                "clues": f"{clues.sum(1).min()} to {clues.sum(1).max()}, {clues.sum(1).mean():.1f} on average",
                "left_out_as_another_splits_orbit": left_out[name],
            }
            for name, clues in known.items()
        },
    }
