"""Progress bars on stderr, which disappear when done."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

Advance = Callable[[int], None]
stderr = Console(stderr=True, highlight=False, markup=False)


class _Speed(ProgressColumn):
    """How many of the unit a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """See rich."""
        return Text("" if task.speed is None else f"{task.speed:,.0f} {self._unit}/s")


class Bar:
    """A context that gives what advances it; silent where stderr is no terminal."""

    def __init__(self, title: str, total: int, *, unit: str | None = None) -> None:
        columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()]
        speed = [] if unit is None else [_Speed(unit)]
        self._progress = Progress(*columns, *speed, console=stderr, transient=True, disable=not stderr.is_terminal)
        self._task = self._progress.add_task(title, total=total)

    def __enter__(self) -> Advance:
        self._progress.start()
        return lambda count: self._progress.advance(self._task, count)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
