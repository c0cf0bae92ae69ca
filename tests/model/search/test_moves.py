"""What moves do to an order, and which of them go together."""

import torch

from unveil.model.search.moves import apart, moved, rotations, shuffled, swaps


def lists(L: int, moves: torch.Tensor) -> set[tuple[int, ...]]:
    found = [tuple(order) for order in moved(torch.arange(L), moves).tolist()]
    assert len(set(found)) == len(found), "no move stands there twice"
    return set(found)


def test_moves_of_one_position_put_each_anywhere_else() -> None:
    L, expected = 5, set()
    for place in range(L):
        rest = [i for i in range(L) if i != place]
        expected |= {(*rest[:k], place, *rest[k:]) for k in range(L)}
    assert lists(L, rotations(L, range(1, 2), longest=L)) == expected - {tuple(range(L))}


def test_moves_of_blocks_exchange_neighbouring_blocks() -> None:
    L, expected = 6, set()
    for first in range(L):
        for cut in range(first + 2, L + 1):
            for stop in range(cut + 2, L + 1):
                whole = list(range(L))
                expected.add((*whole[:first], *whole[cut:stop], *whole[first:cut], *whole[stop:]))
    assert lists(L, rotations(L, range(2, L), longest=L)) == expected


def test_swaps_exchange_two_positions_that_are_not_neighbours() -> None:
    L, expected = 5, set()
    for one in range(L):
        for other in range(one + 2, L):
            order = list(range(L))
            order[one], order[other] = other, one
            expected.add(tuple(order))
    assert lists(L, swaps(L)) == expected


def test_near_moves_change_no_more_than_so_many_places() -> None:
    moves = rotations(9, range(1, 2), longest=3)
    changed = moved(torch.arange(9), moves) != torch.arange(9)
    assert changed.sum(-1).max() == 3
    assert len(moves) == 8 + 2 * 7  # neighbours, and three in a row to either side


def test_moves_that_help_and_do_not_overlap_are_made_together_the_best_first() -> None:
    moves = torch.tensor([[0, 3, 1], [2, 5, 1], [3, 6, 1], [6, 8, 1], [8, 9, 1]])
    gains = torch.tensor([1.0, 3.0, 2.0, 1e-7, 0.5])
    assert apart(moves, gains) == [1, 4]
    assert apart(moves, gains.flip(0)) == [3, 2, 4, 0]


def test_shuffled_parts_hold_every_move_once_and_differ_from_seed_to_seed() -> None:
    moves = rotations(8, range(1, 3), longest=8)
    parts = [shuffled(moves, size=7, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert not torch.equal(torch.cat(parts[0]), torch.cat(parts[1]))
    for part in parts:
        assert sorted(torch.cat(part).tolist()) == sorted(moves.tolist())
        assert max(map(len, part)) == 7
