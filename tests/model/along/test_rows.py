"""Rows of memory: found, moved next to each other, evicted, grown and given back; what they hold stays with them."""

from dataclasses import replace

import pytest
import torch

from tests.model.along.networks import canvas, denoiser
from unveil.model.along import ahead
from unveil.model.along.memory import FIRST, LATER, RowSize
from unveil.model.along.rows import Held, Rows
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.decoding.sampler import step

SIZE = RowSize(2, 2, 4, 9, torch.float32, torch.device("cpu"))
LENGTH = 7


@pytest.fixture
def rows() -> Rows:
    return Rows(SIZE, most=5, length=LENGTH)


def _canvas(seed: int, *, num_known: int = 2, token_id: int | None = None) -> Canvas:
    """Seeds differ in what is known, unless a token is given."""
    hidden = tuple(i >= num_known for i in range(LENGTH))
    return Canvas.start((seed if token_id is None else token_id,) * LENGTH, hidden, seed=seed, params=SamplingParams())


def _write(rows: Rows, held: Held) -> None:
    """Contents that say whose they are."""
    own = slice(FIRST, FIRST + len(held.pending))
    rows.memory.contents[:, :, held.row, :, own] = float(held.canvas.seed + 1)
    rows.memory.states[held.row, own] = float(held.canvas.seed + 1)
    rows.memory.table[0, held.row, own], rows.memory.table[1, held.row, own] = held.canvas.seed, 3
    held.num_contents = len(held.pending)
    held.pending.clear()


def _is_whole(rows: Rows, held: Held) -> bool:
    own = slice(FIRST, FIRST + held.num_contents)
    contents, table = rows.memory.contents[:, :, held.row, :, own], rows.memory.table[:, held.row]
    others = torch.cat([table[0, :FIRST], table[0, FIRST + held.num_contents :]])
    seed, states = held.canvas.seed, rows.memory.states[held.row, own]
    is_own = (contents == seed + 1).all() and (states == seed + 1).all() and (table[0, own] == seed).all()
    return bool(is_own and (others == LATER).all())


def _made(rows: Rows, num: int) -> list[Held]:
    held = [rows.find([_canvas(seed, num_known=1 + seed % 3)])[0] for seed in range(num)]
    for own in held:
        _write(rows, own)
    return held


def test_kinds_stand_side_by_side_and_contents_stay_with_their_canvas(rows: Rows) -> None:
    held = _made(rows, 5)
    for kinds in (["a", "b", "a", "b", "a"], [None, 1, 2, 1, None], ["z"] * 5, list("vwxyz")):
        rows.arrange(held, kinds)
        assert sorted(own.row for own in held) == [0, 1, 2, 3, 4]
        for kind in set(kinds):
            of = sorted(own.row for own, other in zip(held, kinds, strict=True) if other == kind)
            assert of == list(range(of[0], of[0] + len(of))), kind
        assert all(_is_whole(rows, own) for own in held)
        assert rows.find([own.canvas for own in held]) == held, "each is found where it stands"


def test_few_of_many_move_to_the_front_and_the_others_keep_what_they_have(rows: Rows) -> None:
    held = _made(rows, 5)
    rows.arrange([held[4], held[2]], ["a", "a"])
    assert {held[4].row, held[2].row} == {0, 1}
    assert sorted(own.row for own in held) == [0, 1, 2, 3, 4]
    assert all(_is_whole(rows, own) for own in held)


def test_a_row_may_move_to_one_that_is_free(rows: Rows) -> None:
    held = _made(rows, 3)
    rows.release(held[0].canvas)
    rows.arrange(held[1:], ["a", "a"])
    assert sorted(own.row for own in held[1:]) == [0, 1]
    assert all(_is_whole(rows, own) for own in held[1:])
    assert len(rows) == 2


def test_the_longest_unused_is_evicted_first(rows: Rows) -> None:
    held = _made(rows, 5)
    rows.find([held[0].canvas])  # used again
    (new,) = rows.find([_canvas(77)])
    assert new.num_contents == 0
    assert len(new.pending) == 3, "the beginning and what is known"
    assert new.row == 1, "the row of the canvas that was used first and not again"
    assert len(rows) == 5
    again, lost = rows.find([held[0].canvas, held[1].canvas])
    assert again is held[0]
    assert lost is not held[1]
    assert lost.num_contents == 0


def test_none_of_those_asked_for_is_evicted_for_another(rows: Rows) -> None:
    held = _made(rows, 5)
    found = rows.find([_canvas(80), *(own.canvas for own in held[1:])])
    assert found[1:] == held[1:]
    assert len({own.row for own in found}) == 5


