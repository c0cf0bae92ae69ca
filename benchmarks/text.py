"""English: a learned order against uniform ones and against left to right, on the same net at equal forwards.

    python -m benchmarks.text [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--file FILE] [--next-step]
        [--rows N] [--samples N] [--set key=value]... [--artifact DIR]

For each seed three nets have equally many forwards: `global`, a learned order, `fixed`, left to right with the learned
arm's warm-up, share of uniform rows and prompts, and `uniform` orders. Recipe: `training/recipes/text.toml` with a
smaller net and fewer steps (REDUCED), so that several seeds are to be had, and teacher forcing; the uniform net goes
without that, for twice as many steps (`benchmarks/problems/arms.py`). With `--next-step` no net has it: a row trains
the next step of its order and, less, all that is hidden, and the law begins as the uniform one.

Bits per character of test canvases, each read by itself: a NELBO for a law that is drawn, the exact log-likelihood for
one order. Beside them stands an n-gram model of characters from left to right, counted on the training text. Prompts
know the first half of a canvas, the second, or all but four holes; what is hidden is scored under each net's own law.
Texts made at so many positions a step are judged by the n-gram model (low is easy to predict, not good by itself), by
the share of their words that the training text has, and by the share of their words that are different ones.

Intervals are Student's over seeds, 95 %; with each seed stands the standard error over rows. `--file` takes a text of
one's own, in characters, its last tenth for the test: of tinyshakespeare nanoGPT's published losses are known. Results
are kept in DIR, and found again: remove DIR after a change to the method.

With `--artifact` nothing is trained: that one model of the recipe's text is asked the same.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import training
from benchmarks.problems.arms import KINDS, arm_of
from benchmarks.problems.runs import Fields, arguments, interval, run_all, with_interval
from benchmarks.problems.text import Judge, prompt_masks
from model.artifact import load_artifact
from model.canvas import Canvas, OrderPolicy, SamplingParams
from model.network import Network
from model.orders import deterministic_order
from model.sampler import decode
from model.seeds import derive_seed
from training.config import Recipe, load_recipe
from training.data.config import KjvData
from training.data.dataset import Dataset
from training.data.load import load_dataset
from training.evaluate import log_likelihood, nelbo
from training.rows import Rows, split_rows
from training.trainer import row_forwards, train
from unveil.training_commands import cache_folder

RECIPE = Path(training.__file__ or "").parent / "recipes" / "text.toml"
REDUCED = [
    "model.width=96",
    "model.layers=3",
    "model.heads=4",
    "model.mlp_width=256",
    "optimizer.steps=700",
    "optimizer.batch_size=64",
    "run={threads = 1, validate_every = 100000, validate_rows = 32, checkpoint_every = 100}",
]
# As many steps of warm-up as the recipe has, after which its rivals are compared; fewer, and no order looks any better.
FORCED = ["optimizer.steps=1400", "optimizer.batch_size=32", "order.warmup=0.14"]
# What is best without teacher forcing: long uniform orders, which train every hidden position, and no rivals.
NEXT_STEP = [
    "model.attends=all",
    "optimizer.teacher_forcing=false",
    "order={candidates = [], learning_rate = 0.3, warmup = 0.45, anneal = 0.1, exploration = 0.2}",
    "prompts={share = 0.3, spans = 0.5}",
]
QUICK = [
    "model={width = 16, layers = 1, heads = 2, mlp_width = 32, relative_bias = true}",
    "optimizer={steps = 6, batch_size = 8, warmup_steps = 2}",
    "run={threads = 1, validate_rows = 2, precision = '32-true'}",
]
SEED = 20_516
_OPTIONS = {"next_step": "next-step", "overrides": "set"}
# Nats a character on the last tenth of the text, as nanoGPT's README gives them; whole contexts, not canvases alone.
PUBLISHED = {
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed": {
        "nanoGPT, 4 layers of 128, context 64, 2,000 steps of 12": 1.88,
        "nanoGPT, 6 layers of 384, context 256, 5,000 steps of 64": 1.4697,
    }
}
WAYS: dict[str, tuple[str, str]] = {  # label -> the net and the order along which it is scored
    "learned": ("global", "law"),
    "learned, likeliest order": ("global", "likeliest"),
    "learned net, random orders": ("global", "random"),
    "learned net, left to right": ("global", "left to right"),
    "uniform": ("uniform", "random"),
    "uniform net, learned order": ("uniform", "likeliest"),
    "uniform net, left to right": ("uniform", "left to right"),
    "left to right": ("fixed", "left to right"),
    "left to right net, random orders": ("fixed", "random"),
}
RIVALS = ("uniform", "uniform net, learned order", "uniform net, left to right", "left to right")
OF_ONE: dict[str, str] = {  # the same for one model
    "own law": "law",
    "likeliest order": "likeliest",
    "left to right": "left to right",
    "random orders": "random",
}
MADE: dict[str, tuple[str, OrderPolicy]] = {  # label -> the net and the order along which it writes
    "learned": ("global", "learned"),
    "uniform": ("uniform", "uniform"),
    "uniform net, confidence": ("uniform", "confidence"),
    "left to right": ("fixed", "left_to_right"),
}


def main() -> None:
    parser = arguments(__doc__, work="runs/text", seeds=2)
    parser.add_argument("--rows", type=int, help="test canvases; 64 where left out")
    parser.add_argument("--samples", type=int, help="texts from each net, order and number of positions a step; 32")
    parser.add_argument("--file", type=Path, help="a text file instead of the King James Version")
    parser.add_argument("--artifact", type=Path, help="judge this model alone")
    parser.add_argument("--next-step", action="store_true", help="no teacher forcing and no rivals")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="a key of the recipe")
    given = parser.parse_args()
    overrides = QUICK if given.quick else REDUCED if given.next_step else [*REDUCED, *FORCED]
    overrides = [*overrides, *(NEXT_STEP if given.next_step else [])]
    task = {
        "problem": "text",
        "overrides": [*overrides, *given.overrides],
        "rows": given.rows or (4 if given.quick else 64),
        "samples": given.samples or (3 if given.quick else 32),
        "strides": [1, 4] if given.quick else [1, 2, 4, 8],
        "file": None if given.file is None else str(given.file),
        "length": 16 if given.quick else 128,
        "runs": str(given.work / "runs"),
    }
    if given.artifact is not None:
        for name in ("next_step", "file", "overrides", "seeds", "jobs", "work"):
            if getattr(given, name) != parser.get_default(name):
                parser.error(f"--{_OPTIONS.get(name, name)}: goes without --artifact")
        one = measure_artifact({**task, "artifact": str(given.artifact), "seed": 0})
        print(json.dumps(one, indent=2) if given.json else artifact_as_text(one))
        return
    tasks = [{**task, "seed": seed} for seed in range(given.seeds)]
    report = summary(run_all(measure, tasks, folder=given.work, jobs=given.jobs))
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def measure(task: Fields) -> Fields:
    """All arms of one seed."""
    recipes = {kind: arm_recipe(task, kind) for kind in KINDS}
    dataset = _loaded(recipes["uniform"].data.model_dump_json())
    nets = {kind: trained(recipe, dataset, task) for kind, recipe in recipes.items()}
    rows = spread_rows(dataset, task["rows"])
    data = recipes["uniform"].data
    judge = _judge(dataset, data)
    likeliest = deterministic_order(nets["global"].order_head.global_log_w().detach()).tolist()
    costs = {label: cost(nets, way, rows, likeliest) for label, way in WAYS.items()}
    texts = _texts(dataset, rows.x.tolist())
    return {
        "seed": task["seed"],
        "ways": {label: _bits(dataset, rows, nats) for label, nats in costs.items()},
        "learned_minus": {rival: _bits(dataset, rows, costs["learned"] - costs[rival]) for rival in RIVALS},
        "n_gram": _counted(judge, texts),
        "prompts": {kind: prompts(nets, kind, dataset, rows) for kind in prompt_masks(rows.x.shape[1])},
        "made": {label: made(nets[kind], order, dataset, judge, task) for label, (kind, order) in MADE.items()},
        "real": judge(texts),
        "rank_correlation": _correlation(likeliest),
        "row_forwards": {kind: row_forwards(recipe, recipe.optimizer.num_steps) for kind, recipe in recipes.items()},
        "parameters": {kind: net.num_parameters for kind, net in nets.items()},
        "length": rows.x.shape[1],
        "rows": len(rows),
        "published": _published(task["file"]),
    }


def measure_artifact(task: Fields) -> Fields:
    """One trained model, on the test canvases of the recipe's text."""
    artifact, data = load_artifact(Path(task["artifact"])), load_recipe(RECIPE).data
    dataset = _loaded(data.model_dump_json())
    if dataset.tokenizer.vocabulary_sizes != artifact.tokenizer.vocabulary_sizes:
        raise SystemExit(f"error: {task['artifact']}: its tokens are not those of the recipe's text")
    net, rows, judge = artifact.denoiser, spread_rows(dataset, task["rows"]), _judge(dataset, data)
    nets, texts = {"artifact": net}, _texts(dataset, rows.x.tolist())
    likeliest = deterministic_order(net.order_head.global_log_w().detach()).tolist()
    costs = {label: cost(nets, ("artifact", way), rows, likeliest) for label, way in OF_ONE.items()}
    kinds = prompt_masks(rows.x.shape[1])
    return {
        "ways": {label: _bits(dataset, rows, nats) for label, nats in costs.items()},
        "n_gram": _counted(judge, texts),
        "prompts": {kind: prompts(nets, kind, dataset, rows)["artifact"] for kind in kinds},
        "made": {order: made(net, order, dataset, judge, task) for order in ("learned", "confidence", "uniform")},
        "real": judge(texts),
        "rows": len(rows),
        "parameters": net.num_parameters,
        "sha256": artifact.manifest.weights_sha256,
    }


