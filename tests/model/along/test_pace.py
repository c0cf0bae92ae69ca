"""How far ahead a step asks: as far as it has been worth, and one position where nobody gives the time."""

from collections.abc import Callable

import pytest

from unveil.model.along.pace import WINDOWS, Pace


def _taken(pace: Pace, worth: Callable[[int], float], *, num_canvases: int = 1, steps: int = 1000) -> list[int]:
    """The windows of so many steps, in which a window reveals `worth` positions a second."""
    windows = []
    for _ in range(steps):
        window = pace.window(num_canvases)
        pace.record(num_canvases, window, seconds=1.0, num_revealed=round(100 * worth(window)))
        windows.append(window)
    return windows


@pytest.mark.parametrize("best", WINDOWS)
def test_the_window_that_is_worth_most_is_taken_mostly(best: int) -> None:
    pace = Pace(most=64, clock=lambda: 0.0)
    windows = _taken(pace, lambda window: 2.0 - abs(WINDOWS.index(window) - WINDOWS.index(best)) / 10)
    assert windows[-500:].count(best) > 450


def test_beyond_a_window_that_lost_no_larger_one_is_tried() -> None:
    pace = Pace(most=64, clock=lambda: 0.0)
    assert set(_taken(pace, lambda window: 1.0 / window)) == {1, 2}


def test_what_is_worth_most_may_change() -> None:
    pace = Pace(most=64, clock=lambda: 0.0)
    _taken(pace, lambda window: 1.0 if window == 2 else 0.96)
    windows = _taken(pace, lambda window: 3.0 if window == 4 else 0.96, steps=3000)
    assert windows[-500:].count(4) > 450


def test_each_number_of_canvases_has_its_own() -> None:
    pace = Pace(most=64, clock=lambda: 0.0)
    _taken(pace, lambda window: float(window), num_canvases=1)
    _taken(pace, lambda window: 1.0 / window, num_canvases=8)
    assert _taken(pace, lambda window: float(window), num_canvases=1, steps=100).count(8) > 80
    assert _taken(pace, lambda window: 1.0 / window, num_canvases=8, steps=100).count(1) > 80


def test_no_more_positions_are_asked_than_a_step_may() -> None:
    pace = Pace(most=32, clock=lambda: 0.0)
    assert max(_taken(pace, lambda window: float(window), num_canvases=8)) == 4
    assert set(_taken(pace, lambda window: float(window), num_canvases=40)) == {1}


def test_without_a_clock_one_position_is_asked() -> None:
    assert set(_taken(Pace(most=64, clock=None), lambda window: float(window))) == {1}
