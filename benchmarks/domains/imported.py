"""Does a model that others trained write better in an order learnt for it? rxnmapper's ALBERT fills in molecules.

    python -m benchmarks imported [--quick] [--seeds N] [--first-seed N] [--molecules N] [--temperature T]... [--json]
      [--work DIR] [--jobs N]

The model is imported as `unveil import --tokenizer smiles` does it and stays as it is; an order is learnt for it on
molecules of MOSES's training file, as `unveil train --lines FILE --freeze-denoiser ARTIFACT` does it. Then half of the
tokens of molecules of MOSES's test file are hidden at random and filled in again, one a step, in the learned order
(always its likeliest next position), by confidence, by margin and in random orders: the same weights, the same holes
and the same seeds, with tokens drawn (temperature 1) and with the likeliest ones (temperature 0). Counted are the texts
that RDKit takes for a molecule, and the tokens that come back as they were. Every seed trains an order of its own on
molecules of its own, and is tested on molecules of its own.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.domains.problems.molecules import require_rdkit
from unveil.benchmarks.domains.problems.rxnmapper import moses, rxnmapper
from unveil.commands.training import cache_folder
from unveil.importers.convert import Wishes, import_folder
from unveil.model.along.serving import decode
from unveil.model.artifact.folder import load_artifact
from unveil.model.artifact.manifest import CONFIG
from unveil.model.decoding.canvas import Canvas, OrderPolicy, SamplingParams
from unveil.model.decoding.seeds import derive_seed
from unveil.model.errors import ArtifactError, UnveilError
from unveil.model.network.base import Network
from unveil.model.tokenizers.base import Tokenizer
from unveil.training.config import Recipe, settle
from unveil.training.data.load import load_dataset
from unveil.training.evaluation.chemistry import canonical
from unveil.training.trainer import train

LENGTH = 54  # tokens of the longest molecule in MOSES
HIDDEN_SHARE = 0.5
ORDER: Fields = {"method": "next_cost", "stride": 4}
SIZES: Fields = {"train": 2000, "test": 200, "steps": 80, "batch_size": 16}
QUICK: Fields = {"train": 60, "test": 6, "steps": 2, "batch_size": 4}
POLICIES: dict[str, OrderPolicy] = {
    "learned": "learned",
    "confidence": "confidence",
    "margin": "margin",
    "random": "uniform",
}
TEMPERATURES = (1.0, 0.0)
BATCH = 100  # canvases of one forward


def main() -> None:
    parser = arguments(__doc__, work="runs/imported", seeds=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--molecules", type=int, help=f"test molecules a seed; default {SIZES['test']}, quick {QUICK['test']}"
    )
    parser.add_argument("--temperature", type=float, action="append", help="repeatable; 1 and 0 by default")
    given = parser.parse_args()
    sizes = QUICK if given.quick else SIZES
    if given.molecules is not None and given.molecules < 1:
        parser.error(f"--molecules: takes 1 or more, not {given.molecules}")
    if given.first_seed < 0:
        parser.error(f"--first-seed: takes 0 or more, not {given.first_seed}")
    if not all(0 <= temperature < float("inf") for temperature in given.temperature or ()):
        parser.error("--temperature: takes numbers from 0 on")
    sizes = sizes | {"test": given.molecules or sizes["test"], "temperatures": given.temperature or TEMPERATURES}
    common = {"problem": "moses", "arm": "order", "order": ORDER, **sizes, "work": str(given.work)}
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    require_rdkit()
    try:
        import_once(given.work)
        report = summary(
            run_all(measure, [{**common, "seed": seed} for seed in seeds], folder=given.work, jobs=given.jobs)
        )
    except (ArtifactError, UnveilError) as error:
        raise SystemExit(f"error: {error}") from None
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def import_once(work: Path) -> Path:
    """The artifact of the model, imported where it is not there yet."""
    folder = work / "rxnmapper"
    if not (folder / CONFIG).is_file():
        import_folder(rxnmapper(cache_folder()), folder, Wishes(length=LENGTH, tokenizer="smiles", license="MIT"))
    return folder


def measure(task: Fields) -> Fields:
    """Learns an order and fills in molecules, in that order and in the others."""
    torch.set_num_threads(1)
    folder = import_once(Path(task["work"]))
    net = learn_order(folder, task)
    tokenizer = load_artifact(folder).tokenizer
    texts = moses("test", task["test"], seed=task["seed"], cache=cache_folder())
    rows, holes = with_holes(texts, tokenizer, seed=task["seed"])
    found = {
        f"{temperature:g}": {
            name: filled(net, tokenizer, rows, holes, policy=policy, temperature=temperature, seed=task["seed"])
            for name, policy in POLICIES.items()
        }
        for temperature in task["temperatures"]
    }
    return {"seed": task["seed"], "molecules": len(rows), "temperatures": found}


def learn_order(folder: Path, task: Fields) -> Network:
    """The imported model with an order of its own, learnt on molecules of the training file."""
    lines = folder.parent / f"moses-{task['seed']}-{task['train']}.smi"
    lines.write_text("\n".join(moses("train", task["train"], seed=task["seed"], cache=cache_folder())) + "\n")
    fields: dict[str, Any] = {
        "name": f"order-{task['seed']}-{task['steps']}",
        "seed": task["seed"],
        "data": {"kind": "lines", "files": [str(lines)], "length": LENGTH},
        "order": task["order"],
        "prompts": {"share": 1.0},  # molecules are filled in, never written from nothing
        "start": {"artifact": str(folder), "freeze_denoiser": True},
        "optimizer": {
            "steps": task["steps"],
            "batch_size": task["batch_size"],
            "warmup_steps": 10,
            "ema_decay": 0.95,
        },
        "run": {
            "precision": "32-true",
            "accelerator": "cpu",
            "threads": 1,
            "validate_every": 10**6,
            "validate_rows": 8,
        },
    }
    recipe = Recipe.of(fields)
    dataset = load_dataset(recipe.data, cache=cache_folder(), tokenizer=load_artifact(folder).tokenizer)
    trained = train(settle(recipe, num_rows=len(dataset.train)), dataset, work=folder.parent / "runs" / recipe.name)
    assert trained is not None, "run in one process"
    return trained.denoiser


def with_holes(
    texts: Sequence[str], tokenizer: Tokenizer, *, seed: int
) -> tuple[list[tuple[int, ...]], list[tuple[bool, ...]]]:
    """The ids of each text, and the half of them that is hidden."""
    draws = np.random.default_rng([seed, 1])
    rows = [tokenizer.encode(text, append=False).tokens for text in texts]
    holes = []
    for row in rows:
        hidden = set(draws.permutation(len(row))[: round(HIDDEN_SHARE * len(row))].tolist())
        holes.append(tuple(i in hidden for i in range(len(row))))
    return rows, holes


def filled(
    net: Network,
    tokenizer: Tokenizer,
    rows: Sequence[tuple[int, ...]],
    holes: Sequence[tuple[bool, ...]],
    *,
    policy: OrderPolicy,
    temperature: float,
    seed: int,
) -> Fields:
    """The share of texts that are molecules once their holes are filled, and of hidden tokens that are as they were."""
    params = SamplingParams(
        order=policy, order_temperature=0.0 if policy == "learned" else 1.0, temperature=temperature
    )
    canvases = [
        Canvas.start(row, hidden, seed=derive_seed(seed, 0, i), params=params)
        for i, (row, hidden) in enumerate(zip(rows, holes, strict=True))
    ]
    finished = [canvas.tokens for canvas, _ in decode(net, canvases, end_id=tokenizer.end_id, max_batch=BATCH)]
    texts = [tokenizer.output([tokenizer.value(i, t, 0.5) for i, t in enumerate(ids)])[1] for ids in finished]
    right = [
        a == b
        for ids, row, hidden in zip(finished, rows, holes, strict=True)
        for a, b, h in zip(ids, row, hidden, strict=True)
        if h
    ]
    return {
        "valid": float(np.mean([canonical(text) is not None for text in texts])),
        "recovered": float(np.mean(right)),
    }


def summary(results: Sequence[Fields]) -> Fields:
    """Every order over seeds, and what the learned one gains over each of the others, paired by seed."""
    report: Fields = {"molecules_a_seed": results[0]["molecules"], "seeds": list(results), "temperatures": {}}
    for temperature in results[0]["temperatures"]:
        found = [result["temperatures"][temperature] for result in results]
        report["temperatures"][temperature] = {
            figure: {
                "orders": {name: interval([run[name][figure] for run in found]) for name in POLICIES},
                "gained": {
                    name: interval([run["learned"][figure] - run[name][figure] for run in found])
                    for name in POLICIES
                    if name != "learned"
                },
            }
            for figure in ("valid", "recovered")
        }
    return {**report, "order": ORDER, "torch": torch.__version__}


def as_text(report: Fields) -> str:
    """The same for a reader: a Markdown table a temperature."""
    parts = []
    for temperature, metrics in report["temperatures"].items():
        lines = [f"| temperature {temperature} | valid | learned gains | recovered | learned gains |", "|---" * 5 + "|"]
        for name in POLICIES:
            cells = [
                shown
                for figure in metrics.values()
                for shown in (_shown(figure["orders"][name]), _gain(figure["gained"], name))
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _gain(gained: Mapping[str, Fields], name: str) -> str:
    return _shown(gained[name], sign="+") if name in gained else ""


def _shown(found: Fields, *, sign: str = "") -> str:
    return with_interval(found, f"{sign}.3f")


if __name__ == "__main__":
    main()