def test_memory_grows_with_the_rows_and_keeps_them(rows: Rows) -> None:
    small = rows.memory.num_rows
    (first,) = _made(rows, 1)
    assert rows.memory.num_rows == small
    rows.find([_canvas(seed) for seed in range(1, 6)][:4])
    assert small < rows.memory.num_rows <= 5 + 1
    assert _is_whole(rows, first)


def test_memory_never_exceeds_the_most_rows_and_the_spare_one() -> None:
    rows = Rows(SIZE, most=20, length=LENGTH)
    for num in range(1, 21):
        rows.find([_canvas(seed) for seed in range(num)])
        assert len(rows) + 1 <= rows.memory.num_rows <= 21


def test_a_canvas_is_found_by_its_value_and_only_where_tokens_and_ranks_are_its_own(rows: Rows) -> None:
    held = _made(rows, 2)
    (equal,) = rows.find([replace(held[0].canvas)])
    assert equal is held[0]
    ranks = tuple(1 if rank == 0 else rank for rank in held[0].canvas.ranks)
    (other,) = rows.find([replace(held[0].canvas, ranks=ranks, num_forwards=1)])
    assert other is not held[0]
    assert other.num_contents == 0


def test_the_prompt_is_found_with_another_canvas_only_where_it_is_computed(rows: Rows) -> None:
    first, second = rows.find([_canvas(0, token_id=4), _canvas(1, token_id=4)])
    assert rows.like(second) is None, "not computed yet"
    _write(rows, first)
    assert rows.like(second) is first
    (third,) = rows.find([_canvas(2, num_known=3, token_id=4)])
    assert rows.like(third) is None


def test_one_canvas_twice_has_two_rows_and_both_are_given_back(rows: Rows) -> None:
    twice = _canvas(0)
    first, second = rows.find([twice, twice])
    assert first.row != second.row
    rows.release(twice)
    assert len(rows) == 0


def test_complete_and_released_canvases_leave_no_row() -> None:
    served = denoiser("relative bias")
    canvases = [canvas("relative bias", seed=seed, num_known=12 - left) for seed, left in enumerate((1, 2, 3))]
    results = step(served, canvases)
    assert len(served.rows) == 2
    results = step(served, [result.canvas for result in results[1:]])
    assert len(served.rows) == 1
    served.release([results[1].canvas])
    served.release([results[1].canvas, canvases[0]])  # nothing is there any more
    assert len(served.rows) == 0


@pytest.mark.parametrize("name", ["relative bias", "next cost"])
@pytest.mark.parametrize("at", ["open", "logits", "advance"])
def test_after_a_step_that_fails_release_leaves_no_row_and_the_next_step_is_as_ever(
    name: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    expected = step(denoiser(name), [canvas(name, seed=seed) for seed in range(3)])
    expected = step(denoiser(name), [result.canvas for result in expected])
    served = denoiser(name)
    canvases = [result.canvas for result in step(served, [canvas(name, seed=seed) for seed in range(3)])]
    with monkeypatch.context() as broken:
        owner, method = {
            "open": (served, "ask" if served.looks else "prefill"),
            "logits": (served, "logits"),
            "advance": (served.rows, "advance"),
        }[at]
        broken.setattr(owner, method, fail)
        with pytest.raises(RuntimeError, match="no"):
            step(served, canvases)
    assert step(served, canvases) == expected, "nothing is half done"
    served = denoiser(name)
    canvases = [result.canvas for result in step(served, [canvas(name, seed=seed) for seed in range(3)])]
    with monkeypatch.context() as broken:
        broken.setattr(served, "logits", fail)
        with pytest.raises(RuntimeError, match="no"):
            step(served, canvases)
    served.release(canvases)
    assert len(served.rows) == 0


def test_where_only_one_part_of_a_step_fails_nothing_of_the_other_part_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    served = denoiser("relative bias")
    orders = [SamplingParams(order="left_to_right"), SamplingParams(order="margin")]
    canvases = [canvas("relative bias", seed=seed, params=orders[seed % 2]) for seed in range(4)]
    expected = ahead.step(denoiser("relative bias"), canvases)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as broken:
        broken.setattr(ahead, "step_ahead", fail)
        with pytest.raises(RuntimeError, match="no"):
            ahead.step(served, canvases)
    served.release(canvases)
    assert len(served.rows) == 0
    assert ahead.step(served, canvases) == expected


def test_a_row_takes_what_its_size_says() -> None:
    """Of a real network, so that `cache_bytes` means what it says."""
    memory = denoiser("two layers").rows.memory.grown(7)
    held = [memory.contents, memory.states, memory.table]
    assert sum(tensor.numel() * tensor.itemsize for tensor in held) == 7 * memory.size.num_bytes
    assert memory.size.layers == 3 + 2
