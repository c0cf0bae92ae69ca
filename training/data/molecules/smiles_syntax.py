"""Whether what a SMILES opens is closed: brackets of atoms, branches, rings."""

import re

_PIECES = re.compile(r"\[[^\[\]]+\]|%[0-9]{2}|[\[\]()0-9]")


def first_unpaired(text: str) -> tuple[str, int] | None:
    """What is wrong with the first piece that has no other end, and the character at which it stands, counted from 1.

    A ring number, which may be used again once its ring is closed, pairs with the next of the same value: `%01` is `1`.
    """
    branches: list[int] = []
    rings: dict[int, int] = {}
    for match in _PIECES.finditer(text):
        piece, at = match[0], match.start() + 1
        if piece == "[":
            return '"[" is not closed', at
        if piece == "]" or (piece == ")" and not branches):
            return f'"{piece}" closes nothing', at
        if piece == "(":
            branches.append(at)
        elif piece == ")":
            branches.pop()
        elif piece[0] != "[":  # a whole atom may hold digits of its own
            number = int(piece.lstrip("%"))
            if rings.pop(number, None) is None:
                rings[number] = at
    still_open = [(place, '"("') for place in branches] + [(place, f"ring {number}") for number, place in rings.items()]
    if not still_open:
        return None
    place, what = min(still_open)
    return f"{what} is not closed", place