def _judge(dataset: Dataset, data: object) -> Judge:
    """Counted on the training text, each part of it once."""
    overlap = dataset.train.shape[1] // data.stride if isinstance(data, KjvData) and data.stride else 1
    return Judge(_texts(dataset, dataset.train[::overlap].tolist()))


def _counted(judge: Judge, texts: Sequence[str]) -> Fields:
    """The n-gram model's own bits a character."""
    bits = torch.tensor([judge.n_gram.bits(text) for text in texts], dtype=torch.float64)
    return _per_character(bits, torch.tensor([len(text) for text in texts], dtype=torch.float64))


def arm_recipe(task: Fields, kind: str) -> Recipe:
    """The recipe with another order and another seed."""
    fields = load_recipe(RECIPE, overrides=[*task["overrides"], f"seed={task['seed']}"]).model_dump(mode="json")
    if task["file"] is not None:
        shares = {"validation_share": 0.005, "test_share": 0.1}
        fields["data"] = {"kind": "text", "files": [task["file"]], "length": task["length"], **shares}
    recipe = Recipe.model_validate(fields)
    assert recipe.optimizer.steps is not None, "the recipe says how many"
    return arm_of(recipe, kind, length=fields["data"]["length"])


@cache
def _loaded(data: str) -> Dataset:
    return load_dataset(Recipe.model_validate({"name": "data", "data": json.loads(data)}).data, cache=cache_folder())


