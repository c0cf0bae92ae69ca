"""`unveil impute`: the empty cells of a file filled in, everything else left as it is, in CSV byte for byte.

CSV row by row in constant memory, Parquet as a whole (`unveil/tables/filling.py`). Of each row the model sees what is
known, and draws all that is not known together, cell after cell in its order, each given the ones before; a missing
value is never drawn.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from unveil.api import Model, load
from unveil.commands.arguments import refused_as_usage, where_argument
from unveil.commands.output import UsageError
from unveil.commands.progress import Bar, stderr
from unveil.commands.raw_csv import RawCsv, RawRecord
from unveil.commands.result_files import COMPRESSED, STANDARD, check_target, partial_of, shown, written
from unveil.model.decoding.canvas import Canvas, Reveal, SamplingParams
from unveil.model.decoding.seeds import derive_seed, draw_seed
from unveil.model.errors import PromptError, UnveilError
from unveil.model.tokenizers.base import Value
from unveil.model.tokenizers.table.table import TableTokenizer
from unveil.model.tokenizers.wording import listed, quoted
from unveil.tables.constraints import Constraints, constraints_of
from unveil.tables.files import check_frame, given_table, is_parquet, write_frame
from unveil.tables.filling import Wishes, data_of, fill, filled_frame, missing_texts, sampling_params
from unveil.training.data.files import read_table

_MEDIAN = 0.5
Reveals = Mapping[int, Reveal]  # of one sample, by the model's position


@dataclass(frozen=True)
class Options:
    """The flags as given; `missing` and `delimiter` None: as the model's own table had them."""

    order: str
    seed: int | None
    num_samples: int
    is_mode: bool
    missing: Sequence[str] | None
    delimiter: str | None
    ignores_foreign: bool
    where: str | None = None
    rules: Sequence[str] | None = None


@dataclass(frozen=True)
class _Task:
    """What is the same for every row. `position_of` gives the model's position of a column of the file."""

    table: RawCsv
    tokenizer: TableTokenizer
    position_of: Mapping[int, int]
    missing: frozenset[str]
    params: SamplingParams
    seed: int
    options: Options
    constraints: Constraints | None
    foreign: Counter[str] = field(default_factory=Counter)
    not_filled: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Row:
    record: RawRecord
    holes: Sequence[int]  # columns of the file


def impute(folder: Path, table: Path, out: Path, *, options: Options, force: bool) -> None:
    """Writes OUT, or OUT.1.csv, OUT.2.csv, ... where several samples are wanted; `-` is stdin and stdout.

    Raises UsageError, ArtifactError, UnveilError and PromptError in one line naming option, or line and column.
    """
    model = load(folder)
    if not isinstance(model.tokenizer, TableTokenizer):
        raise UsageError(f"impute needs a model of a table, and {folder} is a {model.manifest.domain} model")
    with refused_as_usage():
        where, rules = where_argument(options.where), options.rules
        constraints = constraints_of(model, where=where, rules=rules, is_mode=options.is_mode)
    if options.num_samples > 1 and out == STANDARD:
        raise UsageError("--samples: makes several files, and --out - is one")
    paths = _targets(out, options.num_samples)
    with given_table(table) as source:
        for path in paths:
            _check_path(path, source, force=force)
        if is_parquet(source):
            _impute_frame(model, source, paths, options, constraints)
        elif out.suffix == ".parquet":
            raise UsageError(f"--out {out}: a CSV file is filled in as it is written, and comes out as CSV")
        else:
            _impute_records(model, source, paths, options, constraints)


def _check_path(path: Path, source: Path, *, force: bool) -> None:
    check_target(path, force=force)
    if partial_of(path).exists() and source.exists() and partial_of(path).samefile(source):
        raise UsageError(f"--out {path}: is written as {partial_of(path)} at first, and that is the file to fill in")


