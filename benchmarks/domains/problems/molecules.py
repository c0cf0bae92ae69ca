"""What molecules are asked for: scaffolds with holes for what hangs on them. Knows no training; RDKit is needed."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from unveil.model.tokenizers.smiles import split_smiles
from unveil.training.evaluation.chemistry import NEEDED, has_rdkit, read, scaffold

_ATOM = re.compile(r"\[.*\]|[A-Za-z]+")


def require_rdkit() -> None:
    """Exits with one line where it is not installed."""
    if not has_rdkit():
        raise SystemExit(f"error: {NEEDED}")


def scaffold_prompt(smiles: str) -> tuple[str, str] | None:
    """The molecule with a hole, of its own number of tokens, for everything that is not scaffold; and the scaffold.

    None where there is no scaffold or nothing else.
    """
    core, tokens = scaffold(smiles), split_smiles(smiles)
    molecule = read(smiles)
    atoms = [i for i, token in enumerate(tokens) if _ATOM.fullmatch(token)]
    if not core or molecule is None or molecule.GetNumAtoms() != len(atoms):  # an explicit [H] is no atom to RDKit
        return None
    kept = {atoms[number] for number in molecule.GetSubstructMatch(read(core))}
    hidden = _hidden(tokens, kept)
    return (_template(tokens, hidden), core) if any(hidden) and kept else None


def scaffold_prompts(smiles: Sequence[str], *, count: int, seed: int) -> list[tuple[str, str]]:
    """`scaffold_prompt` of at most `count` molecules that have one, drawn at random from all of them."""
    order = np.random.default_rng(seed).permutation(len(smiles))
    found: Iterator[tuple[str, str]] = (asked for i in order if (asked := scaffold_prompt(smiles[i])) is not None)
    return list(islice(found, count))


def _hidden(tokens: Sequence[str], kept: set[int]) -> list[bool]:
    """Atoms that are not kept, the bonds before them, and the brackets of branches without a kept atom."""
    hidden = [False] * len(tokens)
    opened: list[int] = []
    following = False  # whether the next atom to the right is hidden
    for i in range(len(tokens) - 1, -1, -1):
        if _ATOM.fullmatch(tokens[i]):
            hidden[i] = following = i not in kept
        elif tokens[i] in "-=#:/\\":
            hidden[i] = following and not tokens[i + 1][0].isdigit()
    for i, token in enumerate(tokens):
        if token == "(":
            opened.append(i)
        elif token == ")":
            start = opened.pop()
            hidden[start] = hidden[i] = not any(start < atom < i for atom in kept)
    return hidden


def _template(tokens: Sequence[str], hidden: Sequence[bool]) -> str:
    parts, size = [], 0
    for token, is_hidden in zip([*tokens, ""], [*hidden, False], strict=True):
        if is_hidden:
            size += 1
            continue
        hole = "[MASK]" if size == 1 else f"[MASK:{size}]"
        parts += [hole] * (size > 0) + [token]
        size = 0
    return "".join(parts)
