"""The decided order of least cost by a critic: exact for short rows, else descents by moves from many starts.

Where it may be asked about every set, Held-Karp finds the best order there is. Else each start descends: stretch by
stretch the order is changed where that helps, first by moves of one position. The best descents go on by exchanged
blocks and swaps too, until none helps. What questions are left try the best one again with some stretches exchanged.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unveil.model.loss.critic import Cost
from unveil.model.oracle.exact import best_order, subset_masks
from unveil.model.search.moves import MIN_GAIN, apart, moved, rotations, shuffled, swaps
from unveil.model.search.pricing import SetPrices, TrialRows, step_costs

EXACT_LENGTH = 16  # all sets of more positions take too much memory
MAX_QUESTIONS = 1_000_000
NUM_RANDOM, NUM_DEEPENED, NUM_KICKS = 4, 3, 16
NEAR, LONGEST_BLOCK = 8, 4
_AT_ONCE = 2**17  # questions about moves that are priced together, at most


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
    num_random: int = NUM_RANDOM,
    num_found: int = 4,
) -> list[Found]:
    """The best few distinct orders, the cheapest first; none is dearer than all of the starts [N, L] int64.

    To these are added: left to right, right to left, the critic's greedy order, and `num_random` random ones.
    `max_questions` bounds what the critic is asked beyond the starts: sets times kinds of rows (`SetPrices`). Nothing
    but `generator`, on the CPU, is random.
    """
    prices = SetPrices(cost, rows)
    orders = _distinct([*starts, *_own_starts(prices, generator, num_random)])
    if prices.length <= EXACT_LENGTH and 2**prices.length * prices.num_kinds <= max_questions:
        orders = [_exact(prices), *orders]
    else:
        orders = [*_Descents(prices, generator, max_questions).from_starts(orders), *orders]
    found = _priced(prices, _distinct(orders))
    return [Found(order, steps.nats) for order, steps in zip((p.order for p in found), found, strict=True)][:num_found]


def _own_starts(prices: SetPrices, generator: torch.Generator, num_random: int) -> list[Tensor]:
    L, device = prices.length, prices.device
    reading = torch.arange(L, device=device)
    random = [torch.randperm(L, generator=generator).to(device) for _ in range(num_random)]
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


class _Descents:
    """Ways down to orders that no move makes cheaper, within a number of questions from now on."""

    def __init__(self, prices: SetPrices, generator: torch.Generator, max_questions: int) -> None:
        L = prices.length
        self._prices, self._generator = prices, generator
        self._half, self._stop = max_questions // 2, prices.asked + max_questions
        self._keys = torch.randint(2**62, (L,), generator=generator).to(prices.device)
        self._singles = (rotations(L, range(1, 2), longest=NEAR), rotations(L, range(1, 2), longest=L))
        self._all = (*self._singles, rotations(L, range(2, LONGEST_BLOCK + 1), longest=L), swaps(L))

    def from_starts(self, starts: Sequence[Tensor]) -> list[Tensor]:
        """Where they end. Half of the questions go to moves of one position from all starts, then to all moves from the
        best ends. Where that is not enough to try every move of one position, to fewer, the cheapest."""
        found = _priced(self._prices, starts)
        worth = 1 + self._half // (self._prices.length**2 * self._prices.num_kinds)
        for most, moves, stop in (
            (len(found), self._singles, self._stop - self._half),
            (NUM_DEEPENED, self._all, self._stop),
        ):
            count = min(most, len(found), worth)
            for index in range(count):
                limit = self._prices.asked + (stop - self._prices.asked) // (count - index)
                found[index] = self._descend(found[index], moves, limit=limit)
            found.sort(key=lambda priced: priced.nats)
        return [self._kicked(found[0]).order, *(priced.order for priced in found)]

    def _kicked(self, best: _Priced) -> _Priced:
        """The best that comes of exchanging stretches at random and descending again, until that fails many times."""
        fails = 0
        while fails < NUM_KICKS and self._prices.asked < self._stop:
            order = best.order
            for _ in range(2):
                order = self._exchanged(order)
            end = self._descend(_priced(self._prices, [order])[0], self._all, limit=self._stop)
            is_better = end.nats < best.nats - MIN_GAIN
            best, fails = (end, 0) if is_better else (best, fails + 1)
        return best

    def _exchanged(self, order: Tensor) -> Tensor:
        """Two stretches that lie side by side, exchanged."""
        first, cut, stop = torch.randperm(len(order) + 1, generator=self._generator)[:3].sort().values
        return moved(order, torch.stack([first, stop, cut - first])[None].to(order.device))[0]

    def _descend(self, start: _Priced, neighbourhoods: Sequence[Tensor], *, limit: int) -> _Priced:
        """Until no move of any neighbourhood helps; after each that does, the first one is tried again."""
        current, level = start, 0
        while level < len(neighbourhoods) and self._prices.asked < limit:
            before, moves = current, neighbourhoods[level]
            per_move = (moves[:, 1] - moves[:, 0]).double().mean() * self._prices.num_kinds  # at most, on average
            size = max(1, int(min(_AT_ONCE, limit - self._prices.asked) / per_move))
            for part in shuffled(moves, size=size, generator=self._generator):
                if self._prices.asked < limit:
                    current = _improved(self._prices, current, part.to(self._prices.device), keys=self._keys)
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
