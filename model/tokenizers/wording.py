"""How tokenizers name values, levels and columns in messages: on one line, and never all of a long one."""

import json
from collections.abc import Iterable

MAX_LISTED = 12

_EXAMPLES = 6

_SHOWN = 40


def one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def shown(text: str) -> str:
    """A name or level inside a one-line message: no control characters, not endless."""
    line = one_line(text)
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def quoted(value: object) -> str:
    """A value of a prompt, as JSON, in a one-line message."""
    if isinstance(value, str):
        return f'"{shown(value)}"'
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "a number of that size"  # Python refuses to print integers of thousands of digits.
    return shown(json.dumps(value, default=lambda other: type(other).__name__))


def listed(names: Iterable[str]) -> str:
    """`Female, Male`; long lists are abbreviated and give their count."""
    every = [shown(name) for name in names]
    if len(every) <= MAX_LISTED:
        return ", ".join(every)
    return f"{', '.join(every[:_EXAMPLES])}, ... ({len(every)} in all)"
