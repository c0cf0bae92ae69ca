"""An order for a reader. Brings neither the trainer nor, before a picture is asked for, what draws it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unveil.model.network.base import Network
from unveil.model.tokenizers.base import Tokenizer
from unveil.training.publishing import order_report, policy_report, sudoku_order


@dataclass(frozen=True)
class OrderAccount:
    """An order in words and as JSON; `draw` gives an SVG picture."""

    words: str
    value: dict[str, Any]
    draw: Callable[[], bytes]


def describe_order(denoiser: Network, tokenizer: Tokenizer, *, name: str) -> OrderAccount:
    """The learned order of a model; a contextual one is seen in rows that the model generates for it."""
    kind = denoiser.order.kind
    title = f"{name}: {kind} order"
    if kind == "contextual" and tokenizer.domain == "grid":
        cells, prompt = sudoku_order.example_order(denoiser, tokenizer), tokenizer.example_prompt()
        return OrderAccount(
            sudoku_order.in_words(cells, prompt),
            sudoku_order.as_json(cells, prompt),
            lambda: sudoku_order.picture(cells, prompt, title=f"{title}, on the example puzzle"),
        )
    if kind == "contextual":
        order = policy_report.look_at_policy(denoiser, tokenizer)

        def draw() -> bytes:
            from unveil.training.publishing.policy_picture import heat_map

            return heat_map(order, policy_report.example_words(order, tokenizer), title=title)

        return OrderAccount(policy_report.in_words(order, tokenizer), policy_report.as_json(order, tokenizer), draw)
    log_w = denoiser.order_head.global_log_w().detach().cpu()
    names = [tokenizer.name(position) for position in range(len(log_w))]
    return OrderAccount(
        order_report.in_words(kind, log_w, names),
        order_report.as_json(kind, log_w, names),
        lambda: order_report.chart(log_w, names, title=title),
    )