def trained(recipe: Recipe, dataset: Dataset, task: Fields) -> Network:
    """One arm; a killed one goes on."""
    work = Path(task["runs"]) / f"{recipe.name}-{recipe.seed}-{recipe.fingerprint()[:8]}"
    result = train(recipe, dataset, work=work)
    assert result is not None, "run in one process"
    return result.denoiser


def spread_rows(dataset: Dataset, count: int) -> Rows:
    """Test canvases from the whole split, evenly."""
    rows = split_rows(dataset, "test")
    return rows.at(torch.linspace(0, len(rows) - 1, min(count, len(rows))).long())


def cost(nets: dict[str, Network], way: tuple[str, str], rows: Rows, likeliest: Sequence[int]) -> Tensor:
    """Nats a row, [N]."""
    net, L = nets[way[0]], rows.x.shape[1]
    if way[1] == "law":
        return nelbo(net, rows, net.order_head.global_log_w().detach(), seed=SEED)
    if way[1] == "random":
        return nelbo(net, rows, torch.zeros(L), seed=SEED)
    return -log_likelihood(net, rows, likeliest if way[1] == "likeliest" else range(L))


def prompts(nets: dict[str, Network], kind: str, dataset: Dataset, rows: Rows) -> Fields:
    """Bits a hidden character, under each net's own law given what is known."""
    known = prompt_masks(rows.x.shape[1])[kind].expand(rows.x.shape)
    hidden = (characters(dataset, rows.x) * ~known).sum(1)
    laws = {label: net.order_head.global_log_w().detach() for label, net in nets.items()}
    costs = {label: nelbo(nets[label], rows, log_w, seed=SEED, known=known) for label, log_w in laws.items()}
    return {label: _per_character(nats / math.log(2), hidden) for label, nats in costs.items()}


