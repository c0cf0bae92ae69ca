"""Figures of one size and style, as bytes. Matplotlib is imported when the first is made."""

import io
import warnings
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCENT = "#3b6ea8"


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: "Figure") -> bytes:
    """The figure as SVG, the same bytes for the same content."""
    return _rendered(figure, "svg")


def png(figure: "Figure") -> bytes:
    """The figure as PNG."""
    return _rendered(figure, "png")


def _rendered(figure: "Figure", kind: Literal["svg", "png"]) -> bytes:
    from matplotlib import rc_context
    from matplotlib.text import Text

    picture = io.BytesIO()
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names and values are shown as they are, dollars too; ticks come later, hence below
    # The salt gives ids from the content, so that equal pictures are equal files.
    with rc_context({"svg.hashsalt": "unveil", "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # shown as boxes
        figure.savefig(picture, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return picture.getvalue()
