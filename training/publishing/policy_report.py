"""A context-dependent order in words and as a picture, from rows that the model generates itself.

Two sets of rows are generated at a fixed seed, nothing known: along the likeliest order, where all difference between
rows comes from their values, and with the order drawn, which shows how much the policy leaves to chance.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unveil.model.along.serving import decode
from unveil.model.decoding.canvas import Canvas, Reveal, SamplingParams
from unveil.model.decoding.seeds import derive_seed
from unveil.model.denoiser import Denoiser
from unveil.model.tokenizers.base import Tokenizer

SEED = 15_103
_FORWARDS, _FEWEST_ROWS, _MOST_ROWS = 12_000, 64, 400  # of each set
_NUM_EXAMPLES = 3
_MAX_SHOWN = 16  # reveals of an example row in words


@dataclass(frozen=True)
class Places:
    """Where a position stands in the orders of many rows: mean place (1 = first) and the 10-90 % range."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:5.1f} on average, {self.low:.0f} to {self.high:.0f} in 80 %"


@dataclass(frozen=True)
class PolicyOrder:
    """What many generated rows say of a policy; positions are in order of their mean place.

    `share` [L, L]: of the rows along the likeliest order, the share that reveals this position (by rank) in this step.
    `order_entropy` is that of the drawn orders over log L!: 1 for uniform, 0 where nothing is left to chance.
    """

    positions: tuple[int, ...]
    names: tuple[str, ...]
    likeliest: tuple[Places, ...]
    drawn: tuple[Places, ...]
    share: Tensor
    order_entropy: float
    num_rows: int
    num_orders: int
    examples: tuple[tuple[Reveal, ...], ...]


def look_at_policy(denoise: Denoiser, tokenizer: Tokenizer) -> PolicyOrder:
    """Generates rows of the default length and looks at the orders they took."""
    rows, drawn_rows = (_generate(denoise, tokenizer, order_temperature=t) for t in (0.0, 1.0))
    steps, drawn_steps = _steps(rows), _steps(drawn_rows)  # [N, L]
    L = steps.shape[1]
    ranked = steps.double().mean(0).argsort(stable=True).tolist()
    share = torch.stack([(steps[:, position, None] == torch.arange(L)).double().mean(0) for position in ranked])
    surprise = [-math.fsum(reveal.order_logprob or 0.0 for reveal in row) for row in drawn_rows]
    return PolicyOrder(
        positions=tuple(ranked),
        names=tuple(tokenizer.name(position) or f"position {position}" for position in ranked),
        likeliest=tuple(_places(steps[:, position]) for position in ranked),
        drawn=tuple(_places(drawn_steps[:, position]) for position in ranked),
        share=share,
        order_entropy=math.fsum(surprise) / len(surprise) / max(math.lgamma(L + 1), 1e-300),
        num_rows=len(rows),
        num_orders=len(Counter(map(tuple, steps.tolist()))),
        examples=tuple(rows[index] for index in _least_alike(steps)),
    )


def in_words(order: PolicyOrder, tokenizer: Tokenizer) -> str:
    """The order for a reader: how much it depends on values and on chance, a line a position, a few rows."""
    lines = [
        "The contextual order may depend on what has been revealed: "
        f"{order.num_rows} rows, generated along the likeliest one, took {_count(order.num_orders, 'order')}",
        f"(order entropy where it is drawn {order.order_entropy:.3f}; 1 is uniform, 0 leaves nothing to chance). "
        "First to last:",
    ]
    for number, (name, likeliest, drawn) in enumerate(zip(order.names, order.likeliest, order.drawn, strict=True), 1):
        lines.append(f"{number:>3}. {name:<24} place {likeliest}; {drawn.low:.0f} to {drawn.high:.0f} where drawn")
    lines.append("Rows of the least alike orders, first revealed first:")
    return "\n".join([*lines, *(f"  {number}. {_row(e, tokenizer)}" for number, e in enumerate(order.examples, 1))])


def as_json(order: PolicyOrder, tokenizer: Tokenizer) -> dict[str, Any]:
    """The same as a value."""
    places = zip(order.positions, order.names, order.likeliest, order.drawn, order.share.tolist(), strict=True)
    positions = [
        {
            "position": position,
            "name": name,
            "mean_place": likeliest.mean,
            "low": likeliest.low,
            "high": likeliest.high,
            "drawn": {"mean_place": drawn.mean, "low": drawn.low, "high": drawn.high},
            "share_by_step": share,
        }
        for position, name, likeliest, drawn, share in places
    ]
    return {
        "kind": "contextual",
        "order_entropy": order.order_entropy,
        "num_rows": order.num_rows,
        "num_orders": order.num_orders,
        "seed": SEED,
        "positions": positions,
        "examples": [[_reveal(reveal, tokenizer) for reveal in example] for example in order.examples],
    }


def example_words(order: PolicyOrder, tokenizer: Tokenizer) -> list[str]:
    """Each example row as its reveals in a line."""
    return [_row(example, tokenizer) for example in order.examples]


def _generate(denoise: Denoiser, tokenizer: Tokenizer, *, order_temperature: float) -> list[tuple[Reveal, ...]]:
    """Rows of the default length from nothing, each as its reveals in order."""
    params, L = SamplingParams(order_temperature=order_temperature), tokenizer.default_length
    num_rows = min(max(_FORWARDS // L, _FEWEST_ROWS), _MOST_ROWS)
    blank = [
        Canvas.start((0,) * L, (True,) * L, seed=derive_seed(SEED, 0, index), params=params)
        for index in range(num_rows)
    ]
    return [decoded.reveals for decoded in decode(denoise, blank, end_id=tokenizer.end_id)]


def _steps(rows: Sequence[Sequence[Reveal]]) -> Tensor:
    """The step that revealed each position of each row, from 0: [N, L]."""
    order = torch.tensor([[reveal.position for reveal in row] for row in rows])
    return order.argsort(-1)  # a permutation's argsort is its inverse


def _places(steps: Tensor) -> Places:
    places = steps.double() + 1
    low, high = places.quantile(torch.tensor([0.1, 0.9], dtype=torch.float64)).tolist()
    return Places(float(places.mean()), low, high)


def _least_alike(steps: Tensor) -> list[int]:
    """A few rows: the one nearest to the mean order, then each time the one farthest from those chosen."""
    places = steps.double()
    chosen = [int((places - places.mean(0)).square().sum(-1).argmin())]
    while len(chosen) < min(_NUM_EXAMPLES, len(steps)):
        distance = (places[:, None] - places[chosen]).square().sum(-1).amin(-1)  # [N]
        if float(distance.max()) == 0:
            break  # every row took one of the chosen orders
        chosen.append(int(distance.argmax()))
    return chosen


def _row(reveals: Sequence[Reveal], tokenizer: Tokenizer) -> str:
    shown = [_reveal(reveal, tokenizer) for reveal in reveals[:_MAX_SHOWN]]
    words = [
        f"{r['name']} = {r['token']}" if r["name"] is not None else f"{r['token']!r} at {r['position']}" for r in shown
    ]
    return ", ".join(words) + (f", and {len(reveals) - _MAX_SHOWN} more" if len(reveals) > _MAX_SHOWN else "")


def _reveal(reveal: Reveal, tokenizer: Tokenizer) -> dict[str, Any]:
    token = tokenizer.token(reveal.position, reveal.token_id)
    return {"position": reveal.position, "name": tokenizer.name(reveal.position), "token": token}


def _count(number: int, noun: str) -> str:
    return f"{number} different {noun}s" if number > 1 else f"one and the same {noun}"