def made(net: Network, order: OrderPolicy, dataset: Dataset, judge: Judge, task: Fields) -> Fields:
    """What is written at each number of positions a step."""
    found = {}
    for positions in task["strides"]:
        params = SamplingParams(order=order, tokens_per_step=positions)
        written = write(net, dataset, task["samples"], params=params, seed=SEED + task["seed"])
        found[str(positions)] = judge(written)
    return found


def write(net: Network, dataset: Dataset, count: int, *, params: SamplingParams, seed: int) -> list[str]:
    """Texts from nothing, by the service's own step."""
    L = dataset.train.shape[1]
    starts = [Canvas.start((0,) * L, (True,) * L, seed=derive_seed(seed, 0, i), params=params) for i in range(count)]
    rows = [list(canvas.tokens) for canvas in starts]
    for index, canvas, _ in decode(net, starts):
        rows[index] = list(canvas.tokens)
    return _texts(dataset, rows)


def characters(dataset: Dataset, x: Tensor) -> Tensor:
    """How many characters each token is, [N, L] float64."""
    (V,) = dataset.tokenizer.vocabulary_sizes
    return torch.tensor([len(dataset.tokenizer.token(0, i)) for i in range(V)], dtype=torch.float64)[x]


def _texts(dataset: Dataset, rows: Sequence[Sequence[int]]) -> list[str]:
    return ["".join(dataset.tokenizer.token(0, int(i)) for i in row) for row in rows]


def _bits(dataset: Dataset, rows: Rows, nats: Tensor) -> Fields:
    return _per_character(nats / math.log(2), characters(dataset, rows.x).sum(1))


def _per_character(bits: Tensor, lengths: Tensor) -> Fields:
    """Bits of all rows over characters of all rows, [N] each, with the standard error of that ratio."""
    ratio = bits.sum() / lengths.sum()
    error = (bits - ratio * lengths).std() / len(bits) ** 0.5 / lengths.mean()
    return {"bits": float(ratio), "standard_error": float(error)}


def _correlation(order: Sequence[int]) -> float:
    """Spearman's, between a position's place in the text and in the order: 1 is left to right, -1 right to left."""
    steps = torch.empty(len(order))
    steps[list(order)] = torch.arange(len(order)).float()
    return float(torch.corrcoef(torch.stack([steps, torch.arange(len(order)).float()]))[0, 1])


def _published(file: str | None) -> Fields:
    """Bits a character of others on this very text."""
    sha256 = "" if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return {name: nats / math.log(2) for name, nats in PUBLISHED.get(sha256, {}).items()}


