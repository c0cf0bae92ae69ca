"""Can a classifier tell generated rows of a table from real ones? C2ST, usefulness, Shape and Trend.

    python -m benchmarks detection --artifact checkpoints/adult --target income --json
    python -m benchmarks detection --recipe training/recipes/adult.toml --target income --seeds 5
    python -m benchmarks detection --table shoppers.csv --categorical Browser --target Revenue [--set KEY=VALUE]
    python -m benchmarks detection --reals --target class

Of each model as many rows as were trained on are drawn along its greedy order. They are judged against the training
rows as TabPC's harness does it (training/evaluation/judging/detection.py), beside real test rows, which say what is to
be had. Copies of training rows would win that, so the share of generated rows that are closer to a training row than to
a held-out one stands beside it (`closer`; 0.5: neither is preferred). An artifact is drawn from by N seeds; a recipe
and a table (as `unveil train --table` trains it) are trained N times, each drawn from once. Published figures are of
five trainings, on GPUs.
"""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import torch

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.domains.problems.fidelity import shape_and_trend
from unveil.benchmarks.domains.problems.reals import write_reals
from unveil.benchmarks.domains.problems.tables import table_data
from unveil.commands.training import cache_folder
from unveil.model.artifact.folder import load_artifact, save_artifact
from unveil.model.errors import UnveilError
from unveil.model.network.base import Network
from unveil.model.tokenizers.table.columns import Column
from unveil.model.tokenizers.table.table import Cells, TableTokenizer
from unveil.training.config import build_recipe, load_recipe, settle
from unveil.training.data.load import load_dataset
from unveil.training.data.rows import evenly_spaced
from unveil.training.evaluation.comparison_orders import Law
from unveil.training.evaluation.judging.detection import detection, usefulness, why_no_judges
from unveil.training.evaluation.judging.rows import decoded, real_rows, sample
from unveil.training.evaluation.likelihood import Estimate, as_rows
from unveil.training.evaluation.privacy import compare
from unveil.training.trainer import train

SEED = 2603  # of samples, the first
QUICK_STEPS, QUICK_ROWS = 20, 300
PRIVATE_ROWS = 1000  # generated ones whose distances are taken
# C2ST by XGBoost, mean of five trainings; AUC of a model trained on generated rows; Shape; Trend.
PUBLISHED = {
    "adult": {"TabPC": (0.855, 0.916, 0.9942, 0.9856), "TabDiff": (0.841, 0.913, 0.9932, 0.9846)},
    "default": {"TabPC": (0.262, 0.744, 0.9946, 0.9496), "TabDiff": (0.591, 0.763, 0.9884, 0.9726)},
    "shoppers": {"TabPC": (0.894, 0.897, 0.9910, 0.9822), "TabDiff": (0.736, 0.917, 0.9851, 0.9809)},
}
Rows = Mapping[str, Cells]


