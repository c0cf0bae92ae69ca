"""Molecules: a learned order against uniform ones on the same net, judged by RDKit and ChemNet, not by us.

    python -m benchmarks molecules [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--samples N] [--smiles FILE]
        [--artifact DIR [--orders NAME,...] [--temperatures T,...]] [--set key=value]...
    python -m benchmarks molecules --artifact DIR --protocol moses [--samples N] [--temperatures T,...]
        [--curve-samples N] [--seeds N] [--json] [--work DIR] [--jobs N]

For each seed three nets of `training/recipes/moses.toml`'s size have equally many forwards: `global`, a learned order;
`fixed`, left to right with the learned arm's warm-up and share of uniform rows; and `uniform` orders, in a masked net
of as many layers (`benchmarks/common/arms.py`).
Each makes molecules along its own order; the uniform net also surest first (confidence) and from left to right, the
learned one also in random orders. MOSES's definitions: valid of all, unique of the first 10,000 valid, novel of the
different valid ones.

FCD (fcd_torch; without it the columns are left out, and said so) is to MOSES's own statistics of its whole test set;
with `--smiles`, to test rows spread evenly over the split. It shrinks with the number of molecules, so beside it stands
`fcd_real`, that of as many validation rows as the way made valid molecules: what a perfect model has.

Infilling: test molecules, drawn at random from the whole split, of which only the scaffold is left, every side chain a
hole of its own number of tokens; the share that comes back valid and with the scaffold in it. Intervals are Student's
over seeds, 95 %. `--smiles` takes a file of one's own instead of MOSES. Results are kept in DIR, and found again:
remove DIR after a change to the method.

With `--artifact` nothing is trained: that one model is decoded along each order, its own and others (all of them, or
`--orders learned,uniform`), and intervals are over seeds of sampling, not of training. `--temperatures 0.8,0.6` decodes
it along its own order at those, too: lower ones make more molecules that are valid, and fewer different ones.

With `--protocol moses` it is the whole of MOSES's protocol, and comparable with what others publish: 30,000 samples at
temperature 1, every metric to both test sets (`benchmarks/problems/moses_protocol`), beside the published table and as
many random training molecules. `--temperatures` adds a curve with `--curve-samples` at each. A killed run goes on.
"""

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from unveil import training
from unveil.benchmarks.common.arms import KINDS, arm_of
from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.domains.problems.chemnet import FCD_NEEDED, has_fcd
from unveil.benchmarks.domains.problems.molecule_judge import judged
from unveil.benchmarks.domains.problems.molecules import require_rdkit
from unveil.benchmarks.domains.problems.moses_protocol.protocol import Protocol, run_protocol
from unveil.benchmarks.domains.problems.moses_protocol.published import PUBLISHED
from unveil.benchmarks.domains.problems.moses_protocol.sampling import CHUNK
from unveil.benchmarks.domains.problems.moses_protocol.table import protocol_as_text
from unveil.commands.training import cache_folder
from unveil.model.artifact.folder import load_artifact
from unveil.model.decoding.canvas import OrderPolicy, SamplingParams
from unveil.model.network.base import Network
from unveil.training.config import Recipe, load_recipe, settle
from unveil.training.data.dataset import Dataset
from unveil.training.data.load import load_dataset
from unveil.training.trainer import row_forwards, train

RECIPE = Path(training.__file__ or "").parent / "recipes" / "moses.toml"
_NAMES = {"valid": "valid", "unique": "unique@10000", "novel": "Novelty", "fcd": "FCD/Test"}
CHAR_RNN = {own: PUBLISHED["CharRNN"][name] for own, name in _NAMES.items()}
WAYS: dict[str, tuple[str, OrderPolicy]] = {  # label -> the net and the order along which it is decoded
    "learned": ("global", "learned"),
    "learned net, random orders": ("global", "uniform"),
    "uniform": ("uniform", "uniform"),
    "uniform net, confidence": ("uniform", "confidence"),
    "uniform net, left to right": ("uniform", "left_to_right"),
    "left to right": ("fixed", "learned"),
}
ORDERS: tuple[OrderPolicy, ...] = ("learned", "uniform", "confidence", "margin", "left_to_right")
QUICK = [
    "model={width = 16, layers = 1, heads = 2, mlp_width = 32}",
    "optimizer={steps = 8, batch_size = 16}",
    "run={threads = 1, precision = '32-true'}",
    "advanced={optimizer = {warmup_steps = 2}, run = {validate_rows = 8}}",
]
COLUMNS = ("valid", "unique", "novel", "fcd", "fcd_real", "infilled")
PROTOCOL_SAMPLES, CURVE_SAMPLES = 30_000, 10_000


