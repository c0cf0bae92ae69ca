"""`unveil score`: the service's own planning, engine shapes and replies, without a server.

A seed therefore gives here what it gives over HTTP with the same thread count.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from model.scoring import score
from model.tokenizers.columns import one_line
from service.bodies import validate
from service.catalog import Model, Source, load_catalog
from service.engine_models import Runner, load_models
from service.errors import ServiceError
from service.messages import Scored
from service.schemas import ScoreRequest
from service.score_planning import ScorePlan, plan_score
from service.score_replies import ScoreComposer
from service.settings import Settings
from unveil.generation import order_argument, prompt_argument
from unveil.output import UsageError, print_json

_MAX_BATCH = 64
_MAX_ORDERS = 1_000_000
_WIDTH = 100  # also where the output goes into a file


@dataclass(frozen=True)
class Job:
    """A checked request and the model to run it on."""

    model: Model
    runner: Runner
    plan: ScorePlan


def prepare(folder: Path, prompt: str | None, *, given: str | None, fields: dict[str, Any]) -> Job:
    """Loads the artifact and checks the request against it. Raises UsageError, ArtifactError."""
    source = Source(folder.resolve().name, folder)
    model = next(iter(load_catalog([source])))
    asked = {**fields, "order": order_argument(fields["order"]), "prompt": prompt_argument(prompt, model)}
    if given is not None:
        asked["given"] = prompt_argument(given, model, what="given")
    limits = Settings(max_num_orders=_MAX_ORDERS, queue_capacity=_MAX_ORDERS)
    try:
        plan = plan_score(validate(asked, ScoreRequest), model, limits)
    except ServiceError as error:
        raise UsageError(str(error)) from None
    _, runner = next(iter(load_models([source], max_batch=_MAX_BATCH, device="auto", threads=1)))
    return Job(model, runner, plan)


def run(job: Job, *, as_json: bool) -> None:
    """Scores every prompt and prints it."""
    composer = ScoreComposer(job.plan, job.model)
    chains, n = job.plan.chains, job.plan.num_orders
    for start in range(0, len(chains), n):  # a prompt: its chains are of one length
        terms = score(job.runner.score, chains[start : start + n], max_batch=_MAX_BATCH)
        for index, found in enumerate(terms, start):
            for term in found:
                composer.add(Scored("cli", job.runner.weights_version, index, term))
    reply = composer.reply()
    if as_json:
        print_json({"model": job.model.name, **reply})
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