def main() -> None:
    parser = arguments(__doc__, work="runs/detection", seeds=3)
    parser.add_argument("--artifact", type=Path, action="append", default=[], help="drawn from as it is; repeatable")
    parser.add_argument("--recipe", type=Path, action="append", default=[], help="trained anew; repeatable")
    parser.add_argument(
        "--table", type=Path, action="append", default=[], help="a CSV, by default settings; repeatable"
    )
    parser.add_argument("--reals", action="store_true", help="a made table of ten real-valued columns, target class")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe; repeatable")
    parser.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="of the tables; repeatable")
    parser.add_argument("--categorical", action="append", default=[], metavar="COLUMN", help="likewise")
    parser.add_argument("--target", help="the column that XGBoost predicts, trained on generated rows")
    given = parser.parse_args()
    if (reason := why_no_judges()) is not None:
        raise SystemExit(f"error: {reason}")
    if given.reals:
        given.table.append(write_reals(given.work / "reals.csv"))
    try:
        tasks = [task for arm in _arms(given) for task in arm]
    except UnveilError as error:
        raise SystemExit(f"error: {error}") from None
    if not tasks:
        parser.error("give an --artifact, a --recipe or a --table")
    report = summary(run_all(measure, tasks, folder=given.work / "measured", jobs=given.jobs))
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def _arms(given: Namespace) -> list[list[Fields]]:
    """For each model the tasks of its seeds."""
    rows = QUICK_ROWS if given.quick else None
    common = {"problem": "detection", "target": given.target, "rows": rows, "work": str(given.work.resolve())}
    steps = [f"optimizer.steps={QUICK_STEPS}", "advanced.optimizer.warmup_steps=2"] if given.quick else []
    arms: list[Fields] = []
    for path in given.artifact:
        artifact = load_artifact(path)
        own = {"folder": str(path.resolve()), "weights": artifact.manifest.weights_sha256}
        arms.append({"arm": path.name, "name": path.name, "fields": artifact.manifest.training["recipe"], **own})
    for path in given.recipe:
        recipe = load_recipe(path, overrides=[*given.set, *steps])
        arms.append({"arm": recipe.name, "name": recipe.name, "fields": recipe.model_dump(mode="json")})
    for path, data in zip(
        given.table, table_data(given.table, drop=given.drop, categorical=given.categorical), strict=True
    ):
        fields = {"name": path.stem, "data": {name: value for name, value in data.items() if name != "max_bins"}}
        recipe = build_recipe(fields, overrides=[*given.set, *steps], source="--table")
        arms.append({"arm": path.stem, "name": path.stem, "fields": recipe.model_dump(mode="json")})
    return [[{**common, **arm, "seed": seed} for seed in range(given.seeds)] for arm in arms]


def measure(task: Fields) -> Fields:
    """One model's rows beside the real ones."""
    net, tokenizer, seconds = _model(task)
    recipe = build_recipe(dict(task["fields"]), source="the recipe")
    dataset = load_dataset(recipe.data, cache=cache_folder(), tokenizer=tokenizer)
    real = real_rows(recipe.data, tokenizer, cache=cache_folder())
    limit = task["rows"] or len(dataset.train)
    law, seed = Law(net), SEED + task["seed"]
    ids = sample(net, order=law.order(), rows=limit, seed=seed)
    generated, test = decoded(ids, tokenizer, seed=seed), real["test"]
    nats = Estimate.of(law.greedy(net, as_rows(dataset.test, limit=task["rows"])))
    own = _cut(real["train"], limit)
    closer = compare(torch.from_numpy(ids[:PRIVATE_ROWS].copy()), dataset, seed=task["seed"])
    return {
        "name": task["name"],
        "arm": task["arm"],
        "seed": task["seed"],
        "rows": limit,
        "parameters": net.num_parameters,
        "training_cpu_seconds": seconds,
        "test_nats": nats.mean,
        "test_nats_se": nats.standard_error,
        "order": [dataset.names[i] for i in law.order()],
        "closer_to_training": closer["closer_to_training"]["mean"],
        "generated": _judged(own, generated, test, tokenizer, task["target"]),
        "test rows": _judged(_cut(own, len(_first(test))), test, None, tokenizer, task["target"]),
        "training rows": _useful(own, test, tokenizer, task["target"]),
    }


def _model(task: Fields) -> tuple[Network, TableTokenizer, float | None]:
    """As it is, or trained now and kept; with the CPU seconds that its training took, if it was trained here."""
    if "folder" in task:
        artifact = load_artifact(Path(task["folder"]))
        return artifact.denoiser, _table(artifact.tokenizer), None
    recipe = build_recipe({**task["fields"], "seed": task["seed"]}, source="the recipe")
    folder = Path(task["work"]) / "trained" / f"{task['name']}-{recipe.fingerprint()[:12]}"
    if not (folder / "artifact").exists():
        dataset = load_dataset(recipe.data, cache=cache_folder())
        start = process_time()
        result = train(settle(recipe, num_rows=len(dataset.train)), dataset, work=folder / "run")
        assert result is not None, "run in one process"
        save_artifact(
            folder / "artifact",
            denoiser=result.denoiser,
            tokenizer=dataset.tokenizer,
            training={**result.summary, "cpu_seconds": process_time() - start},
            metrics={},
            card="A model of a benchmark.\n",
        )
    artifact = load_artifact(folder / "artifact")
    return artifact.denoiser, _table(artifact.tokenizer), artifact.manifest.training["cpu_seconds"]


