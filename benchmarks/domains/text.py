"""English: what an order of decoding does for it, and how far masked models are from the usual models of text.

    python -m benchmarks text [--quick] [--seeds N] [--json] [--work DIR] [--jobs N] [--masked]
        [--rows N] [--samples N] [--artifact DIR]

The text is the King James Version with whole books held out (`training/data/text/kjv.py`). For each seed three networks
have equally many forwards: `global`, whose order is learned; `fixed`, left to right with the same warm-up, share of
uniform rows and prompts; `uniform` orders. The report says whether the learned order came to be a reading order.
Recipe: `training/recipes/text.toml` with a smaller network and fewer steps (REDUCED), for several seeds. The networks
of both orders have late queries, and train all steps of an order; the uniform one is a masked network of as many layers
(`benchmarks/common/arms.py`). With `--masked` all three are, with a schedule that suits them.

Two rivals are no masked models. A causal transformer of the same width, layers and tokens is trained for as much CPU
time as the learned arm took, with Muon too (`benchmarks/domains/problems/text/causal.py`); its learning rate and batch
size are tuned on validation canvases, in time of its own. N-gram models of characters and of tokens are counted on the
whole training text, with order and smoothing tuned on validation canvases
(`benchmarks/domains/problems/text/ngram.py`).

Figures are bits a character over evenly spaced test canvases, each read by itself by all models: a NELBO for a law that
is drawn, the exact log-likelihood for one order. Prompts know the first half of a canvas, the second, or all but four
holes; what is hidden is scored under each network's own law. Texts made at so many positions a step are judged by the
n-gram model of characters (low is easy to predict, not good by itself), by the share of their words that the training
text has, and by the share of their words that are different ones. `repeated_share` is the share of the test canvases'
stretches of 40 characters that the training text has word for word.

Intervals are Student's over seeds, 95 %; with each seed stands the standard error over rows. Results are kept in DIR,
and found again: remove DIR after a change to the method. With `--artifact` nothing is trained: that one model is asked
the same, on the data it was trained on.
"""

import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from unveil import training
from unveil.benchmarks.common.arms import KINDS, arm_of
from unveil.benchmarks.common.runs import Fields, arguments, run_all, write_whole
from unveil.benchmarks.domains.problems.text.judge import Judge, prompt_masks, repeated_share
from unveil.benchmarks.domains.problems.text.report import artifact_as_text, as_text, summary
from unveil.benchmarks.domains.problems.text.rivals import (
    CAUSAL,
    CHARACTERS,
    TOKENS,
    as_texts,
    bits_per_character,
    causal_rival,
    make_judge,
    n_gram_rivals,
    num_characters,
    training_text,
)
from unveil.commands.training import cache_folder
from unveil.model.along.serving import decode
from unveil.model.artifact.folder import load_artifact
from unveil.model.decoding.canvas import Canvas, OrderPolicy, SamplingParams
from unveil.model.decoding.seeds import derive_seed
from unveil.model.network.base import Network
from unveil.model.order.plackett_luce import deterministic_order
from unveil.training.config import Recipe, data_of, load_recipe
from unveil.training.data.config import KjvData
from unveil.training.data.dataset import Dataset
from unveil.training.data.load import load_dataset
from unveil.training.data.rows import Rows, split_rows
from unveil.training.evaluation.likelihood import log_likelihood, nelbo
from unveil.training.run.checkpoint import find_checkpoint
from unveil.training.trainer import row_forwards, train

