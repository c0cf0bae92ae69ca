"""The order in which one example puzzle is solved, in words and as a picture."""

from typing import Any

from unveil.model.along.serving import decode
from unveil.model.decoding.canvas import Canvas, SamplingParams
from unveil.model.network.base import Network
from unveil.model.tokenizers.base import Tokenizer
from unveil.model.tokenizers.grid import SIDE
from unveil.training.publishing.picture import ACCENT, new_figure, svg


def example_order(network: Network, tokenizer: Tokenizer) -> list[tuple[int, str]]:
    """The cells of the example puzzle and their digits in the order in which the model reveals them, without chance."""
    template = tokenizer.encode(tokenizer.example_prompt())
    params = SamplingParams(order_temperature=0.0, temperature=0.0)
    canvas = Canvas.start(template.tokens, template.hidden, seed=0, params=params)
    ((_, reveals),) = decode(network, [canvas], end_id=None)
    return [(reveal.position, tokenizer.token(reveal.position, reveal.token_id)) for reveal in reveals]


def in_words(order: list[tuple[int, str]], prompt: str) -> str:
    """The grid with the step at which each cell of the example is revealed; a clue shows its digit in brackets."""
    steps = {cell: step for step, (cell, _) in enumerate(order, 1)}
    cells = [f"{steps[i]:>3} " if i in steps else f" ({clue})" for i, clue in enumerate(prompt)]
    lines = ["".join(cells[i : i + SIDE]) for i in range(0, len(cells), SIDE)]
    return "\n".join(
        [
            "The contextual order goes by what is known: each puzzle has its own. Of the example puzzle, the step that",
            "reveals each cell, likeliest order and digits (clues in brackets):",
            *lines,
        ]
    )


def as_json(order: list[tuple[int, str]], prompt: str) -> dict[str, Any]:
    """The same as a value."""
    return {
        "kind": "contextual",
        "prompt": prompt,
        "order": [{"position": cell, "token": digit} for cell, digit in order],
    }


def picture(order: list[tuple[int, str]], prompt: str, *, title: str) -> bytes:
    """The grid as SVG: digits, the small number is the step, the shade how late it comes; clues are grey."""
    figure = new_figure(6.0, 6.3)
    axes = figure.add_subplot()
    steps = {cell: (step, digit) for step, (cell, digit) in enumerate(order, 1)}
    for cell, clue in enumerate(prompt):
        row, column = divmod(cell, SIDE)
        step, digit = steps.get(cell, (0, clue))
        if step:
            shade = 0.06 + 0.5 * step / len(order)
            axes.fill_between([column, column + 1], row, row + 1, color=ACCENT, alpha=shade, linewidth=0)
            axes.text(column + 0.94, row + 0.24, str(step), ha="right", fontsize=7, color="#333333")
        axes.text(column + 0.45, row + 0.68, digit, ha="center", fontsize=15, color="black" if step else "#8a8a8a")
    for line in range(SIDE + 1):
        width = 1.8 if line % 3 == 0 else 0.5
        axes.plot([line, line], [0, SIDE], color="black", linewidth=width)
        axes.plot([0, SIDE], [line, line], color="black", linewidth=width)
    axes.set_xlim(0, SIDE)
    axes.set_ylim(SIDE, 0)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(title, loc="left")
    return svg(figure)
