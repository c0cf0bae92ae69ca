"""Does a learned order help on Adult? The arms `global`, `uniform` and `fixed` at equal forwards, on the same rows.

    python -m benchmarks.adult [--quick] [--seeds N] [--json] [--work DIR]

For each seed the arms are trained by the same recipe (training/recipes/adult.toml), or taken from DIR if they are
there already, and scored on the test split with common random numbers. Differences are paired, row by row: negative
means that the learned order is better. Nothing is chosen on the test split.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.orders import deterministic_order, order_entropy
from model.transformer import Transformer
from training.config import Recipe, load_recipe
from training.data.dataset import Dataset
from training.data.load import load_dataset
from training.evaluate import Estimate, Rows, as_rows, known_sets, log_likelihood, nelbo
from training.trainer import train
from unveil.training_commands import cache_folder

RECIPE = Path(__file__).parent.parent / "training" / "recipes" / "adult.toml"
QUICK = ("optimizer.steps=60", "optimizer.warmup_steps=10", "run.validate_every=60", "run.validate_rows=64")
SEED = 1994  # of the evaluation's orders and known sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a minute: 60 steps, 256 test rows; the figures mean nothing"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="where runs are kept, and resumed from")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    overrides = QUICK if arguments.quick else ()
    recipe = load_recipe(RECIPE, overrides=(*overrides, f"run.threads={arguments.threads}"))
    dataset = load_dataset(recipe.data, cache=cache_folder())
    limit = 256 if arguments.quick else None
    results = [compare(recipe, dataset, seed=seed, work=arguments.work, limit=limit) for seed in range(arguments.seeds)]
    report = {"recipe": RECIPE.name, "overrides": overrides, "torch": torch.__version__, "seeds": results}
    print(json.dumps(report, indent=2) if arguments.json else as_text(results))


def compare(recipe: Recipe, dataset: Dataset, *, seed: int, work: Path, limit: int | None) -> dict[str, Any]:
    """Trains the arms with one seed, scores them on the same test rows; nats a row, `conditional` a hidden column."""
    learned, uniform, fixed = (
        _arm(recipe, dataset, kind=kind, seed=seed, work=work) for kind in ("global", "uniform", "fixed")
    )
    rows = as_rows(dataset.test, limit=limit)
    log_w = learned.order_head.global_log_w().detach()
    order = deterministic_order(log_w).tolist()
    values = score(learned, uniform, fixed, rows, log_w, order)
    own = values["uniform arm, random orders (NELBO)"]
    conditional = {"global": conditional_losses(learned, rows), "uniform": conditional_losses(uniform, rows)}
    return {
        "seed": seed,
        "rows": len(rows),
        "order": [dataset.names[i] for i in order],
        "order_entropy": float(order_entropy(log_w)),
        "nats": {name: asdict(Estimate.of(value)) for name, value in values.items()},
        "minus_uniform": {name: asdict(Estimate.of(v - own)) for name, v in values.items() if v is not own},
        "conditional": {name: asdict(Estimate.of(value)) for name, value in conditional.items()},
        "conditional_minus_uniform": asdict(Estimate.of(conditional["global"] - conditional["uniform"])),
    }


def score(
    learned: Transformer, uniform: Transformer, fixed: Transformer, rows: Rows, log_w: Tensor, order: list[int]
) -> dict[str, Tensor]:
    """Each row's loss for each arm under its own law, and for every control."""
    zero = torch.zeros_like(log_w)
    left_to_right = sorted(order)
    return {
        "uniform arm, random orders (NELBO)": nelbo(uniform, rows, zero, seed=SEED),
        "global arm, learned law (NELBO)": nelbo(learned, rows, log_w, seed=SEED),
        "global arm, its likeliest order (exact)": -log_likelihood(learned, rows, order),
        "global arm, that order reversed (exact)": -log_likelihood(learned, rows, order[::-1]),
        "global arm, random orders (NELBO)": nelbo(learned, rows, zero, seed=SEED),
        "uniform arm, the learned order (exact)": -log_likelihood(uniform, rows, order),
        "uniform arm, left to right (exact)": -log_likelihood(uniform, rows, left_to_right),
        "fixed arm, left to right (exact)": -log_likelihood(fixed, rows, left_to_right),
    }


def conditional_losses(arm: Transformer, rows: Rows) -> Tensor:
    """Each row's NELBO given a random known set, under uniform orders, a hidden column."""
    known = known_sets(rows, seed=SEED)
    zero = torch.zeros(rows.x.shape[1])
    return nelbo(arm, rows, zero, seed=SEED, known=known) / (~known).sum(-1)


def as_text(results: list[dict[str, Any]]) -> str:
    """The same for a reader."""
    lines = []
    for result in results:
        lines += [f"seed {result['seed']}, {result['rows']:,} test rows, nats a row ± one standard error"]
        for name, value in result["nats"].items():
            difference = result["minus_uniform"].get(name)
            paired = "" if difference is None else f"   paired {_signed(difference)}"
            lines.append(f"  {name:<42} {value['mean']:8.4f} ± {value['standard_error']:.4f}{paired}")
        lines.append(
            f"  nats a hidden column with random prompts, paired {_signed(result['conditional_minus_uniform'])}"
        )
        lines.append(f"  order (entropy {result['order_entropy']:.3f}): {', '.join(result['order'])}")
    return "\n".join(lines)


def _signed(value: dict[str, float]) -> str:
    return f"{value['mean']:+.4f} ± {value['standard_error']:.4f}"


def _arm(recipe: Recipe, dataset: Dataset, *, kind: str, seed: int, work: Path) -> Transformer:
    fields = recipe.model_dump(mode="json")
    fields["seed"], fields["order"]["kind"] = seed, kind
    if kind == "fixed":  # left to right from the first step on, as an autoregressive model is trained
        left_to_right = list(range(dataset.train.shape[1]))
        fields["order"] |= {"fixed": left_to_right, "warmup": 0.0, "anneal": 0.0, "exploration": 0.0}
    trained = train(Recipe.model_validate(fields), dataset, work=work / f"adult-{kind}-{seed}.run")
    assert trained is not None, "run in one process"
    return trained.denoiser


if __name__ == "__main__":
    main()
