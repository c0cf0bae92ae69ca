"""`unveil score`: what `unveil.api` gives, printed."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unveil.api import load
from unveil.commands.arguments import order_argument, prompt_argument, refused_as_usage
from unveil.commands.output import print_json
from unveil.model.tokenizers.wording import one_line

_WIDTH = 100  # also where the output goes into a file


def run(folder: Path, prompt: str | None, *, given: str | None, fields: dict[str, Any], as_json: bool) -> None:
    """Scores every prompt and prints it. `fields` are a request's. Raises UsageError, ArtifactError."""
    model = load(folder)
    domain = model.manifest.domain
    asked = {**fields, "order": order_argument(fields["order"])}
    if given is not None:
        asked["given"] = prompt_argument(given, domain, what="given")
    with refused_as_usage():
        reply = model.score(prompt_argument(prompt, domain), **asked)
    if as_json:
        print_json(reply)
        return
    for found in reply["scores"]:
        _print(found, num_orders=reply["num_orders"], seed=reply["seed"])


def _print(found: dict[str, Any], *, num_orders: int, seed: int | None) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("position")
    table.add_column("value")
    for title in ("nats", "± error", "mean step"):
        table.add_column(title, justify="right")
    for term in found["terms"]:
        is_text = term["name"] is None
        name = str(term["position"]) if is_text else one_line(term["name"])
        value = json.dumps(term["value"], ensure_ascii=False) if is_text else one_line(str(term["value"]))
        numbers = (f"{term['nats']:.4f}", _error(term["standard_error"]), f"{term['mean_step']:.1f}")
        table.add_row(*map(Text, (name, value, *numbers)))
    Console(width=_WIDTH).print(table)
    if found["log_likelihood"] is not None:
        print(f"log-likelihood {found['log_likelihood']:.4f} nats, exact along this order")
    else:
        error = _error(found["standard_error"])
        print(f"NELBO {found['nelbo']:.4f} ± {error} nats, {num_orders} drawn orders, seed {seed}")


def _error(standard_error: float | None) -> str:
    return "unknown" if standard_error is None else f"{standard_error:.4f}"
