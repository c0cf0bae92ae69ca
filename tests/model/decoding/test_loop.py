"""The decode loop: every item to its end, only items that may share a step in one, a window at a time, in order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unveil.model.decoding.canvas import Canvas, Reveal, SamplingParams
from unveil.model.decoding.loop import decode, run


@dataclass(frozen=True)
class Countdown:
    """An item that takes `left` steps."""

    name: int
    left: int

    @property
    def is_complete(self) -> bool:
        return self.left == 0


def _tick(items: Sequence[Countdown]) -> list[tuple[Countdown, int]]:
    assert items
    assert all(item.left > 0 for item in items)
    return [(replace(item, left=item.left - 1), item.left) for item in items]


@given(
    st.lists(st.integers(0, 5), max_size=20),
    st.integers(1, 7) | st.none(),
    st.sampled_from([None, lambda x: x.name % 3]),
)
def test_every_item_takes_its_steps_in_turn_with_its_like_alone(
    lefts: list[int], size: int | None, group: object
) -> None:
    items = [Countdown(name, left) for name, left in enumerate(lefts)]
    found: list[list[int]] = [[] for _ in items]
    for stepped in run(_tick, items, max_batch=size, group=group):  # type: ignore[arg-type]
        assert len(stepped) <= (size or len(items))
        assert len({place // size for place, _, _ in stepped}) == 1 if size else True, "items of two windows in a step"
        assert group is None or len({place % 3 for place, _, _ in stepped}) == 1
        for place, item, left in stepped:
            assert item.name == place
            found[place].append(left)
    assert found == [list(range(left, 0, -1)) for left in lefts]


def _reveal_first(canvases: Sequence[Canvas]) -> list[tuple[Canvas, tuple[Reveal, ...]]]:
    """Reveals the first hidden position of each, as its seed."""
    results: list[tuple[Canvas, tuple[Reveal, ...]]] = []
    for canvas in canvases:
        at = canvas.hidden.index(True)
        tokens = (*canvas.tokens[:at], canvas.seed, *canvas.tokens[at + 1 :])
        hidden = (*canvas.hidden[:at], False, *canvas.hidden[at + 1 :])
        results.append((replace(canvas, tokens=tokens, hidden=hidden), (Reveal(at, canvas.seed, 0, 0.0, None, 0.5),)))
    return results


def _canvas(length: int, seed: int) -> Canvas:
    return Canvas.start((0,) * length, (True,) * length, seed=seed, params=SamplingParams())


@pytest.mark.parametrize("max_batch", [None, 1, 2, 100])
def test_canvases_of_any_lengths_come_back_in_order_with_all_their_reveals(max_batch: int | None) -> None:
    lengths, told = [3, 0, 1, 5, 3, 0], list[int]()
    canvases = [_canvas(length, seed) for seed, length in enumerate(lengths)]
    decoded = list(decode(_reveal_first, canvases, max_batch=max_batch, group=lambda c: c.length, on_step=told.append))
    assert [canvas.tokens for canvas, _ in decoded] == [(seed,) * length for seed, length in enumerate(lengths)]
    assert [[r.position for r in reveals] for _, reveals in decoded] == [list(range(length)) for length in lengths]
    assert sum(told) == sum(lengths)


def test_only_a_window_of_canvases_is_looked_at_ahead() -> None:
    taken = list[int]()

    def endless() -> Iterator[Canvas]:
        seed = 0
        while True:
            taken.append(seed)
            yield _canvas(2, seed)
            seed += 1

    decoded = decode(_reveal_first, endless(), max_batch=3)
    for number in range(7):
        assert next(decoded).canvas.seed == number
        assert len(taken) == 3 * (number // 3 + 1)
