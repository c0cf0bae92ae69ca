"""The `unveil` command: arguments in, one call into a room, one line for every error. Imports nothing heavy at import.

Exit code 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from unveil import __version__
from unveil.commands import options
from unveil.commands.output import UsageError, check_delimiter
from unveil.engine import environment
from unveil.model.errors import UnveilError
from unveil.training.run.parent import bound

app = typer.Typer(
    name="unveil",
    help="Train masked diffusion models that learn the order in which they decode, and serve them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INTERRUPTED = 130  # what a shell gives a command that SIGINT ended, and typer too

ArtifactArgument = Annotated[Path, typer.Argument(help="An artifact's folder.", show_default=False)]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"unveil {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def train(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe in TOML.", show_default=False)] = None,
    table: Annotated[Path | None, typer.Option(help="A CSV or Parquet file, - for stdin: no recipe needed.")] = None,
    lines: options.LinesOption = None,
    freeze_denoiser: options.FrozenOption = None,
    out: Annotated[Path | None, typer.Option(help="Where the artifact goes; default runs/NAME.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Leave a column out.")] = None,
    categorical: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Take a column as levels.")] = None,
    numeric: options.NumericOption = None,
    date: options.DateOption = None,
    bins: options.BinsOption = None,
    rule: options.KeptRuleOption = None,
    delimiter: Annotated[str | None, typer.Option(help="Of a CSV table: , ; | or a tab; default a comma.")] = None,
    no_header: options.NoHeaderFlag = False,
    schema: Annotated[bool, typer.Option("--schema", help="Show what becomes of the columns, and stop.")] = False,
    time: options.TimeOption = None,
) -> None:
    """Train, resuming by itself after a kill, and write the artifact. Under torchrun it spreads over processes.

    What becomes of each column of a table is shown first; --drop, --categorical, --numeric, --date and --bins, once a
    column, change it. Checkpoints, the log and TensorBoard events go to OUT.run beside the artifact, and may be deleted
    afterwards.
    """
    from unveil.commands import training as training_commands
    from unveil.training.data.table.choices import ColumnOptions

    num_given = sum(given is not None for given in (recipe, table, lines))
    if num_given > 1:
        raise UsageError("train: must be given one of a recipe, --table FILE and --lines FILE")
    if num_given == 0 and freeze_denoiser is None:
        raise UsageError("train: must be given a recipe, --table FILE or --freeze-denoiser ARTIFACT")
    overrides = [*(overrides or ()), *training_commands.csv_overrides(table, delimiter=delimiter, no_header=no_header)]
    columns = ColumnOptions(drop or (), categorical or (), numeric or (), date or (), bins or (), rule or ())
    with training_commands.table_given(table, out=out, only_schema=schema) as found:
        given = training_commands.Given(recipe, found, lines, freeze_denoiser, out, overrides, columns, schema, time)
        training_commands.train(given)


@app.command("import")
def import_(
    folder: Annotated[str, typer.Argument(help="A Hugging Face folder: config.json, weights, tokenizer.")],
    out: Annotated[Path, typer.Option(help="Where the artifact goes.")],
    length: Annotated[
        int | None, typer.Option(min=1, help="The longest canvas; default what fits, 512 at most.")
    ] = None,
    default_length: Annotated[int | None, typer.Option(min=1, help="New tokens where a prompt has no holes.")] = None,
    tokenizer: Annotated[
        str, typer.Option(help="auto, or smiles where vocab.txt lists tokens of SMILES and there is no tokenizer.json.")
    ] = "auto",
    license: Annotated[str | None, typer.Option(help="For the model card; default what the folder's own says.")] = None,
    hub: Annotated[bool, typer.Option("--hub", help="FOLDER is a model's name on the Hugging Face hub.")] = False,
) -> None:
    """Turn a masked language model trained elsewhere into an artifact: BERT, RoBERTa, ALBERT, ModernBERT, LLaDA, Dream.

    Needs the extra `transformers`. No code out of the folder is run, and nothing is fetched without --hub.
    """
    from unveil.commands import importing

    if tokenizer not in ("auto", "smiles"):
        raise UsageError("--tokenizer: must be auto or smiles")
    importing.run(
        folder,
        out,
        is_hub=hub,
        wishes=importing.Wishes(
            length=length,
            default_length=default_length,
            tokenizer="smiles" if tokenizer == "smiles" else "auto",
            license=license,
        ),
    )


@app.command()
def evaluate(
    artifact: ArtifactArgument,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    rows: Annotated[int | None, typer.Option(min=2, help="Only the first so many rows.")] = None,
    table: Annotated[Path | None, typer.Option(help="Where the training table is now, if it has moved.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="An artifact of the same data, trained under uniform orders, to compare with.")
    ] = None,
    update_card: Annotated[
        bool, typer.Option("--update-card", help="Put the figures on the artifact's card and into its configuration.")
    ] = False,
    judge: options.JudgeFlag = False,
    target: options.TargetOption = None,
    html: options.HtmlOption = None,
    fail_below: options.FailBelowOption = None,
    fail_above: options.FailAboveOption = None,
    as_json: JsonFlag = False,
) -> None:
    """NELBO and exact log-likelihood under the learned order and every control, with standard errors.

    Controls: uniform and reversed orders, left to right, right to left, confidence, margin, and the best and the worst
    of all orders for up to 10 positions. A learned order proves little against its own network, which it was trained
    with; --reference puts a uniform model beside it, under the learned order too, with paired differences.

    --judge has rows of a table generated and asks classifiers to tell them from real ones, and to learn from them.
    """
    from unveil.commands import training as training_commands

    if split not in ("train", "validation", "test"):
        raise UsageError("--split: must be train, validation or test")
    if update_card and (split != "test" or reference is not None):
        raise UsageError("--update-card: a card has figures of the test split, with no other model beside")
    wishes = {"--target": target, "--html": html, "--fail-below": fail_below, "--fail-above": fail_above}
    others = {"--split": split != "test", "--reference": reference is not None, "--update-card": update_card}
    _check_judge(is_asked=judge, wishes=wishes, others=others)
    if judge:
        from unveil.commands import judging

        own = judging.Wishes(target, html, fail_below or (), fail_above or ())
        judging.run(artifact, rows=rows, table=table, wishes=own, as_json=as_json)
        return
    training_commands.evaluate(
        artifact,
        split=split,
        rows=rows,
        table=table,
        reference=reference,
        renews_card=update_card,
        as_json=as_json,
    )


def _check_judge(*, is_asked: bool, wishes: Mapping[str, object], others: Mapping[str, bool]) -> None:
    """Judges have options of their own, and take none of the others. Raises UsageError."""
    if not is_asked and (given := [option for option, value in wishes.items() if value is not None]):
        raise UsageError(f"{given[0]}: is only valid with --judge")
    if is_asked and (given := [option for option, is_given in others.items() if is_given]):
        raise UsageError(f"--judge: is not valid with {given[0]}")


@app.command()
def order(
    artifact: ArtifactArgument,
    plot: Annotated[Path | None, typer.Option(help="Write a picture to this .svg file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """The learned order, in words and as a picture."""
    from unveil.api import load
    from unveil.commands.output import print_json

    if plot is not None and plot.suffix != ".svg":
        raise UsageError(f"--plot: must be a file name that ends in .svg, got {plot}")
    account = load(artifact).describe_order()
    if plot is not None:
        plot.write_bytes(account.draw())
    if as_json:
        print_json(account.value)
    else:
        print(account.words)


@app.command()
def generate(
    artifact: ArtifactArgument,
    prompt: Annotated[str | None, typer.Argument(help="JSON for a table, text for a text model.")] = None,
    num_samples: Annotated[int, typer.Option("-n", "--num-samples", min=1, help="How many samples.")] = 1,
    order_policy: options.OrderOption = "learned",
    order_temperature: Annotated[float | None, typer.Option(min=0.0, help="0: always the likeliest next.")] = None,
    tokens_per_step: Annotated[int | None, typer.Option(min=1)] = None,
    steps: Annotated[int | None, typer.Option(min=1)] = None,
    threshold: Annotated[float | None, typer.Option(min=0.0)] = None,
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    top_k: Annotated[int | None, typer.Option(min=1)] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    backtrack: Annotated[int | None, typer.Option(min=0, help="Grids: most forwards lost to contradictions.")] = None,
    where: options.WhereOption = None,
    rule: options.RuleOption = None,
    share: options.ShareOption = None,
    attempts: Annotated[int | None, typer.Option(min=1, help="With --where or --rule: most for a sample.")] = None,
    length: Annotated[int | None, typer.Option(min=1, help="New tokens after a text prompt without holes.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    as_json: JsonFlag = False,
    top_logprobs: Annotated[int, typer.Option(min=0, max=20, help="With --json: the likeliest at each reveal.")] = 0,
    out: options.OutOption = None,
    force: Annotated[bool, typer.Option("--force", help="With --out: replace a file that exists.")] = False,
) -> None:
    """Generate without a server. On a terminal the reveal is shown in colour.

    --out writes a table's rows, as many as wanted: Parquet where FILE ends in .parquet, else CSV, compressed where it
    ends in .gz, .bz2 or .xz; - is stdout. FILE is FILE.partial until it is whole, and an existing one is replaced only
    with --force.
    """
    from unveil.commands import generation

    if as_json and out is not None:
        raise UsageError("--json and --out exclude each other")
    if force and out is None:
        raise UsageError("--force: is only valid with --out")
    if share and out is None:
        raise UsageError("--share: is only valid with --out")
    if top_logprobs and not as_json:
        raise UsageError("--top-logprobs: is only valid with --json")
    order = {"order": order_policy, "order_temperature": order_temperature}
    strides = {"tokens_per_step": tokens_per_step, "steps": steps, "threshold": threshold}
    tokens = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed, "top_logprobs": top_logprobs}
    taken_back = {"backtrack": backtrack, "where": where, "rules": rule, "attempts": attempts}
    fields = {"num_samples": num_samples, "length": length, **order, **strides, **tokens, **taken_back}
    if out is None:
        generation.run(artifact, prompt, fields=fields, as_json=as_json)
    else:
        generation.write_rows(artifact, prompt, out, fields=fields, shares=share or (), force=force)


@app.command()
def impute(
    artifact: ArtifactArgument,
    table: Annotated[Path, typer.Argument(help="A CSV or Parquet file with empty cells; -: stdin.")],
    out: Annotated[Path, typer.Option("--out", "--csv", metavar="FILE", help="Where the filled file goes; -: stdout.")],
    order_policy: Annotated[str, typer.Option("--order", help="An order policy.")] = "learned",
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    samples: Annotated[int, typer.Option(min=1, max=100, help="So many files: OUT.1.csv, OUT.2.csv, ...")] = 1,
    mode: Annotated[bool, typer.Option("--mode", help="The likeliest value, not a drawn one.")] = False,
    where: options.WhereOption = None,
    rule: options.FilledRuleOption = None,
    missing: options.MissingOption = None,
    delimiter: Annotated[str | None, typer.Option(help="Default: that of the training table.")] = None,
    ignore_foreign: options.IgnoreForeignFlag = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Fill the empty cells of a file; known cells of a CSV file stay byte for byte, types of a Parquet file stay.

    Values are drawn given all that is known in their row, together. --mode takes the likeliest value each time, and the
    median of a bin of numbers. Columns that the model does not have are left as they are. The result is Parquet where
    its name ends in .parquet, else CSV.
    """
    from unveil.commands import imputation

    if mode and samples > 1:
        raise UsageError("--mode and --samples exclude each other: every sample would be the same")
    if delimiter is not None:
        check_delimiter(delimiter)
    own = imputation.Options(order_policy, seed, samples, mode, missing, delimiter, ignore_foreign, where, rule)
    imputation.impute(artifact, table, out, options=own, force=force)


