"""The scheduler loses nobody, mixes nothing that may not be mixed, and lets nobody starve."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil.engine.scheduler import BatchKey, Scheduler, Slot

A = BatchKey("a", 15, "generate")
B = BatchKey("b", 15, "generate")
KEYS = (A, B, BatchKey("a", 32, "generate"), BatchKey("a", 15, "rank"), BatchKey("a", 15, "score"))


def _run(scheduler: Scheduler, work: dict[Slot, int]) -> list[tuple[BatchKey, tuple[Slot, ...]]]:
    """Steps to the end; `work` says how many steps each slot needs."""
    history = []
    left = dict(work)
    while batch := scheduler.next_batch():
        history.append(batch)
        key, slots = batch
        for slot in slots:
            left[slot] -= 1
            if left[slot] == 0:
                scheduler.leave(slot, key)
    return history


def _slots(
    requests: Sequence[Sequence[tuple[BatchKey, int]]],
) -> tuple[dict[str, dict[int, BatchKey]], dict[Slot, int]]:
    joined = {f"r{n}": {i: key for i, (key, _) in enumerate(slots)} for n, slots in enumerate(requests)}
    work = {Slot(f"r{n}", i): steps for n, slots in enumerate(requests) for i, (_, steps) in enumerate(slots)}
    return joined, work


requests = st.lists(
    st.lists(st.tuples(st.sampled_from(KEYS), st.integers(1, 4)), min_size=1, max_size=6), min_size=1, max_size=8
)


@given(requests, st.integers(1, 5))
def test_every_canvas_steps_exactly_as_often_as_it_needs_and_never_outside_its_key(
    work_list: list[list[tuple[BatchKey, int]]], max_batch: int
) -> None:
    joined, work = _slots(work_list)
    scheduler = Scheduler(max_batch=max_batch)
    for request_id, slots in joined.items():
        scheduler.join(request_id, slots)
    history = _run(scheduler, work)
    stepped = [(slot, key) for key, slots in history for slot in slots]
    assert {slot: [s for s, _ in stepped].count(slot) for slot in work} == work
    assert all(joined[slot.request_id][slot.index] == key for slot, key in stepped)
    assert all(1 <= len(set(slots)) == len(slots) <= max_batch for _, slots in history)
    assert scheduler.is_idle


@given(requests, st.integers(1, 5))
def test_the_oldest_request_of_a_key_is_in_every_batch_of_that_key(
    work_list: list[list[tuple[BatchKey, int]]], max_batch: int
) -> None:
    joined, work = _slots(work_list)
    scheduler = Scheduler(max_batch=max_batch)
    for request_id, slots in joined.items():
        scheduler.join(request_id, slots)
    left = dict(work)
    for key, batch in _run(scheduler, work):
        waiting = {slot.request_id for slot, n in left.items() if n and joined[slot.request_id][slot.index] == key}
        assert min(waiting, key=lambda r: int(r[1:])) in {slot.request_id for slot in batch}
        for slot in batch:
            left[slot] -= 1


@given(requests, st.integers(1, 5))
def test_a_key_waits_no_longer_than_the_others_take_one_step_each(
    work_list: list[list[tuple[BatchKey, int]]], max_batch: int
) -> None:
    joined, work = _slots(work_list)
    scheduler = Scheduler(max_batch=max_batch)
    for request_id, slots in joined.items():
        scheduler.join(request_id, slots)
    keys = [key for key, _ in _run(scheduler, work)]
    for key in set(keys):
        turns = [i for i, turn in enumerate(keys) if turn == key]
        gaps = [b - a for a, b in zip([-1, *turns], turns, strict=False)]
        assert max(gaps) <= len(KEYS)


@given(requests, st.data())
def test_a_dropped_request_never_steps_again_and_the_others_lose_nothing(
    work_list: list[list[tuple[BatchKey, int]]], data: st.DataObject
) -> None:
    joined, work = _slots(work_list)
    scheduler = Scheduler(max_batch=3)
    for request_id, slots in joined.items():
        scheduler.join(request_id, slots)
    victim = data.draw(st.sampled_from(sorted(joined)))
    scheduler.drop(victim)
    scheduler.drop(victim)
    history = _run(scheduler, work)
    others = {slot: steps for slot, steps in work.items() if slot.request_id != victim}
    stepped = [slot for _, slots in history for slot in slots]
    assert {slot: stepped.count(slot) for slot in others} == others
    assert len(stepped) == sum(others.values())


def test_a_newcomer_steps_at_the_very_next_step_beside_a_request_of_hundreds() -> None:
    scheduler = Scheduler(max_batch=4)
    scheduler.join("big", dict.fromkeys(range(500), A))
    assert scheduler.next_batch() == (A, tuple(Slot("big", i) for i in range(4)))
    scheduler.join("small", {0: A})
    assert scheduler.next_batch() == (A, (Slot("big", 0), Slot("small", 0), Slot("big", 1), Slot("big", 2)))
    scheduler.leave(Slot("small", 0), A)
    assert scheduler.next_batch() == (A, tuple(Slot("big", i) for i in range(4)))


def test_keys_take_turns_and_a_new_one_comes_last() -> None:
    scheduler = Scheduler(max_batch=4)
    scheduler.join("x", {0: A, 1: B})
    turns = [scheduler.next_batch(), scheduler.next_batch(), scheduler.next_batch()]
    assert [turn[0] for turn in turns if turn] == [A, B, A]
    scheduler.join("y", {0: KEYS[2]})
    more = [scheduler.next_batch(), scheduler.next_batch()]
    assert [turn[0] for turn in more if turn] == [B, A]


def test_a_score_takes_a_quarter_of_a_batch_while_anybody_generates_and_a_whole_one_alone() -> None:
    scheduler = Scheduler(max_batch=8)
    score = BatchKey("a", 15, "score")
    scheduler.join("score", dict.fromkeys(range(500), score))
    assert scheduler.next_batch() == (score, tuple(Slot("score", i) for i in range(8)))
    scheduler.join("somebody", dict.fromkeys(range(9), B))
    batches = [scheduler.next_batch() for _ in range(4)]
    assert [(batch[0], len(batch[1])) for batch in batches if batch] == [(score, 2), (B, 8)] * 2
    scheduler.drop("somebody")
    assert scheduler.next_batch() == (score, tuple(Slot("score", i) for i in range(8)))


@pytest.mark.parametrize("max_batch", [1, 2, 3])
def test_a_score_in_the_smallest_batches_still_goes_on(max_batch: int) -> None:
    scheduler = Scheduler(max_batch=max_batch)
    score = BatchKey("a", 15, "score")
    scheduler.join("score", {0: score, 1: score})
    scheduler.join("somebody", {0: A})
    assert scheduler.next_batch() == (score, (Slot("score", 0),))


def test_there_is_no_batch_where_there_is_nothing_to_do() -> None:
    assert Scheduler(max_batch=1).next_batch() is None


def test_a_request_joins_once() -> None:
    scheduler = Scheduler(max_batch=1)
    scheduler.join("x", {0: A})
    with pytest.raises(AssertionError):
        scheduler.join("x", {1: A})


def test_a_halved_batch_stays_so_for_its_model_and_length_whatever_the_work() -> None:
    scheduler = Scheduler(max_batch=64)
    score = BatchKey("a", 15, "score", 40)
    others = (BatchKey("a", 32, "generate"), BatchKey("b", 15, "generate"))
    assert scheduler.halve(A) == 32
    for key, largest in {A: 32, score: 32, others[0]: 64, others[1]: 64}.items():
        scheduler.join("r", dict.fromkeys(range(500), key))
        batch = scheduler.next_batch()
        assert batch is not None
        assert len(batch[1]) == largest
        scheduler.drop("r")
    assert [scheduler.halve(score) for _ in range(6)] == [16, 8, 4, 2, 1, 1]


def test_a_batch_takes_no_more_than_one_forward_of_its_length() -> None:
    long, short = BatchKey("a", 1024, "generate", 2), BatchKey("a", 16, "generate", 128)
    scheduler = Scheduler(max_batch=64)
    scheduler.join("many", {**dict.fromkeys(range(5), long), **dict.fromkeys(range(5, 200), short)})
    batches = [scheduler.next_batch() for _ in range(4)]
    assert [(batch[0], len(batch[1])) for batch in batches if batch] == [(long, 2), (short, 64)] * 2
    scheduler.leave(Slot("many", 0), long)
    assert scheduler.next_batch() == (long, (Slot("many", 1), Slot("many", 2)))
