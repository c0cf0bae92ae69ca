"""The scheduler loses nobody, mixes nothing that may not be mixed, and lets nobody starve."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scheduler import Lane, Scheduler, Seat

A = Lane("a", 15, "generate")
B = Lane("b", 15, "generate")
LANES = (A, B, Lane("a", 32, "generate"), Lane("a", 15, "rank"), Lane("a", 15, "score"))


def _run(scheduler: Scheduler, work: dict[Seat, int]) -> list[tuple[Lane, tuple[Seat, ...]]]:
    """Steps to the end; `work` says how many steps each seat needs."""
    history = []
    left = dict(work)
    while batch := scheduler.next_batch():
        history.append(batch)
        lane, seats = batch
        for seat in seats:
            left[seat] -= 1
            if left[seat] == 0:
                scheduler.leave(seat, lane)
    return history


def _seats(requests: Sequence[Sequence[tuple[Lane, int]]]) -> tuple[dict[str, dict[int, Lane]], dict[Seat, int]]:
    joined = {f"r{n}": {i: lane for i, (lane, _) in enumerate(seats)} for n, seats in enumerate(requests)}
    work = {Seat(f"r{n}", i): steps for n, seats in enumerate(requests) for i, (_, steps) in enumerate(seats)}
    return joined, work


requests = st.lists(
    st.lists(st.tuples(st.sampled_from(LANES), st.integers(1, 4)), min_size=1, max_size=6), min_size=1, max_size=8
)


@given(requests, st.integers(1, 5))
def test_every_canvas_steps_exactly_as_often_as_it_needs_and_never_outside_its_lane(
    work_list: list[list[tuple[Lane, int]]], max_batch: int
) -> None:
    joined, work = _seats(work_list)
    scheduler = Scheduler(max_batch=max_batch)
    for request_id, seats in joined.items():
        scheduler.join(request_id, seats)
    history = _run(scheduler, work)
    stepped = [(seat, lane) for lane, seats in history for seat in seats]
    assert {seat: [s for s, _ in stepped].count(seat) for seat in work} == work
    assert all(joined[seat.request_id][seat.index] == lane for seat, lane in stepped)
    assert all(1 <= len(set(seats)) == len(seats) <= max_batch for _, seats in history)
    assert scheduler.is_idle


@given(requests, st.integers(1, 5))
def test_the_oldest_request_of_a_lane_is_in_every_batch_of_that_lane(
    work_list: list[list[tuple[Lane, int]]], max_batch: int
) -> None:
    joined, work = _seats(work_list)
    scheduler = Scheduler(max_batch=max_batch)
    for request_id, seats in joined.items():
        scheduler.join(request_id, seats)
    left = dict(work)
    for lane, batch in _run(scheduler, work):
        waiting = {seat.request_id for seat, n in left.items() if n and joined[seat.request_id][seat.index] == lane}
        assert min(waiting, key=lambda r: int(r[1:])) in {seat.request_id for seat in batch}
        for seat in batch:
            left[seat] -= 1


@given(requests, st.integers(1, 5))
def test_a_lane_waits_no_longer_than_the_others_take_one_step_each(
    work_list: list[list[tuple[Lane, int]]], max_batch: int
) -> None:
    joined, work = _seats(work_list)
    scheduler = Scheduler(max_batch=max_batch)
    for request_id, seats in joined.items():
        scheduler.join(request_id, seats)
    lanes = [lane for lane, _ in _run(scheduler, work)]
    for lane in set(lanes):
        turns = [i for i, turn in enumerate(lanes) if turn == lane]
        gaps = [b - a for a, b in zip([-1, *turns], turns, strict=False)]
        assert max(gaps) <= len(LANES)


@given(requests, st.data())
def test_a_dropped_request_never_steps_again_and_the_others_lose_nothing(
    work_list: list[list[tuple[Lane, int]]], data: st.DataObject
) -> None:
    joined, work = _seats(work_list)
    scheduler = Scheduler(max_batch=3)
    for request_id, seats in joined.items():
        scheduler.join(request_id, seats)
    victim = data.draw(st.sampled_from(sorted(joined)))
    scheduler.drop(victim)
    scheduler.drop(victim)
    history = _run(scheduler, work)
    others = {seat: steps for seat, steps in work.items() if seat.request_id != victim}
    stepped = [seat for _, seats in history for seat in seats]
    assert {seat: stepped.count(seat) for seat in others} == others
    assert len(stepped) == sum(others.values())


def test_a_newcomer_steps_at_the_very_next_step_beside_a_request_of_hundreds() -> None:
    scheduler = Scheduler(max_batch=4)
    scheduler.join("big", dict.fromkeys(range(500), A))
    assert scheduler.next_batch() == (A, tuple(Seat("big", i) for i in range(4)))
    scheduler.join("small", {0: A})
    assert scheduler.next_batch() == (A, (Seat("big", 0), Seat("small", 0), Seat("big", 1), Seat("big", 2)))
    scheduler.leave(Seat("small", 0), A)
    assert scheduler.next_batch() == (A, tuple(Seat("big", i) for i in range(4)))


def test_lanes_take_turns_and_a_new_one_comes_last() -> None:
    scheduler = Scheduler(max_batch=4)
    scheduler.join("x", {0: A, 1: B})
    turns = [scheduler.next_batch(), scheduler.next_batch(), scheduler.next_batch()]
    assert [turn[0] for turn in turns if turn] == [A, B, A]
    scheduler.join("y", {0: LANES[2]})
    more = [scheduler.next_batch(), scheduler.next_batch()]
    assert [turn[0] for turn in more if turn] == [B, A]


def test_a_score_takes_a_quarter_of_a_batch_while_anybody_generates_and_a_whole_one_alone() -> None:
    scheduler = Scheduler(max_batch=8)
    score = Lane("a", 15, "score")
    scheduler.join("score", dict.fromkeys(range(500), score))
    assert scheduler.next_batch() == (score, tuple(Seat("score", i) for i in range(8)))
    scheduler.join("somebody", dict.fromkeys(range(9), B))
    batches = [scheduler.next_batch() for _ in range(4)]
    assert [(batch[0], len(batch[1])) for batch in batches if batch] == [(score, 2), (B, 8)] * 2
    scheduler.drop("somebody")
    assert scheduler.next_batch() == (score, tuple(Seat("score", i) for i in range(8)))


@pytest.mark.parametrize("max_batch", [1, 2, 3])
def test_a_score_in_the_smallest_batches_still_goes_on(max_batch: int) -> None:
    scheduler = Scheduler(max_batch=max_batch)
    score = Lane("a", 15, "score")
    scheduler.join("score", {0: score, 1: score})
    scheduler.join("somebody", {0: A})
    assert scheduler.next_batch() == (score, (Seat("score", 0),))


def test_there_is_no_batch_where_there_is_nothing_to_do() -> None:
    assert Scheduler(max_batch=1).next_batch() is None


def test_a_request_joins_once() -> None:
    scheduler = Scheduler(max_batch=1)
    scheduler.join("x", {0: A})
    with pytest.raises(AssertionError):
        scheduler.join("x", {1: A})


def test_a_batch_takes_no_more_than_one_forward_of_its_length() -> None:
    long, short = Lane("a", 1024, "generate", 2), Lane("a", 16, "generate", 128)
    scheduler = Scheduler(max_batch=64)
    scheduler.join("many", {**dict.fromkeys(range(5), long), **dict.fromkeys(range(5, 200), short)})
    batches = [scheduler.next_batch() for _ in range(4)]
    assert [(batch[0], len(batch[1])) for batch in batches if batch] == [(long, 2), (short, 64)] * 2
    scheduler.leave(Seat("many", 0), long)
    assert scheduler.next_batch() == (long, (Seat("many", 1), Seat("many", 2)))
