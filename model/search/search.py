"""The decided order of least cost by a critic: exact for short rows, else descents by moves from many starts.

Up to EXACT_LENGTH positions the critic is asked about every set and Held-Karp finds the best order there is. Beyond,
each start descends: stretch by stretch the order is changed where that helps, first by moves of one position. The best
descents go on by exchanged blocks and swaps too, until none helps or the questions are spent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.model.loss.critic import Cost
from unveil.model.oracle.exact import best_order, subset_masks
from unveil.model.search.moves import apart, moved, rotations, shuffled, swaps
from unveil.model.search.pricing import SetPrices, TrialRows, step_costs

EXACT_LENGTH = 12
MAX_QUESTIONS = 1_000_000
NUM_RANDOM, NUM_DEEPENED = 4, 3
NEAR, LONGEST_BLOCK = 8, 4
_PLACES_AT_ONCE = 2**17  # of all moves that are priced together, times kinds of rows


class Found(NamedTuple):
    """An order sigma [L] and what it costs by the critic, in nats a row less the control."""

    order: Tensor
    nats: float


class _Priced(NamedTuple):
    """An order sigma [L] and what its steps cost, [L] float64."""

    order: Tensor
    steps: Tensor

    @property
    def nats(self) -> float:
        return float(self.steps.sum())


def search_orders(
    cost: Cost,
    rows: TrialRows,
    *,
    starts: Tensor,
    generator: torch.Generator,
    max_questions: int = MAX_QUESTIONS,
    num_found: int = 4,
) -> list[Found]:
    """The best few distinct orders, the cheapest first; none is dearer than all of the starts [N, L] int64.

    To these are added: left to right, right to left, the critic's greedy order, and random ones. `max_questions` bounds
    what the critic is asked beyond the starts: sets times kinds of rows (`SetPrices`). Nothing but `generator`, on the
    CPU, is random.
    """
    prices = SetPrices(cost, rows)
    orders = _distinct([*starts, *_own_starts(prices, generator)])
    if prices.length <= EXACT_LENGTH:
        orders = [_exact(prices), *orders]
    else:
        orders = [*_descents(prices, orders, generator, max_questions), *orders]
    found = _priced(prices, _distinct(orders))
    return [Found(order, steps.nats) for order, steps in zip((p.order for p in found), found, strict=True)][:num_found]


def _own_starts(prices: SetPrices, generator: torch.Generator) -> list[Tensor]:
    L, device = prices.length, prices.device
    reading = torch.arange(L, device=device)
    random = [torch.randperm(L, generator=generator).to(device) for _ in range(NUM_RANDOM)]
    return [reading, reading.flip(0), _greedy(prices), *random]


def _greedy(prices: SetPrices) -> Tensor:
    """Always the position that is cheapest now, ties to the lowest."""
    revealed = torch.zeros(prices.length, dtype=torch.bool, device=prices.device)
    order = []
    for _ in range(prices.length):
        position = prices.after(revealed[None])[0].masked_fill(revealed, torch.inf).argmin()
        revealed[position] = True
        order.append(position)
    return torch.stack(order)


def _exact(prices: SetPrices) -> Tensor:
    return best_order(prices.after(subset_masks(prices.length, device=prices.device)))[1]


def _distinct(orders: Sequence[Tensor]) -> list[Tensor]:
    """Without repeats; the first of each stays in its place."""
    return list({tuple(order.tolist()): order for order in orders[::-1]}.values())[::-1]


def _priced(prices: SetPrices, orders: Sequence[Tensor]) -> list[_Priced]:
    """The cheapest first; ties stay as they are."""
    steps = [step_costs(prices, order[None])[0] for order in orders]
    return sorted(map(_Priced, orders, steps), key=lambda priced: priced.nats)


def _descents(
    prices: SetPrices, starts: Sequence[Tensor], generator: torch.Generator, max_questions: int
) -> list[Tensor]:
    """Where the descents from all starts end. The first half of the questions goes to moves of one position, in equal
    shares, the rest to all moves from the best ends."""
    L = prices.length
    keys = torch.randint(2**62, (L,), generator=generator).to(prices.device)
    near, far = rotations(L, range(1, 2), longest=NEAR), rotations(L, range(1, 2), longest=L)
    blocks = rotations(L, range(2, LONGEST_BLOCK + 1), longest=L)
    first, half = prices.asked, max_questions // 2
    found = _priced(prices, starts)
    for index, start in enumerate(found):
        limit = first + half * (index + 1) // len(found)
        found[index] = _descend(prices, start, (near, far), keys=keys, generator=generator, limit=limit)
    found = sorted(found, key=lambda priced: priced.nats)
    best = found[:NUM_DEEPENED]
    for index, start in enumerate(best):
        limit = first + half + (max_questions - half) * (index + 1) // len(best)
        moves = (near, far, blocks, swaps(L))
        found[index] = _descend(prices, start, moves, keys=keys, generator=generator, limit=limit)
    return [priced.order for priced in found]


def _descend(
    prices: SetPrices,
    start: _Priced,
    neighbourhoods: Sequence[Tensor],
    *,
    keys: Tensor,
    generator: torch.Generator,
    limit: int,
) -> _Priced:
    """Until no move of any neighbourhood helps; after each that does, the first one is tried again."""
    current, level = start, 0
    while level < len(neighbourhoods) and prices.asked < limit:
        before = current
        size = max(16, _PLACES_AT_ONCE // (prices.length * prices.num_kinds))
        for moves in shuffled(neighbourhoods[level], size=size, generator=generator):
            if prices.asked >= limit:
                break
            current = _improved(prices, current, moves.to(prices.device), keys=keys)
        level = level + 1 if current is before else 0
    return current


def _improved(prices: SetPrices, current: _Priced, moves: Tensor, *, keys: Tensor) -> _Priced:
    """After those of the moves that help most; the same object if none does."""
    places = torch.arange(prices.length, device=prices.device)
    inside = (places >= moves[:, :1]) & (places < moves[:, 1:2])
    orders = moved(current.order, moves)
    steps = _steps_inside(prices, orders, inside, keys=keys)
    gains = current.steps.masked_fill(~inside, 0.0).sum(-1) - steps.sum(-1)
    made = apart(moves, gains)
    if not made:
        return current
    order, best = current.order.clone(), current.steps.clone()
    for index in made:
        order[inside[index]] = orders[index, inside[index]]
        best[inside[index]] = steps[index, inside[index]]
    return _Priced(order, best)


def _steps_inside(prices: SetPrices, orders: Tensor, inside: Tensor, *, keys: Tensor) -> Tensor:
    """What the steps `inside` [P, L] of orders [P, L] cost, 0 elsewhere. A set that comes up many times is asked about
    once: it is known by the sum of its positions' random keys [L]."""
    own = keys[orders]
    row, place = inside.nonzero(as_tuple=True)
    numbers, number = torch.unique((own.cumsum(-1) - own)[row, place], return_inverse=True)
    example = torch.empty_like(numbers).scatter_(0, number, torch.arange(len(row), device=row.device))
    is_before = torch.arange(orders.shape[1], device=row.device) < place[example, None]
    revealed = torch.zeros_like(is_before).scatter_(1, orders[row[example]], is_before)
    table = prices.after(revealed)
    steps = torch.zeros(orders.shape, dtype=table.dtype, device=table.device)
    steps[row, place] = table[number, orders[row, place]]
    return steps
