"""Prompts that are strings with holes: `[MASK]` hides one token, `[MASK:12]` twelve."""

import re
from dataclasses import dataclass

from unveil.model.errors import PromptError
from unveil.model.tokenizers.wording import shown

_HOLE = re.compile(r"\[MASK(?::([^\[\]]*))?\]")
_SIZE = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hole:
    size: int


@dataclass(frozen=True, slots=True)
class Run:
    """Known text between holes; `start` counts characters of the prompt from 0."""

    text: str
    start: int


def parse_holes(prompt: str, *, longest: int) -> list[Hole | Run]:
    """The prompt in order, without empty runs. Raises PromptError for a hole that is not 1 to `longest` tokens, and for
    holes that are more than that together.

    What only resembles a hole (`[mask]`, `[MASK`) is text.
    """
    parts: list[Hole | Run] = []
    end = 0
    for match in _HOLE.finditer(prompt):
        parts += [Run(prompt[end : match.start()], end), Hole(_size(match, longest=longest))]
        end = match.end()
    num_hidden = sum(part.size for part in parts if isinstance(part, Hole))
    if num_hidden > longest:  # said here, since nobody should spell out what a million holes ask for
        raise PromptError(f"the prompt has {num_hidden} hidden tokens, the model takes at most {longest}")
    parts.append(Run(prompt[end:], end))
    return [part for part in parts if not (isinstance(part, Run) and not part.text)]


def _size(match: re.Match[str], *, longest: int) -> int:
    written = match[1]
    if written is None:
        return 1
    if _SIZE.fullmatch(written) and 1 <= int(written) <= longest:
        return int(written)
    place = f"{shown(match[0])} (character {match.start() + 1} of the prompt)"
    raise PromptError(f"{place}: a hole's size must be an integer between 1 and {longest}, as in [MASK:12]")