def _impute_records(
    model: Model, source: Path, paths: Sequence[Path], options: Options, constraints: Constraints | None
) -> None:
    task = _task(model, source, options, constraints)
    with ExitStack() as stack:
        files = [stack.enter_context(written(path, encoding=task.table.encoding)) for path in paths]
        advance = stack.enter_context(Bar("filling in", task.table.num_bytes))
        num_cells = 0
        for file in files:
            file.write(task.table.preamble)
        for row, samples in _filled(task, model):
            _write(task, row, samples, files)
            num_cells += len(row.holes)
            advance(row.record.num_bytes)
    _tell(task.foreign, task.not_filled, constraints)
    _tell_result(num_cells, paths, options, task.seed)


def _impute_frame(
    model: Model, source: Path, paths: Sequence[Path], options: Options, constraints: Constraints | None
) -> None:
    tokenizer = _tokenizer(model)
    frame = read_table(source, delimiter=options.delimiter or ",").frame
    _tell_absent([column.name for column in tokenizer.columns], frame.columns)
    _params(options)
    for path in paths:
        check_frame(frame, path)
    with Bar("filling in", frame.height) as advance:
        wishes = Wishes(
            options.order,
            options.seed,
            options.num_samples,
            options.is_mode,
            options.missing,
            ignores_foreign=options.ignores_foreign,
            constraints=constraints,
        )
        missing = missing_texts(model.manifest)
        filled = fill(model, tokenizer, frame, missing=missing, wishes=wishes, advance=advance)
        for sample, path in zip(filled.samples, paths, strict=True):
            write_frame(filled_frame(tokenizer, frame, sample), path)
    others = frame.drop([column.name for column in tokenizer.columns], strict=False)
    empty = Counter({series.name: n for series in others if (n := series.null_count())})
    _tell(filled.foreign, empty, constraints)
    _tell_result(filled.num_cells, paths, options, filled.seed)


def _targets(out: Path, num_samples: int) -> list[Path]:
    if num_samples == 1:
        return [out]
    suffix = "".join(out.suffixes[-2:]) if out.suffix in COMPRESSED else out.suffix
    stem = out.name.removesuffix(suffix)
    return [out.with_name(f"{stem}.{k}{suffix}") for k in range(1, num_samples + 1)]


def _tokenizer(model: Model) -> TableTokenizer:
    assert isinstance(model.tokenizer, TableTokenizer)
    return model.tokenizer


def _task(model: Model, source: Path, options: Options, constraints: Constraints | None) -> _Task:
    manifest, tokenizer = model.manifest, _tokenizer(model)
    data = data_of(manifest)
    table = RawCsv.open(
        source, delimiter=options.delimiter or data.get("delimiter", ","), header=data.get("header", True)
    )
    positions = {column.name: i for i, column in enumerate(tokenizer.columns)}
    position_of = {i: positions[name] for i, name in enumerate(table.names) if name in positions}
    if not position_of:
        raise UsageError(f"{source}: has none of the model's columns ({listed(positions)})")
    _tell_absent(list(positions), table.names)
    missing = missing_texts(manifest) if options.missing is None else options.missing
    seed = draw_seed() if options.seed is None else options.seed
    return _Task(table, tokenizer, position_of, frozenset(["", *missing]), _params(options), seed, options, constraints)


def _tell_absent(names: Sequence[str], given: Sequence[str]) -> None:
    absent = [name for name in names if name not in given]
    if absent:
        note = f"note: the table lacks columns of the model, unknown in every row: {listed(absent)}"
        stderr.print(note, soft_wrap=True)


def _params(options: Options) -> SamplingParams:
    try:
        return sampling_params(options.order, is_mode=options.is_mode, option="--order")
    except UnveilError as error:
        raise UsageError(str(error)) from None