def main() -> None:
    parser = _parser()
    given = parser.parse_args()
    if (given.temperatures or given.orders or given.protocol) and given.artifact is None:
        name = "temperatures" if given.temperatures else "orders" if given.orders else "protocol"
        parser.error(f"--{name} goes with --artifact")
    require_rdkit()
    if given.protocol:
        report = run_protocol(_protocol(parser, given))
        print(json.dumps(report, indent=2) if given.json else protocol_as_text(report))
        return
    task = _task(parser, given)
    tasks = [{**task, "seed": seed} for seed in range(given.seeds or 3)]
    job = measure if given.artifact is None else measure_artifact
    report = summary(run_all(job, tasks, folder=given.work, jobs=given.jobs))
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def _parser() -> ArgumentParser:
    parser = arguments(__doc__, work="runs/molecules", seeds=3)
    parser.set_defaults(seeds=None)  # 3, and 1 of the protocol, which has an interval of its own
    parser.add_argument(
        "--samples", type=int, help="molecules from each net and order; 10,000 as unique@10k, 30,000 of the protocol"
    )
    parser.add_argument("--infills", type=_count, help="test scaffolds to fill, 0 for none; default 500")
    parser.add_argument("--smiles", type=Path, help="a file of SMILES, one a line, instead of MOSES")
    parser.add_argument("--artifact", type=Path, help="judge this model alone, along each order")
    parser.add_argument("--orders", help=f"with --artifact: learned and some of {', '.join(ORDERS[1:])}")
    parser.add_argument(
        "--temperatures", type=_temperatures, default=(), help="with --artifact: beside 1, learned order"
    )
    parser.add_argument("--protocol", choices=["moses"], help="with --artifact: the whole of MOSES's protocol")
    parser.add_argument("--curve-samples", type=int, help="with --protocol: of each temperature; default 10,000")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="a key of the recipe")
    return parser


def _protocol(parser: ArgumentParser, given: Namespace) -> Protocol:
    for name in ("infills", "smiles", "orders", "overrides"):
        if getattr(given, name) not in (None, []):
            parser.error(f"--{'set' if name == 'overrides' else name} is not valid with --protocol")
    samples = given.samples or (24 if given.quick else PROTOCOL_SAMPLES)
    curve_samples = given.curve_samples or min(8 if given.quick else CURVE_SAMPLES, samples)
    chunk = min(CHUNK, curve_samples)
    if curve_samples > samples or curve_samples % chunk:
        parser.error(f"--curve-samples must be at most --samples, and up to {CHUNK:,} or a multiple of it")
    return Protocol(
        artifact=given.artifact,
        seeds=given.seeds or 1,
        samples=samples,
        temperatures=given.temperatures,
        curve_samples=curve_samples,
        chunk=chunk,
        has_chemnet=has_fcd(),
        cache=cache_folder(),
        work=given.work,
        jobs=given.jobs,
    )


def _task(parser: ArgumentParser, given: Namespace) -> Fields:
    orders = given.orders.split(",") if given.orders else list(ORDERS)
    if "learned" not in orders or not set(orders) <= set(ORDERS):
        parser.error(f"--orders: takes learned and some of {', '.join(ORDERS[1:])}, not {given.orders}")
    overrides = [*(QUICK if given.quick else []), *given.overrides]
    if given.smiles is not None:
        overrides.append(f"data={{kind = 'smiles', path = {json.dumps(str(given.smiles))}}}")
    return {
        "problem": "molecules",
        "overrides": overrides,
        "samples": given.samples or (24 if given.quick else 10_000),
        "infills": given.infills if given.infills is not None else (8 if given.quick else 500),
        "fcd": has_fcd(),
        "artifact": None if given.artifact is None else str(given.artifact),
        "orders": orders,
        "temperatures": list(given.temperatures),
        "references": "whole test file",
        "runs": str(given.work / "runs"),
    }


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"takes 0 or more, not {text}")
    return int(text)