RECIPE = Path(training.__file__ or "").parent / "recipes" / "text.toml"
REDUCED = [
    "model.width=96",
    "model.layers=2",
    "model.heads=4",
    "model.mlp_width=256",
    "model.dropout=0.0",
    "optimizer.steps=1400",
    "run={threads = 1}",
    "advanced.model.query_layers=1",
    "advanced.run={validate_every = 100000, validate_rows = 64, checkpoint_every = 100}",
]
# What is best without late queries: long uniform orders, which train every hidden position.
MASKED = [
    "model.layers=3",
    "optimizer={steps = 700, batch_size = 64}",
    "order.learning_rate=0.3",
    "prompts.share=0.3",
    "advanced.model.query_layers=0",
    "advanced.order={warmup = 0.45, anneal = 0.1, exploration = 0.2, reading = 0.0, spread = 0.5}",
    "advanced.prompts={first_share = 0.3, spans = 0.5}",
]
QUICK = [
    "data={kind = 'kjv', length = 16}",
    "model={width = 16, layers = 1, heads = 2, mlp_width = 32}",
    "optimizer={steps = 6, batch_size = 8}",
    "run={threads = 1, precision = '32-true'}",
    "advanced={data = {stride = 4}, optimizer = {warmup_steps = 2}, run = {validate_rows = 2}}",
]
SEED = 20_516
CHARACTER_ORDERS, TOKEN_ORDERS = (6, 8, 10, 12), (3, 4, 5, 6, 7, 8, 10, 12)
WAYS: dict[str, tuple[str, str]] = {  # label -> the network and the order along which it is scored
    "learned": ("global", "law"),
    "learned network, left to right": ("global", "left to right"),
    "learned network, random orders": ("global", "random"),
    "uniform": ("uniform", "random"),
    "uniform network, learned order": ("uniform", "likeliest"),
    "uniform network, left to right": ("uniform", "left to right"),
    "left to right": ("fixed", "left to right"),
}
RIVALS = (
    "uniform",
    "uniform network, learned order",
    "uniform network, left to right",
    "left to right",
    CAUSAL,
    CHARACTERS,
    TOKENS,
)
OF_ONE: dict[str, str] = {  # the same for one model
    "own law": "law",
    "likeliest order": "likeliest",
    "left to right": "left to right",
    "random orders": "random",
}
MADE: dict[str, tuple[str, OrderPolicy]] = {  # label -> the network and the order along which it writes
    "learned": ("global", "learned"),
    "uniform": ("uniform", "uniform"),
    "uniform, confidence": ("uniform", "confidence"),
    "left to right": ("fixed", "left_to_right"),
}


def main() -> None:
    parser = arguments(__doc__, work="runs/text-benchmark", seeds=3)
    parser.add_argument("--rows", type=int, help="test canvases, evenly spaced; 128 where left out")
    parser.add_argument("--samples", type=int, help="texts from each network, order and number of positions a step; 32")
    parser.add_argument("--artifact", type=Path, help="judge this model alone")
    parser.add_argument("--masked", action="store_true", help="masked networks alone, for all orders")
    given = parser.parse_args()
    task = {
        "problem": "text",
        "overrides": _overrides(is_quick=given.quick, is_masked=given.masked),
        "rows": given.rows or (4 if given.quick else 128),
        "samples": given.samples or (3 if given.quick else 32),
        "strides": [1, 4] if given.quick else [1, 2, 4, 8],
        "character_orders": [2, 3] if given.quick else list(CHARACTER_ORDERS),
        "token_orders": [1, 2] if given.quick else list(TOKEN_ORDERS),
        "runs": str(given.work / "runs"),
    }
    if given.artifact is not None:
        for name in ("masked", "seeds", "jobs", "work"):
            if getattr(given, name) != parser.get_default(name):
                parser.error(f"--{name}: goes without --artifact")
        one = measure_artifact({**task, "artifact": str(given.artifact), "seed": 0})
        print(json.dumps(one, indent=2) if given.json else artifact_as_text(one))
        return
    tasks = [{**task, "seed": seed} for seed in range(given.seeds)]
    report = summary(run_all(measure, tasks, folder=given.work, jobs=given.jobs))
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def _overrides(*, is_quick: bool, is_masked: bool) -> list[str]:
    """What this run changes in the recipe."""
    masked = MASKED if is_masked else []
    return [*REDUCED, *masked, *QUICK] if is_quick else [*REDUCED, *masked]


