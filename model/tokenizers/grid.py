"""Sudoku grids: a string of 81 digits and holes to a template, and ids back to the string.

A position is a cell, row by row; id d stands for digit d + 1. White space in a prompt is not looked at, so a grid may
be given as nine lines; the output is one line of 81 digits, its text nine lines.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from unveil.model.errors import ArtifactError, PromptError
from unveil.model.tokenizers.base import Template, Value
from unveil.model.tokenizers.wording import quoted

SIDE, BOX = 9, 3
CELLS = SIDE * SIDE
_DIGITS, _HOLES = "123456789", ".0"
_ALL = (1 << SIDE) - 1  # a bit for each digit
_KINDS = ("row", "column", "box")
_LONGEST_PROMPT = 10_000  # characters, white space and all
_EXAMPLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"


class _File(BaseModel):
    """`tokenizer.json` of a grid. The shape is stated, not chosen: this version knows the 9 x 9 grid alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["unveil-grid"] = "unveil-grid"
    version: Literal[1] = 1
    side: Literal[9] = 9
    box: Literal[3] = 3


class GridTokenizer:
    """A `Tokenizer` whose prompts are strings of 81: a digit is known, `.` or `0` hidden."""

    domain: ClassVar[Literal["grid"]] = "grid"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads `tokenizer.json`. Raises ArtifactError in one line for anything but a whole one."""
        try:
            _File.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ArtifactError(f"{path.name} cannot be read: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise ArtifactError(f"{path.name} is not a grid tokenizer: {place}: {first['msg']}") from None
        return cls()

    def save(self, path: Path) -> None:
        path.write_text(_File().model_dump_json() + "\n", encoding="utf-8")

    @property
    def length(self) -> int:
        return CELLS

    @property
    def default_length(self) -> int:
        return CELLS

    @property
    def end_id(self) -> None:
        return None

    @property
    def vocabulary_sizes(self) -> tuple[int, ...]:
        return (SIDE,)

    def encode(self, prompt: object, *, length: int | None = None, append: bool = True) -> Template:  # noqa: ARG002
        """Raises PromptError: a wrong length, a character that is none of these, two equal clues in a unit, a cell that
        no digit is left for, or a digit that no cell is left for. What only shows once cells are filled in is taken."""
        if length is not None:
            raise PromptError(f"length is not valid with a grid: it has {CELLS} cells", param="length")
        cells = _cells(prompt)
        if contradiction := _contradiction(_digits(cells)):
            raise PromptError(contradiction)
        known: dict[int, Value] = {i: cell for i, cell in enumerate(cells) if cell in _DIGITS}
        tokens = tuple(int(known[i]) - 1 if i in known else 0 for i in range(CELLS))
        return Template(tokens, tuple(i not in known for i in range(CELLS)), known)

    def contradiction(self, tokens: Sequence[int], hidden: Sequence[bool]) -> str | None:
        """What no way of filling the hidden cells could mend, in words; None where nothing shows yet."""
        return _contradiction([0 if h else token_id + 1 for token_id, h in zip(tokens, hidden, strict=True)])

    def token(self, position: int, token_id: int) -> str:  # noqa: ARG002
        return _DIGITS[token_id]

    def value(self, position: int, token_id: int, uniform: float) -> Value:  # noqa: ARG002
        return _DIGITS[token_id]

    def name(self, position: int) -> str | None:  # noqa: ARG002
        return None

    def output(self, values: Sequence[Value]) -> tuple[str, str]:
        """The 81 digits in one line, and as nine lines."""
        grid = "".join(map(str, values))
        return grid, "\n".join(grid[i : i + SIDE] for i in range(0, CELLS, SIDE))

    def describe(self) -> dict[str, Any]:
        return {"vocabulary_size": SIDE, "shape": [SIDE, SIDE]}

    def example_prompt(self) -> str:
        return _EXAMPLE


@cache
def units() -> tuple[tuple[int, ...], ...]:
    """The cells of each row, column and box, 27 units of nine, in that order."""
    rows = [tuple(range(SIDE * i, SIDE * i + SIDE)) for i in range(SIDE)]
    columns = [tuple(range(i, CELLS, SIDE)) for i in range(SIDE)]
    corners = [SIDE * BOX * i + BOX * j for i in range(BOX) for j in range(BOX)]
    boxes = [tuple(corner + SIDE * i + j for i in range(BOX) for j in range(BOX)) for corner in corners]
    return (*rows, *columns, *boxes)


_UNITS_OF = tuple(tuple(number for number, unit in enumerate(units()) if cell in unit) for cell in range(CELLS))


def is_solution(grid: str, puzzle: str) -> bool:
    """Whether `grid` is complete, breaks no rule, and has every clue of `puzzle`."""
    complete = len(grid) == CELLS and set(grid) <= set(_DIGITS) and _contradiction(_digits(grid)) is None
    return complete and all(clue in _HOLES or clue == cell for cell, clue in zip(grid, puzzle, strict=True))


def _digits(cells: str) -> list[int]:
    return [int(cell) if cell in _DIGITS else 0 for cell in cells]


def _cells(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise PromptError(f"a grid's prompt must be a string of {CELLS} cells, got {quoted(prompt)}")
    if len(prompt) > _LONGEST_PROMPT:
        raise PromptError(f"a grid's prompt must have {CELLS} cells, got {len(prompt)} characters")
    cells = "".join(prompt.split())
    for i, cell in enumerate(cells):
        if cell not in _DIGITS + _HOLES:
            raise PromptError(f"a cell must be 1 to 9, or . or 0 where it is hidden, got {quoted(cell)} (cell {i})")
    if len(cells) != CELLS:
        raise PromptError(f"a grid must have {CELLS} cells, row by row, got {len(cells)}")
    return cells


def _contradiction(digits: Sequence[int]) -> str | None:
    """What is wrong with the digits 1 to 9 of a grid, 0 where a cell is hidden, in words: the first two that exclude
    each other, hidden cell without a digit, or digit without a cell in a unit. Nothing is filled in."""
    bits = [1 << digit >> 1 for digit in digits]  # one for each digit, none where a cell is hidden
    used = [0] * len(units())
    for cell, bit in enumerate(bits):
        if bit:
            row, column, box = _UNITS_OF[cell]
            if bit & (used[row] | used[column] | used[box]):
                return _clash(digits)
            used[row] |= bit
            used[column] |= bit
            used[box] |= bit
    placed = list(used)
    for cell, bit in enumerate(bits):
        if not bit:
            row, column, box = _UNITS_OF[cell]
            left = _ALL & ~(used[row] | used[column] | used[box])
            if not left:
                return f"no digit is left for {_place(cell)}: its row, column and box have all nine"
            placed[row] |= left
            placed[column] |= left
            placed[box] |= left
    for unit, found in enumerate(placed):
        if missing := _ALL & ~found:
            return f"{(missing & -missing).bit_length()} has no place left in {_KINDS[unit // SIDE]} {unit % SIDE + 1}"
    return None


def _clash(digits: Sequence[int]) -> str:
    """The first two cells that exclude each other, in words."""
    pairs = ((kind, a, b) for kind, unit in _named_units() for a, b in combinations(unit, 2))
    kind, a, b = next((kind, a, b) for kind, a, b in pairs if digits[a] == digits[b] != 0)
    return f"{digits[a]} stands twice in one {kind}: at {_place(a)} and at {_place(b)}"


def _named_units() -> Iterator[tuple[str, tuple[int, ...]]]:
    return ((_KINDS[i // SIDE], unit) for i, unit in enumerate(units()))


def _place(cell: int) -> str:
    return f"row {cell // SIDE + 1} column {cell % SIDE + 1} (cell {cell})"
