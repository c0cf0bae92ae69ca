"""`unveil generate`: what `unveil.api` gives, printed, shown as it is revealed, or as rows in a file."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.live import Live

from unveil.api import StreamEvent, load
from unveil.commands.arguments import order_argument, prompt_argument, refused_as_usage, shares_argument, where_argument
from unveil.commands.output import UsageError, print_json
from unveil.commands.progress import Bar, stderr
from unveil.commands.result_files import check_target, shown
from unveil.commands.reveal_view import RevealView
from unveil.engine.request.replies import ConditionTally
from unveil.model.decoding.seeds import draw_seed
from unveil.model.tokenizers.grid import SIDE
from unveil.model.tokenizers.table.table import TableTokenizer

_MAX_SHOWN = 6
_FRAME_SECONDS = 0.07  # a person wants to see the order, and a table is done within a hundredth of a second


def run(folder: Path, prompt: str | None, *, fields: dict[str, Any], as_json: bool) -> None:
    """Decodes every sample and prints it. `fields` are a request's. Raises UsageError, ArtifactError."""
    model = load(folder)
    asked = _asked(fields)
    template, domain = prompt_argument(prompt, model.manifest.domain), model.manifest.domain
    with refused_as_usage():
        if as_json:
            print_json(model.generate(template, **asked))
            return
        events = model.stream(template, **asked)
    _, start = next(events)
    if sys.stdout.isatty() and len(start["samples"]) <= _MAX_SHOWN:
        _show(start, events, side=SIDE if domain == "grid" else None)
        return
    for name, data in events:
        if name == "sample":
            print(data["output" if domain == "grid" else "text"])  # one line a sample
        elif name == "done":
            _print_conditions(data)


def _asked(fields: dict[str, Any]) -> dict[str, Any]:
    """What the command line holds as a request has it."""
    own = {"order": order_argument(fields["order"]), "where": where_argument(fields["where"])}
    return {**fields, **own, "rules": fields["rules"] or None}


def _show(start: dict[str, Any], events: Iterator[StreamEvent], *, side: int | None) -> None:
    view = RevealView(start["samples"], start["names"], side=side)
    places, done = {_place(sample): index for index, sample in enumerate(start["samples"])}, dict[str, Any]()
    with Live(view, refresh_per_second=30) as live:
        frame = dict[int, int]()  # the step in which each sample was last revealed
        for name, data in events:
            if name == "done":
                done = data
            if name not in ("reveal", "unreveal"):
                continue
            index = places[_place(data)]
            if frame.get(index, data["step"]) != data["step"]:
                _draw(live)
                frame.clear()
            frame[index] = data["step"]
            if name == "reveal":
                view.reveal(index, data)
            else:
                view.unreveal(index, data["positions"])
        _draw(live)
    for sample in start["samples"]:
        print(f"seed {sample['seed']}", file=sys.stderr)
    _print_conditions(done)


def _print_conditions(done: dict[str, Any]) -> None:
    for own in done.get("condition", ()):
        _print_condition(own)


def _print_condition(own: dict[str, Any] | None) -> None:
    """How likely the model finds what `--where` and rules ask of a prompt, if anything; and what share of the draws was
    repeated."""
    if own is not None:
        error = "" if own["standard_error"] is None else f" ± {own['standard_error']:.2g}"
        repeated = 1 - own["samples"] / own["attempts"]
        tried = f"{own['attempts']:,} attempts, {repeated:.1%} repeated, {own['exact_samples']:,} samples exact"
        print(f"condition: probability {own['probability']:.4g}{error}; {tried}", file=sys.stderr)


def _place(data: dict[str, Any]) -> tuple[int, int]:
    return data["prompt_index"], data["sample_index"]


def _draw(live: Live) -> None:
    live.refresh()
    time.sleep(_FRAME_SECONDS)


def write_rows(
    folder: Path, prompt: str | None, path: Path, *, fields: dict[str, Any], shares: Sequence[str], force: bool
) -> None:
    """Samples of one prompt as rows in a file, CSV as soon as their window is finished, however many; in Parquet where
    its name says so. `shares` as on the command line, COLUMN=VALUE:SHARE,...

    Raises UsageError for a model of no table, or a file that stands and may not be replaced; ArtifactError, OSError.
    """
    from unveil.tables.files import row_writer

    model = load(folder)
    if not isinstance(model.tokenizer, TableTokenizer):
        raise UsageError(f"--out: is only valid with tables, and this is a {model.manifest.domain} model")
    template = prompt_argument(prompt, model.manifest.domain)
    if isinstance(template, list) and (num := len(template)) > 1:
        raise UsageError(f"prompt: must be one row with --out, got a list of {num}; -n says how many are made of it")
    seed = draw_seed() if fields["seed"] is None else fields["seed"]
    tally = ConditionTally()
    with refused_as_usage():
        own = shares_argument(shares)
        rows = model.outputs(template, tally=tally, shares=own, **{**_asked(fields), "seed": seed})
    check_target(path, force=force)
    with row_writer(path, model.tokenizer) as write, Bar("generating", fields["num_samples"], unit="rows") as advance:
        for row in rows:
            write(list(row.values()))
            advance(1)
    _print_condition(tally.reply())
    stderr.print(f"wrote {shown(path)}: {fields['num_samples']:,} rows, seed {seed}", soft_wrap=True)
