"""Rows whose ends absorb, and what orders cost on them, a step at a time: what faster code must agree with."""

from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.model.loss.critic import Cost


class Row(NamedTuple):
    """One row: positions known from the start, absent, and holding an end; `control` in nats."""

    known: frozenset[int]
    absent: frozenset[int]
    ends: frozenset[int]
    control: tuple[float, ...]


def state_costs(L: int, *, seed: int = 0) -> Cost:
    """Random costs that differ for every state of hidden, visible and absent positions; what is not hidden has some,
    too, which nobody may count."""
    table = 2 * torch.randn((3**L, L), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    digits = 3 ** torch.arange(L)

    def cost(hidden: Tensor, absent: Tensor) -> Tensor:
        assert not (hidden & absent).any()
        return table[((hidden + 2 * absent.long()) * digits).sum(-1)]

    return cost


def random_rows(num: int, L: int, *, seed: int, has_ends: bool = True) -> list[Row]:
    """Some know a few positions, some are short, and the last positions of most are ends."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(num):
        length = int(torch.randint(L // 2 + 1, L + 1, (), generator=generator))
        first_end = int(torch.randint(1, L + 1, (), generator=generator))
        is_known = (torch.rand(L, generator=generator) < 0.15).tolist()
        control = torch.rand(L, generator=generator, dtype=torch.float64) * 3
        rows.append(
            Row(
                known=frozenset(i for i in range(length) if is_known[i]),
                absent=frozenset(range(length, L)),
                ends=frozenset(range(first_end, L)) if has_ends else frozenset(),
                control=tuple(control.tolist()),
            )
        )
    return rows


def masks(rows: list[Row], L: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Known, absent, ends and control, [M, L] each."""
    parts = ([[i in part for i in range(L)] for part in column] for column in list(zip(*rows, strict=True))[:3])
    known, absent, ends = (torch.tensor(part) for part in parts)
    return known, absent, ends, torch.tensor([row.control for row in rows], dtype=torch.float64)


def plain_cost(cost: Cost, order: tuple[int, ...], row: Row) -> float:
    """`f` and the control of each position that is revealed, less the control of all that the row has to reveal."""
    L = len(order)
    total, first_end = 0.0, L
    hidden = set(range(L)) - row.known - row.absent
    total -= sum(row.control[i] for i in hidden)
    for position in order:
        if position not in hidden:
            continue
        behind = set(range(first_end + 1, L))
        state = [torch.tensor([[i in part for i in range(L)]]) for part in (hidden - behind, set(row.absent) | behind)]
        total += float(cost(*state)[0, position]) + row.control[position]
        hidden.discard(position)
        if position in row.ends:
            first_end = min(first_end, position)
            hidden -= set(range(position, L))
    return total


def mean_cost(cost: Cost, order: tuple[int, ...], rows: list[Row]) -> float:
    return sum(plain_cost(cost, order, row) for row in rows) / len(rows)


def all_costs(cost: Cost, rows: list[Row], L: int) -> tuple[Tensor, Tensor]:
    """Every order [L!, L] and its mean cost [L!]."""
    orders = list(permutations(range(L)))
    return torch.tensor(orders), torch.tensor([mean_cost(cost, o, rows) for o in orders], dtype=torch.float64)