def measure(task: Fields) -> Fields:
    """All arms and rivals of one seed."""
    recipes = {kind: arm_recipe(task, kind) for kind in KINDS}
    recipe, data = recipes["global"], recipes["global"].data
    assert isinstance(data, KjvData)
    dataset = _loaded(data.model_dump_json())
    runs = {kind: trained(arm, dataset, task) for kind, arm in recipes.items()}
    nets, seconds = {kind: run[0] for kind, run in runs.items()}, {kind: run[1] for kind, run in runs.items()}
    rows = split_rows(dataset, "test", limit=task["rows"])
    judge = make_judge(dataset, data=data, orders=task["character_orders"])
    likeliest = _likeliest(nets["global"])
    costs = scored(nets, WAYS, rows, likeliest)
    causal, by_token = causal_rival(recipe, dataset, rows, seconds=seconds["global"])
    n_grams = n_gram_rivals(dataset, rows, judge, data=data, token_orders=task["token_orders"])
    costs |= {CAUSAL: causal.nats, **{label: rival.nats for label, rival in n_grams.items()}}
    found = {kind: prompts(nets, kind, dataset, rows) for kind in prompt_masks(rows.x.shape[1])}
    is_asked = ~prompt_masks(rows.x.shape[1])["prefix"]
    asked = (num_characters(dataset, rows.x) * is_asked).sum(1)
    found["prefix"]["causal"] = bits_per_character((by_token * is_asked).sum(1), asked)
    return {
        "seed": task["seed"],
        "ways": {label: _bits(dataset, rows, nats) for label, nats in costs.items()},
        "learned_minus": {rival: _bits(dataset, rows, costs["learned"] - costs[rival]) for rival in RIVALS},
        "order": taken(likeliest),
        "causal": causal.about,
        "n_grams": {label: rival.about for label, rival in n_grams.items()},
        "prompts": found,
        "made": {label: made(nets[kind], order, dataset, judge, task) for label, (kind, order) in MADE.items()},
        "real": judge(as_texts(dataset, rows.x.tolist())),
        "rank_correlation": _correlation(likeliest),
        "row_forwards": {kind: row_forwards(arm, arm.optimizer.num_steps) for kind, arm in recipes.items()},
        "cpu_seconds": seconds,
        "parameters": {kind: net.num_parameters for kind, net in nets.items()},
        **_split(dataset, rows, data),
    }


def measure_artifact(task: Fields) -> Fields:
    """One trained model and the n-gram models, on test canvases of the data it was trained on."""
    artifact = load_artifact(Path(task["artifact"]))
    recipe = artifact.manifest.training.get("recipe", {})
    if recipe.get("data", {}).get("kind") != "kjv":
        raise SystemExit(f"error: {task['artifact']}: not a model of the King James Version")
    data = data_of(recipe)
    assert isinstance(data, KjvData)
    dataset = _loaded(data.model_dump_json())
    if dataset.fingerprint != artifact.manifest.training["data_sha256"]:
        raise SystemExit(f"error: {task['artifact']}: trained on other data (other splits, or other tokens)")
    nets, rows = {"artifact": artifact.denoiser}, split_rows(dataset, "test", limit=task["rows"])
    judge = make_judge(dataset, data=data, orders=task["character_orders"])
    likeliest = _likeliest(artifact.denoiser)
    costs = scored(nets, {label: ("artifact", way) for label, way in OF_ONE.items()}, rows, likeliest)
    n_grams = n_gram_rivals(dataset, rows, judge, data=data, token_orders=task["token_orders"])
    own = costs["own law"]
    return {
        "ways": {label: _bits(dataset, rows, nats) for label, nats in costs.items()},
        "rivals": {label: _bits(dataset, rows, rival.nats) for label, rival in n_grams.items()},
        "own_law_minus": {label: _bits(dataset, rows, own - rival.nats) for label, rival in n_grams.items()},
        "n_grams": {label: rival.about for label, rival in n_grams.items()},
        "order": taken(likeliest),
        "prompts": {kind: prompts(nets, kind, dataset, rows)["artifact"] for kind in prompt_masks(rows.x.shape[1])},
        "made": {
            order: made(artifact.denoiser, order, dataset, judge, task)
            for order in ("learned", "confidence", "uniform")
        },
        "real": judge(as_texts(dataset, rows.x.tolist())),
        "parameters": artifact.denoiser.num_parameters,
        "sha256": artifact.manifest.weights_sha256,
        **_split(dataset, rows, data),
    }


def _likeliest(net: Network) -> list[int]:
    """The likeliest order of a network's law."""
    return deterministic_order(net.order_head.global_log_w().detach()).tolist()


def _split(dataset: Dataset, rows: Rows, data: KjvData) -> Fields:
    """What is scored, and how much of all test canvases is repeated from the training text."""
    train_texts = as_texts(dataset, [text.tolist() for text in training_text(dataset, data)])
    repeated = repeated_share(as_texts(dataset, dataset.test.tolist()), of=train_texts)
    return {"length": rows.x.shape[1], "rows": len(rows), "test_rows": len(dataset.test), "repeated_share": repeated}


