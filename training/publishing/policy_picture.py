"""A context-dependent order as a heat map: reveal step against position, with a few rows below."""

import textwrap
from collections.abc import Sequence

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from unveil.training.publishing.picture import ACCENT, new_figure, svg
from unveil.training.publishing.policy_report import PolicyOrder

_COLOURS = ("#c8553d", "#2a9d8f", "#8a5fb0")
_MAX_LABELS = 48
_LINE_CHARACTERS = 140
_POINTS = 8.0
_SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#a9c4e2", ACCENT, "#16304f"])


def heat_map(order: PolicyOrder, examples: Sequence[str], *, title: str) -> bytes:
    """The picture as SVG; `examples` are the example rows in words."""
    return svg(draw(order, examples, title=title))


def draw(order: PolicyOrder, examples: Sequence[str], *, title: str) -> Figure:
    """Each row of cells is a position, earliest on top; a cell's shade is the share of rows that reveal it then."""
    L = len(order.positions)
    words = _wrapped(examples)
    text_height = 0.35 + _POINTS * 1.5 / 72 * sum(len(lines) for lines in words)
    map_height = 1.3 + 0.3 * min(L, 60)
    figure = new_figure(9.5, map_height + text_height)
    upper, lower = figure.subplots(2, 1, height_ratios=[map_height, text_height])
    image = upper.imshow(order.share.numpy(), cmap=_SHADES, vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
    for number, (example, colour) in enumerate(zip(order.examples, _COLOURS, strict=False)):
        aside = 0.14 * (number - 1)  # so that equal stretches are seen as several
        ranks = [order.positions.index(reveal.position) + aside for reveal in example]
        upper.plot(range(L), ranks, "o-", color=colour, markersize=4, linewidth=1.2, alpha=0.85)
    every = -(-L // _MAX_LABELS)
    upper.set_yticks(range(0, L, every), order.names[::every])
    upper.set_xticks(range(0, L, max(1, L // 20)), [str(step + 1) for step in range(0, L, max(1, L // 20))])
    upper.set_xlabel("reveal step along the likeliest order (1 = first); a line is one of the rows below")
    upper.set_title(title, loc="left")
    upper.spines[:].set_visible(False)
    figure.colorbar(image, ax=upper, label=f"share of {order.num_rows} generated rows", fraction=0.03, pad=0.01)
    lower.set_axis_off()
    num_lines = sum(len(lines) for lines in words)
    line = 0
    for lines, colour in zip(words, _COLOURS, strict=False):
        height = 1 - line / num_lines
        lower.text(0, height, "\n".join(lines), color=colour, fontsize=_POINTS, va="top", linespacing=1.4)
        line += len(lines)
    return figure


def _wrapped(examples: Sequence[str]) -> list[list[str]]:
    return [
        textwrap.wrap(f"{number}. {words}", _LINE_CHARACTERS, subsequent_indent="    ")
        for number, words in enumerate(examples, 1)
    ]