def _table(tokenizer: Any) -> TableTokenizer:
    if not isinstance(tokenizer, TableTokenizer):
        raise SystemExit("error: --artifact: must be a model of a table")
    return tokenizer


def _judged(own: Rows, other: Rows, test: Rows | None, tokenizer: TableTokenizer, target: str | None) -> Fields:
    categorical = [column.name for column in tokenizer.columns if column.kind == "categorical"]
    size = min(len(_first(own)), len(_first(other)))
    own, other = _cut(own, size), _cut(other, size)
    found = {**detection(own, other, categorical=categorical), **_likeness(own, other, categorical)}
    return found if test is None else {**found, **_useful(other, test, tokenizer, target)}


def _likeness(own: Rows, other: Rows, categorical: list[str]) -> Fields:
    found = shape_and_trend(own, other, categorical=categorical)
    return {"shape": found["shape"], "trend": found["trend"], "worst_shapes": found["worst_shapes"]}


def _useful(rows: Rows, test: Rows, tokenizer: TableTokenizer, target: str | None) -> Fields:
    if target is None:
        return {}
    columns = list(tokenizer.columns)
    return usefulness(rows, test, target=_column(columns, target), columns=columns)


def _column(columns: Sequence[Column], name: str) -> Column:
    found = next((column for column in columns if column.name == name), None)
    if found is None or (found.kind == "categorical" and len(found.levels) != 2):
        raise SystemExit(f"error: --target {name}: must be a number or a column of two levels")
    return found


def _cut(rows: Rows, limit: int) -> dict[str, Cells]:
    return {name: cells[evenly_spaced(len(cells), limit)] for name, cells in rows.items()}


def _first(rows: Rows) -> Cells:
    return next(iter(rows.values()))


FIGURES = ("xgboost", "logistic", "auc", "rmse", "shape", "trend")


def summary(results: Sequence[Fields]) -> Fields:
    """Each model over its seeds, real rows beside it."""
    models = []
    for arm in dict.fromkeys(row["arm"] for row in results):
        own = [row for row in results if row["arm"] == arm]
        models.append(
            {
                "name": own[0]["name"],
                "arm": arm,
                "parameters": own[0]["parameters"],
                "rows": own[0]["rows"],
                "test_nats": interval([row["test_nats"] for row in own]),
                "closer_to_training": interval([row["closer_to_training"] for row in own]),
                **{
                    side: {
                        figure: interval([row[side][figure] for row in own])
                        for figure in FIGURES
                        if figure in own[0][side]
                    }
                    for side in ("generated", "test rows", "training rows")
                },
                "seeds": own,
            }
        )
    return {"models": models, "published": PUBLISHED, "torch": torch.__version__}


def as_text(report: Fields) -> str:
    """A Markdown table."""
    lines = ["| | parameters | test nats | closer | C2ST | logistic | usefulness | Shape | Trend |", "|" + "---|" * 9]
    for model in report["models"]:
        for side in ("generated", "test rows", "training rows"):
            found = model[side]
            if not found:
                continue
            is_own = side == "generated"
            shown = [with_interval(found[name]) if name in found else "" for name in FIGURES]
            nats, closer = (with_interval(model[name]) for name in ("test_nats", "closer_to_training"))
            head = f"{model['parameters']:,} | {nats} | {closer}" if is_own else " |  | "
            cells = [shown[0], shown[1], shown[2] or shown[3], *shown[4:]]
            lines.append(f"| {model['arm'] if is_own else side} | {head} | {' | '.join(cells)} |")
        for name, (c2st, auc, shape, trend) in report["published"].get(model["name"], {}).items():
            lines.append(f"| {name}, published | | | | {c2st:.3f} | | {auc:.3f} | {shape:.4f} | {trend:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
