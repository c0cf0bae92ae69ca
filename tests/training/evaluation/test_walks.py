"""The one walk: every hidden position becomes known once, and nothing that was known is asked for."""

import torch
from torch import Tensor

from unveil.training.evaluation.walks import walk

HIDDEN = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()


def _first(_seen: None, free: Tensor, _rows: Tensor, _number: int) -> Tensor:
    """The leftmost free position of each row."""
    return free & (free.cumsum(-1) == 1)


def test_rows_go_on_until_nothing_is_hidden_and_are_seen_as_they_are_before_the_reveal() -> None:
    hidden, seen = HIDDEN.clone(), []

    def see(rows: Tensor, unseen: Tensor, _: Tensor) -> None:
        seen.append((rows.tolist(), unseen.clone()))

    steps = list(walk(hidden, see=see, take=_first))
    assert not hidden.any()
    assert [rows for rows, _ in seen] == [[0, 2], [0], [0]]
    assert all(torch.equal(step.hidden, unseen) for step, (_, unseen) in zip(steps, seen, strict=True))
    revealed = torch.zeros_like(HIDDEN, dtype=torch.int64)
    for step in steps:
        revealed[step.rows] += step.taken
    assert torch.equal(revealed, HIDDEN.long())


def test_what_is_not_wanted_stays_hidden_and_is_seen_as_hidden() -> None:
    hidden, wanted = HIDDEN.clone(), torch.tensor([False, True, False, False]).expand(3, 4)
    (step,) = walk(hidden, see=lambda _rows, _unseen, _ranks: None, take=_first, wanted=wanted)
    assert step.rows.tolist() == [0]
    assert step.hidden.tolist() == [[True, True, False, True]]
    assert step.taken.tolist() == [[False, True, False, False]]
    assert hidden.tolist() == [[True, False, False, True], [False] * 4, [True, False, False, False]]


def test_a_row_stops_after_its_own_number_of_steps() -> None:
    hidden = HIDDEN.clone()
    numbers: list[int] = []

    def take(seen: None, free: Tensor, rows: Tensor, number: int) -> Tensor:
        numbers.append(number)
        return _first(seen, free, rows, number)

    steps = list(walk(hidden, see=lambda _rows, _unseen, _ranks: None, take=take, stop=torch.tensor([2, 5, 0])))
    assert [step.rows.tolist() for step in steps] == [[0], [0]]
    assert numbers == [0, 1]
    assert hidden.tolist() == [[False, False, False, True], [False] * 4, [True, False, False, False]]


def test_ranks_are_the_steps_of_the_reveals_and_of_what_is_hidden_the_next_one() -> None:
    ranks: list[list[list[int]]] = []
    both = torch.tensor([[1, 1, 0, 1], [0, 0, 1, 1]]).bool()

    def take(_seen: None, free: Tensor, _rows: Tensor, number: int) -> Tensor:
        return free & (free.cumsum(-1) <= 1 + (number > 0))  # one position, then two in one step

    assert len(list(walk(both, see=lambda _rows, _unseen, seen: ranks.append(seen.tolist()), take=take))) == 2
    assert ranks == [[[1, 1, 0, 1], [0, 0, 1, 1]], [[1, 2, 0, 2], [0, 0, 1, 2]]]