def _temperatures(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def measure(task: Fields) -> Fields:
    """All arms of one seed."""
    recipes = {kind: arm_recipe(task, kind) for kind in KINDS}
    dataset = _dataset(recipes["uniform"])
    nets = {kind: trained(recipe, dataset, task) for kind, recipe in recipes.items()}
    forwards = {kind: row_forwards(recipe, recipe.optimizer.num_steps) for kind, recipe in recipes.items()}
    ways = {label: (nets[kind], SamplingParams(order=order)) for label, (kind, order) in WAYS.items()}
    found = judged(ways, dataset, recipes["uniform"].data, task)
    return {**found, "row_forwards": forwards, "parameters": nets["global"].num_parameters}


def measure_artifact(task: Fields) -> Fields:
    """One trained model along each order, with one seed of sampling."""
    artifact = load_artifact(Path(task["artifact"]))
    recipe = load_recipe(RECIPE, overrides=task["overrides"])
    dataset = _dataset(recipe)
    if dataset.tokenizer.vocabulary_sizes != artifact.tokenizer.vocabulary_sizes:
        raise SystemExit(f"error: {task['artifact']}: its tokens are not those of the recipe's molecules")
    ways = {order: SamplingParams(order=order) for order in task["orders"]} | {
        f"learned, temperature {t:g}": SamplingParams(temperature=t) for t in task["temperatures"]
    }
    found = judged({label: (artifact.denoiser, params) for label, params in ways.items()}, dataset, recipe.data, task)
    return {**found, "parameters": artifact.manifest.num_parameters, "sha256": artifact.manifest.weights_sha256}


def arm_recipe(task: Fields, kind: str) -> Recipe:
    """The recipe with another order and another seed."""
    recipe = load_recipe(RECIPE, overrides=[*task["overrides"], f"seed={task['seed']}"])
    dataset = _dataset(recipe)
    return arm_of(settle(recipe, num_rows=len(dataset.train)), kind)


@cache
def _loaded(data: str) -> Dataset:
    recipe = Recipe.of({"name": "data", "data": json.loads(data)})
    return load_dataset(recipe.data, cache=cache_folder())


def _dataset(recipe: Recipe) -> Dataset:
    return _loaded(recipe.data.model_dump_json())


def trained(recipe: Recipe, dataset: Dataset, task: Fields) -> Network:
    """One arm; a killed one goes on."""
    work = Path(task["runs"]) / f"{recipe.name}-{recipe.seed}-{recipe.fingerprint()[:8]}"
    result = train(recipe, dataset, work=work)
    assert result is not None, "run in one process"
    return result.denoiser


def summary(results: Sequence[Fields]) -> Fields:
    """Means over seeds with intervals, of each way and of the learned order minus each rival."""

    def over_seeds(label: str, column: str, *, rival: str | None = None) -> Any:
        values = [result["ways"][label][column] for result in results]
        others = [result["ways"][rival][column] if rival else 0.0 for result in results]
        if any(value is None for value in (*values, *others)):
            return None
        return interval([a - b for a, b in zip(values, others, strict=True)])

    labels = list(results[0]["ways"])
    return {
        "seeds": list(results),
        "ways": {label: {c: over_seeds(label, c) for c in COLUMNS} for label in labels},
        "learned_minus": {
            rival: {c: over_seeds("learned", c, rival=rival) for c in COLUMNS} for rival in labels if rival != "learned"
        },
        "published": {"CharRNN": CHAR_RNN},
        "left_out": {} if has_fcd() else {"fcd, fcd_real": FCD_NEEDED},
    }


def as_text(report: Fields) -> str:
    """The same for a reader."""
    first = report["seeds"][0]
    lines = [f"{first['parameters']:,} parameters, {first['samples']:,} molecules and {first['infills']} infills each"]
    lines.append(f"{'order':<28}" + "".join(f"{column:>26}" for column in COLUMNS))
    for label, columns in report["ways"].items():
        lines.append(f"{label:<28}" + "".join(f"{_shown(columns[c]):>26}" for c in COLUMNS))
    lines.append("learned minus")
    for label, columns in report["learned_minus"].items():
        lines.append(f"  {label:<26}" + "".join(f"{_shown(columns[c]):>26}" for c in COLUMNS))
    published = {**report["published"]["CharRNN"], "fcd_real": None, "infilled": None}
    lines.append(f"{'CharRNN, published':<28}" + "".join(f"{published[c] or '-':>26}" for c in COLUMNS))
    lines += [f"{column} is left out: {reason}" for column, reason in report["left_out"].items()]
    return "\n".join(lines)


def _shown(value: Fields | None) -> str:
    return "-" if value is None else with_interval(value)


if __name__ == "__main__":
    main()