def _filled(task: _Task, model: Model) -> Iterator[tuple[_Row, list[Reveals]]]:
    """Every record with its samples, in the order of the file; the decoder reads ahead by one window."""
    ahead: deque[_Row] = deque()

    def canvases() -> Iterator[Canvas]:
        for index, record in enumerate(task.table.records()):
            row = _Row(record, _holes(task, record))
            tokens, hidden, known = _seen(task, row)
            params = task.params
            if task.constraints is not None and row.holes:
                params = task.constraints.params(params, tokens, hidden, known)
            ahead.append(row)
            for k in range(task.options.num_samples):
                yield Canvas.start(tokens, hidden, seed=derive_seed(task.seed, index, k), params=params)

    samples: list[Reveals] = []
    for decoded in model.decode(canvases(), barred=task.tokenizer.missing_ids):
        if decoded.canvas.is_unmet:
            place = f"{task.table.path} line {ahead[0].record.line}"
            raise UnveilError(f"{place}: no values of its empty cells meet what is asked for")
        samples.append({reveal.position: reveal for reveal in decoded.reveals})
        if len(samples) == task.options.num_samples:
            yield ahead.popleft(), samples
            samples = []


def _holes(task: _Task, record: RawRecord) -> list[int]:
    """The columns of the file to fill; what is empty in a column that the model does not have is counted."""
    empty = [i for i in range(len(record.cells)) if record.text(i) in task.missing]
    task.not_filled.update(task.table.names[i] for i in empty if i not in task.position_of)
    return [i for i in empty if i in task.position_of]


def _seen(task: _Task, row: _Row) -> tuple[tuple[int, ...], tuple[bool, ...], dict[int, Value]]:
    """Tokens, what is hidden of a row, and the known values; nothing is hidden where there is nothing to fill."""
    known: dict[int, Value] = {}
    tokens, hidden = [0] * task.tokenizer.length, [bool(row.holes)] * task.tokenizer.length
    for i, position in task.position_of.items():
        if i in row.holes or not row.record.cells:
            continue
        column = task.tokenizer.columns[position]
        try:
            value = column.read(row.record.text(i))
            tokens[position] = column.encode(value)
            hidden[position], known[position] = False, value
        except PromptError as error:
            if not task.options.ignores_foreign:
                place = f"{task.table.path} line {row.record.line}"
                reason = f"{error}; --ignore-foreign keeps such cells from the model, and leaves them as they are"
                raise PromptError(f"{place}: {reason}", param=error.param) from None
            task.foreign[column.name] += 1
    return tuple(tokens), tuple(hidden), known


def _write(task: _Task, row: _Row, samples: Sequence[Reveals], files: Sequence[TextIO]) -> None:
    for reveals, file in zip(samples, files, strict=True):
        cells = list(row.record.cells)
        for i in row.holes:
            reveal = reveals[task.position_of[i]]
            uniform = _MEDIAN if task.options.is_mode else reveal.uniform
            column = task.tokenizer.columns[reveal.position]
            cells[i] = task.table.written(column.written(column.value(reveal.token_id, uniform)))
        file.write(task.table.joined(row.record, cells))


def _tell(foreign: Counter[str], not_filled: Counter[str], constraints: Constraints | None) -> None:
    for note in constraints.notes() if constraints is not None else ():
        stderr.print(f"note: {note}", soft_wrap=True)
    for name, number in foreign.items():
        stderr.print(
            f"note: column {quoted(name)}: {number:,} cells not known to the model, left as they are", soft_wrap=True
        )
    for name, number in not_filled.items():
        stderr.print(
            f"note: column {quoted(name)} is not the model's: {number:,} empty cells left as they are", soft_wrap=True
        )


def _tell_result(num_cells: int, paths: Sequence[Path], options: Options, seed: int) -> None:
    by_seed = "" if options.is_mode and options.order != "uniform" else f", seed {seed}"
    stderr.print(f"wrote {', '.join(map(shown, paths))}: {num_cells:,} cells filled in{by_seed}", soft_wrap=True)
