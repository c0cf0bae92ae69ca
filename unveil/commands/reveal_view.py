"""The reveal on a terminal: hidden cells as dots, each value coloured by the step in which it appeared."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

_HIDDEN = "·"
_EARLY, _LATE = (92, 200, 255), (255, 150, 90)


class RevealView:
    """Canvases as they fill. A table's columns go down and its samples across; text is one line a sample, and a grid
    (`side` cells a line) stands in boxes."""

    def __init__(
        self, starts: Sequence[Mapping[str, Any]], names: Sequence[str | None] | None, *, side: int | None = None
    ) -> None:
        self._canvases = [list(start["canvas"]) for start in starts]
        self._hidden = [set(start["hidden"]) for start in starts]
        self._places: list[dict[int, int]] = [{} for _ in starts]  # position -> how manyth it was revealed
        self._names, self._side = names, side

    def reveal(self, index: int, reveal: Mapping[str, Any]) -> None:
        """Takes in one position of one sample."""
        self._canvases[index][reveal["position"]] = "(missing)" if reveal["value"] is None else reveal["value"]
        self._places[index][reveal["position"]] = len(self._places[index]) + 1

    def unreveal(self, index: int, positions: Iterable[int]) -> None:
        """Hides positions of one sample again."""
        for position in positions:
            del self._places[index][position]

    def __rich__(self) -> RenderableType:
        if self._side is not None:
            return Text("\n\n").join(self._grid(i, self._side) for i in range(len(self._canvases)))
        if self._names is None:
            lines = [Text("").join(self._cell(i, p) for p in range(len(c))) for i, c in enumerate(self._canvases)]
            return Text("\n").join(lines)
        table = Table("column", *(f"sample {i}" for i in range(len(self._canvases))))
        for position, name in enumerate(self._names):
            table.add_row(
                Text(str(name)), *(self._cell(i, position, numbered=True) for i in range(len(self._canvases)))
            )
        return table

    def _grid(self, index: int, side: int) -> Text:
        box = round(side**0.5)
        lines = []
        for row in range(side):
            line = Text()
            for column in range(side):
                line.append_text(self._cell(index, side * row + column))
                is_edge = column % box == box - 1 and column + 1 < side
                line.append(" │ " if is_edge else " ", style="dim")
            lines.append(line)
            if row % box == box - 1 and row + 1 < side:
                lines.append(Text("─┼─".join(["─" * (2 * box - 1)] * box), style="dim"))
        return Text("\n").join(lines)

    def _cell(self, index: int, position: int, *, numbered: bool = False) -> Text:
        place = self._places[index].get(position)
        if place is None:
            is_hidden = position in self._hidden[index]
            return Text(
                _HIDDEN if is_hidden else str(self._canvases[index][position]), style="dim" if is_hidden else "bold"
            )
        text = Text(str(self._canvases[index][position]), style=_colour(place, len(self._hidden[index])))
        return text.append(f"  {place}", style="dim") if numbered else text


def _colour(place: int, total: int) -> str:
    share = (place - 1) / max(total - 1, 1)
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(_EARLY, _LATE, strict=True))
    return f"rgb({red},{green},{blue})"