@app.command()
def score(
    artifact: ArtifactArgument,
    prompt: Annotated[str | None, typer.Argument(help="JSON for a table, text for a text model.")] = None,
    given: Annotated[str | None, typer.Option(help="As PROMPT: what of it is known from the start, and free.")] = None,
    order_policy: Annotated[
        str, typer.Option("--order", help="An order policy, or the scored positions as in 3,0,1.")
    ] = "learned",
    order_temperature: Annotated[float | None, typer.Option(min=0.0, help="0: always the likeliest next.")] = None,
    num_orders: Annotated[int | None, typer.Option(min=1, help="Orders to draw; default 16.")] = None,
    length: Annotated[int | None, typer.Option(min=1, help="Hidden tokens after a text prompt without holes.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    as_json: JsonFlag = False,
) -> None:
    """What the known part of a template costs, in nats; hidden positions are integrated out. Without a server.

    With --given what is left of it costs, given that.

    Orders learned and uniform are drawn: the bound (NELBO) is a mean over them and has a standard error. Any other is
    one order, and gives the exact log-likelihood.
    """
    from unveil.commands import scoring

    fields = {
        "order": order_policy,
        "order_temperature": order_temperature,
        "num_orders": num_orders,
        "length": length,
        "seed": seed,
    }
    scoring.run(artifact, prompt, given=given, fields=fields, as_json=as_json)


@app.command()
def bench(
    artifacts: Annotated[
        list[str] | None, typer.Argument(help="FOLDER or NAME=FOLDER; none: the bundled ones.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, max=4096, help="Of mixed lengths and numbers of holes.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Both sides take turns; medians are reported.")] = 5,
    max_batch: Annotated[int, typer.Option(min=1, max=4096, help="Canvases in one denoising step.")] = 64,
    threads: Annotated[int, typer.Option(min=1, help="Of the processor, for both sides.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """The speed of this machine on artifacts: the engine against the published reference loop, in process, on a CPU."""
    numbers = {"--requests": requests, "--rounds": rounds, "--max-batch": max_batch, "--threads": threads}
    options = [part for name, value in numbers.items() for part in (name, str(value))]
    code = _run_benchmark("speed.in_process", [*options, *(["--json"] if as_json else []), "--", *(artifacts or [])])
    raise typer.Exit(code if code >= 0 else 1)  # below zero: a signal ended it


@app.command()
def serve(
    artifacts: Annotated[
        list[str] | None, typer.Argument(help="FOLDER or NAME=FOLDER; none: the bundled ones.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Default 127.0.0.1, or UNVEIL_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Default 8000, or UNVEIL_PORT.")] = None,
) -> None:
    """Serve artifacts over HTTP. Every other setting is an environment variable UNVEIL_*: docs/operations.md."""
    from unveil.service.server import serve as run_service
    from unveil.service.settings import load_settings

    given = {"artifacts": tuple(artifacts) if artifacts else None, "host": host, "port": port}
    sys.exit(run_service(load_settings(given)))


def main() -> None:
    """The entry point: turns every error a user can cause into one line on stderr and an exit code."""
    environment.prepare()
    try:
        code = app(standalone_mode=False)  # a typer.Exit comes back as its code
        if code == _INTERRUPTED:
            resumes = "; the same command resumes the run" if "train" in sys.argv[1:2] else ""
            _fail(f"interrupted{resumes}", code=_INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Abort:
        _fail("aborted", code=1)
    except typer.TyperException as error:
        _fail(error.format_message() if hasattr(error, "format_message") else str(error), code=2)
    except UsageError as error:
        _fail(str(error), code=2)
    except UnveilError as error:
        _fail(str(error), code=getattr(error, "exit_code", 1))  # of a run that a signal stopped
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        if not error.strerror:
            raise
        # a full disk, a folder that is not there
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror, code=1)


def _run_benchmark(name: str, arguments: Sequence[str]) -> int:
    """The exit code of a benchmark, in a process of its own: no product code imports one. It is found in this package,
    whatever stands in the folder that the command is run in."""
    place = str(Path(__file__).resolve().parents[1])
    paths = [place, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = bound([sys.executable, "-P", "-m", f"unveil.benchmarks.{name}", *arguments])
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, check=False).returncode


def _fail(message: str, *, code: int) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
