"""How many positions ahead a step tries, by what that has been worth: tokens a second, measured as it goes.

What is chosen changes no byte, only the time that it takes. Whoever serves gives the clock.
"""

from collections import defaultdict
from collections.abc import Callable

Clock = Callable[[], float]  # seconds

WINDOWS = (1, 2, 4, 8)
_STEPS = 8  # of one window in a row: the first of them has no drafts yet
_EXPLORES = 16  # one turn in so many tries a neighbour of the best
_WORTH = 0.95  # of the best: with less, no larger window is tried
_KEPT = 0.9  # of what a window's earlier turns weigh


class Pace:
    """Up to `most` canvases times positions are tried in a step; one position each without a clock."""

    def __init__(self, *, most: int, clock: Clock | None) -> None:
        self._most, self._clock = most, clock
        self._seconds: dict[tuple[int, int], float] = defaultdict(float)
        self._tokens: dict[tuple[int, int], float] = defaultdict(float)
        self._turns: dict[int, int] = defaultdict(int)
        self._current: dict[int, tuple[int, int]] = {}  # window, and how many steps it is still to be taken

    def now(self) -> float:
        """Seconds by the clock."""
        return 0.0 if self._clock is None else self._clock()

    def window(self, num_canvases: int) -> int:
        """How many positions of each canvas to ask in the next step."""
        if self._clock is None:
            return 1
        kind = num_canvases.bit_length()
        allowed = [window for window in WINDOWS if window == 1 or num_canvases * window <= self._most]
        window, left = self._current.get(kind, (0, 0))
        if left == 0 or window not in allowed:
            window, left = self._next(kind, allowed), _STEPS
        self._current[kind] = window, left - 1
        return window

    def record(self, num_canvases: int, window: int, *, seconds: float, num_revealed: int) -> None:
        """What a step of this window took, and how many positions it revealed."""
        key = num_canvases.bit_length(), window
        self._seconds[key] = _KEPT * self._seconds[key] + seconds
        self._tokens[key] = _KEPT * self._tokens[key] + num_revealed

    def _next(self, kind: int, allowed: list[int]) -> int:
        """The best window so far; now and then a neighbour of it; larger ones only while each is worth about as much
        as what was tried before."""
        rates = dict[int, float]()
        for window in allowed:
            if not self._seconds[kind, window]:
                return window
            rates[window] = self._tokens[kind, window] / self._seconds[kind, window]
            if rates[window] < _WORTH * max(rates.values()):
                break
        self._turns[kind] += 1
        tried, best = list(rates), max(rates, key=rates.__getitem__)
        if self._turns[kind] % _EXPLORES:
            return best
        step = 1 if (self._turns[kind] // _EXPLORES) % 2 else -1
        return tried[min(max(tried.index(best) + step, 0), len(tried) - 1)]