def arm_recipe(task: Fields, kind: str) -> Recipe:
    """The recipe with another order and another seed."""
    recipe = load_recipe(RECIPE, overrides=[*task["overrides"], f"seed={task['seed']}"])
    return arm_of(recipe, kind)


@cache
def _loaded(data: str) -> Dataset:
    return load_dataset(KjvData.model_validate_json(data), cache=cache_folder())


def trained(recipe: Recipe, dataset: Dataset, task: Fields) -> tuple[Network, float]:
    """One arm and the CPU seconds that its training takes, of all its threads. A killed one goes on; its seconds are
    then those of the steps that were done here, as of all steps."""
    work = Path(task["runs"]) / f"{recipe.name}-{recipe.seed}-{recipe.fingerprint()[:8]}"
    kept, checkpoint = work / "cpu_seconds.json", find_checkpoint(work / "checkpoints")
    done = 0 if checkpoint is None else checkpoint.step
    start, total = time.process_time(), recipe.optimizer.num_steps
    result = train(recipe, dataset, work=work)
    assert result is not None, "run in one process"
    if not kept.exists():
        if done == total:
            raise SystemExit(f"error: {work}: was killed before its seconds were kept; remove it")
        seconds = (time.process_time() - start) * total / (total - done)
        write_whole(kept, seconds)
    return result.denoiser, float(json.loads(kept.read_text(encoding="utf-8")))


def scored(
    nets: Mapping[str, Network], ways: Mapping[str, tuple[str, str]], rows: Rows, likeliest: Sequence[int]
) -> dict[str, Tensor]:
    """Nats a row for each way, [N] each; an order with two names is walked once."""
    L, costs, walked = rows.x.shape[1], {}, {}
    for label, (kind, name) in ways.items():
        way = "left to right" if name == "likeliest" and list(likeliest) == list(range(L)) else name
        if (kind, way) not in walked:
            walked[kind, way] = cost(nets[kind], way, rows, likeliest)
        costs[label] = walked[kind, way]
    return costs


def cost(net: Network, way: str, rows: Rows, likeliest: Sequence[int]) -> Tensor:
    """Nats a row, [N]."""
    L = rows.x.shape[1]
    if way == "law":
        return nelbo(net, rows, net.order_head.global_log_w().detach(), seed=SEED)
    if way == "random":
        return nelbo(net, rows, torch.zeros(L), seed=SEED)
    return -log_likelihood(net, rows, likeliest if way == "likeliest" else range(L))


def prompts(nets: Mapping[str, Network], kind: str, dataset: Dataset, rows: Rows) -> Fields:
    """Bits a hidden character, under each network's own law given what is known."""
    known = prompt_masks(rows.x.shape[1])[kind].expand(rows.x.shape)
    hidden = (num_characters(dataset, rows.x) * ~known).sum(1)
    laws = {label: net.order_head.global_log_w().detach() for label, net in nets.items()}
    costs = {label: nelbo(nets[label], rows, log_w, seed=SEED, known=known) for label, log_w in laws.items()}
    return {label: bits_per_character(nats, hidden) for label, nats in costs.items()}


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
    return as_texts(dataset, [list(canvas.tokens) for canvas, _ in decode(net, starts, end_id=None)])


def _bits(dataset: Dataset, rows: Rows, nats: Tensor) -> Fields:
    return bits_per_character(nats, num_characters(dataset, rows.x).sum(1))


def taken(order: Sequence[int]) -> str:
    """What the likeliest order of a law is called."""
    forwards = list(range(len(order)))
    names = {tuple(forwards): "left to right", tuple(reversed(forwards)): "right to left"}
    return names.get(tuple(order), "an order of its own")


def _correlation(order: Sequence[int]) -> float:
    """Spearman's, between a position's place in the text and in the order: 1 is left to right, -1 right to left."""
    steps = torch.empty(len(order))
    steps[list(order)] = torch.arange(len(order)).float()
    return float(torch.corrcoef(torch.stack([steps, torch.arange(len(order)).float()]))[0, 1])


if __name__ == "__main__":
    main()