def summary(results: Sequence[Fields]) -> Fields:
    """Means over seeds with intervals, of each way and of the learned order minus each rival."""

    def over(*path: str) -> Any:
        return interval([_at(result, path) for result in results])

    first = results[0]
    return {
        "seeds": list(results),
        "ways": {label: over("ways", label, "bits") for label in WAYS},
        "learned_minus": {rival: over("learned_minus", rival, "bits") for rival in RIVALS},
        "n_gram": over("n_gram", "bits"),
        "prompts": {kind: {arm: over("prompts", kind, arm, "bits") for arm in KINDS} for kind in first["prompts"]},
        "made": {
            label: {
                stride: {name: over("made", label, stride, name) for name in values} for stride, values in found.items()
            }
            for label, found in first["made"].items()
        },
        "real": first["real"],
        "rank_correlation": over("rank_correlation"),
        "published": first["published"],
    }


def _at(result: Fields, path: Sequence[str]) -> float:
    found: Any = result
    for part in path:
        found = found[part]
    return float(found)


def as_text(report: Fields) -> str:
    """The same for a reader."""
    first = report["seeds"][0]
    lines = [f"{first['parameters']['uniform']:,} parameters, {first['row_forwards']['uniform']:,} row-forwards an arm"]
    lines += ["", f"{'bits per character':<34}{first['rows']} test canvases of {first['length']} tokens"]
    lines += [f"{label:<34}{with_interval(value, '.3f')}" for label, value in report["ways"].items()]
    lines += [f"{'n-gram, left to right':<34}{with_interval(report['n_gram'], '.3f')}"]
    lines += [f"{name}: {bits:.3f} (published)" for name, bits in report["published"].items()]
    lines += ["", "learned minus; paired standard errors over the rows of each seed"]
    for rival, value in report["learned_minus"].items():
        errors = ", ".join(f"{seed['learned_minus'][rival]['standard_error']:.3f}" for seed in report["seeds"])
        lines.append(f"  {rival:<32}{with_interval(value, '.3f')} ± {errors}")
    lines += ["", f"learned order and place in the text, Spearman: {with_interval(report['rank_correlation'], '.3f')}"]
    lines += ["", "bits a hidden character, own law" + "".join(f"{arm:>28}" for arm in KINDS)]
    for kind, arms in report["prompts"].items():
        lines.append(f"  {kind:<30}" + "".join(f"{with_interval(arms[arm], '.3f'):>28}" for arm in KINDS))
    lines += ["", "written: positions a step, n-gram bits, known words, different words"]
    lines.append(f"  {'test canvases':<30}" + _judged(report["real"]))
    for label, found in report["made"].items():
        for stride, values in found.items():
            lines.append(f"  {label:<26}{stride:>4}" + _judged({name: v["mean"] for name, v in values.items()}))
    return "\n".join(lines)


def artifact_as_text(report: Fields) -> str:
    """The same of one model."""
    lines = [f"{report['parameters']:,} parameters, {report['rows']} test canvases: bits a character"]
    costs = {**report["ways"], "n-gram, left to right": report["n_gram"]}
    costs |= {f"hidden, {kind} known": found for kind, found in report["prompts"].items()}
    lines += [f"{label:<34}{found['bits']:.3f} ± {found['standard_error']:.3f}" for label, found in costs.items()]
    lines += ["written: positions a step, n-gram bits, known words, different words"]
    lines.append(f"  {'test canvases':<30}" + _judged(report["real"]))
    for order, found in report["made"].items():
        lines += [f"  {order:<26}{stride:>4}" + _judged(values) for stride, values in found.items()]
    return "\n".join(lines)


def _judged(values: Fields) -> str:
    return f"{values['bits']:10.3f}{values['known_words']:10.3f}{values['different_words']:10.3f}"


if __name__ == "__main__":
    main()
