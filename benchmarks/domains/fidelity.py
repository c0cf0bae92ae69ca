"""How like the real rows of Adult are a model's samples, and are they copies? Shape, Trend, distances, held-out nats.

    python -m benchmarks fidelity [--quick] [--json] [--seeds N] [--jobs N] [--work DIR] [--artifact DIR]...

For each artifact (the bundled `adult` where none is named; runs/adult-large comes from `unveil train
training/recipes/adult-large.toml`): as many rows as were trained on are drawn along its greedy order, by N seeds of
sampling, and compared with the training rows by sdmetrics' Column Shapes and Column Pair Trends, as TabDiff's figures
are. A model that repeats its training rows would win that comparison, so its exact nats on test rows and the share of
its samples that are closer to a training row than to a held-out one (.5: it prefers neither) stand beside them.

Controls: the training rows drawn anew with replacement, their numbers through the bins, the likeness that as many rows
of the true law have; the training rows themselves through the bins; and the real test rows. Seeds are of sampling: a
model is one training. The bundled model was not chosen by these figures; the larger one, one try, was trained after the
bundled one's had been seen. Bins and splits: see benchmarks/domains/tables.py.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unveil.benchmarks.common.runs import Fields, arguments, interval, run_all, with_interval
from unveil.benchmarks.domains.problems.fidelity import cut, require_sdmetrics, shape_and_trend
from unveil.benchmarks.domains.problems.tables import ADULT, config_of, load
from unveil.benchmarks.domains.tables import PUBLISHED
from unveil.commands.training import cache_folder
from unveil.model.artifact.folder import Artifact, load_artifact
from unveil.model.errors import ArtifactError
from unveil.training.data.rows import evenly_spaced
from unveil.training.evaluation.comparison_orders import Law
from unveil.training.evaluation.judging.rows import decoded, real_rows, sample
from unveil.training.evaluation.likelihood import Estimate, as_rows
from unveil.training.evaluation.privacy import compare

BUNDLED = Path(__file__).resolve().parents[2] / "checkpoints" / "adult"
SEED = 1994  # of the controls, and the first of the samples
PRIVATE_ROWS = 1000  # samples whose distances are taken
CONTROLS = ("training rows, drawn anew", "training rows through the bins", "real test rows")


def main() -> None:
    parser = arguments(__doc__, work="runs/fidelity", seeds=3)
    parser.add_argument("--artifact", type=Path, action="append", default=[], help="repeatable")
    given = parser.parse_args()
    require_sdmetrics()
    rows = 300 if given.quick else None
    folders = [path.resolve() for path in given.artifact or [BUNDLED]]
    try:
        artifacts = [load_artifact(path) for path in folders]
    except ArtifactError as error:
        raise SystemExit(f"error: --artifact: {error}") from None
    columns = _columns(load_artifact(BUNDLED))
    if unfit := next((f for f, one in zip(folders, artifacts, strict=True) if _columns(one) != columns), None):
        raise SystemExit(f"error: --artifact: {unfit} is not of the rows and bins of this benchmark")
    tasks = [
        {
            "problem": "fidelity",
            "arm": path.name,
            "seed": seed,
            "folder": str(path),
            "weights": artifact.manifest.weights_sha256,
            "rows": rows,
        }
        for path, artifact in zip(folders, artifacts, strict=True)
        for seed in range(given.seeds)
    ]
    common = {"problem": "fidelity", "rows": rows}
    controls = run_all(control, [{**common, "arm": name} for name in CONTROLS], folder=given.work, jobs=given.jobs)
    report = summary(run_all(measure, tasks, folder=given.work, jobs=given.jobs), controls)
    print(json.dumps(report, indent=2) if given.json else as_text(report))


def _columns(artifact: Artifact) -> Any:
    """Of a table, with their bins; None of anything else."""
    return getattr(artifact.tokenizer, "columns", None)


def measure(task: Fields) -> Fields:
    """One model's samples by one seed, and what it says of test rows."""
    dataset, artifact = load(ADULT), load_artifact(Path(task["folder"]))
    law = Law(artifact.denoiser)
    limit = task["rows"] or len(dataset.train)
    ids = sample(artifact.denoiser, order=law.order(), rows=limit, seed=SEED + task["seed"])
    test = as_rows(dataset.test, limit=task["rows"])
    return {
        "model": task["arm"],
        "seed": task["seed"],
        "parameters": artifact.denoiser.num_parameters,
        "test_nats": asdict(Estimate.of(law.greedy(artifact.denoiser, test))),
        "privacy": compare(torch.from_numpy(ids[:PRIVATE_ROWS].copy()), dataset, seed=task["seed"]),
        **_likeness(decoded(ids, artifact.tokenizer, seed=SEED + task["seed"]), artifact, limit),  # type: ignore[arg-type]
    }


def control(task: Fields) -> Fields:
    """What real rows have."""
    dataset, artifact = load(ADULT), load_artifact(BUNDLED)
    tokenizer: Any = artifact.tokenizer
    limit = task["rows"] or len(dataset.train)
    if task["arm"] == "real test rows":
        other = real_rows(config_of(ADULT), tokenizer, cache=cache_folder())["test"]
    else:
        is_anew = task["arm"] == "training rows, drawn anew"
        some = evenly_spaced(len(dataset.train), limit)
        places = np.random.default_rng(SEED).integers(0, len(dataset.train), limit) if is_anew else some
        other = decoded(dataset.train[places], tokenizer, seed=SEED)
    return {"control": task["arm"], **_likeness(other, artifact, limit)}


def _likeness(other: Fields, artifact: Artifact, limit: int) -> Fields:
    tokenizer: Any = artifact.tokenizer
    real = cut(real_rows(config_of(ADULT), tokenizer, cache=cache_folder())["train"], limit)
    categorical = [column.name for column in tokenizer.columns if column.kind == "categorical"]
    return shape_and_trend(real, cut(other, limit), categorical=categorical)


def summary(samples: Sequence[Fields], controls: Sequence[Fields]) -> Fields:
    """Each model over its seeds, the controls and the published figures."""
    models = []
    for name in dict.fromkeys(row["model"] for row in samples):
        own = [row for row in samples if row["model"] == name]
        models.append(
            {
                "model": name,
                "parameters": own[0]["parameters"],
                "test_nats": own[0]["test_nats"],
                "shape": interval([row["shape"] for row in own]),
                "trend": interval([row["trend"] for row in own]),
                "closer_to_training": interval([row["privacy"]["closer_to_training"]["mean"] for row in own]),
                "seeds": own,
            }
        )
    return {"models": models, "controls": list(controls), "published": PUBLISHED["adult"], "torch": torch.__version__}


def as_text(report: Fields) -> str:
    """A Markdown table."""
    lines = ["| | parameters | Shape | Trend | closer to training rows | test nats |", "|---|---|---|---|---|---|"]
    for row in report["models"]:
        shape, trend, closer = (with_interval(row[key]) for key in ("shape", "trend", "closer_to_training"))
        nats = f"{row['test_nats']['mean']:.3f} ± {row['test_nats']['standard_error']:.3f}"
        lines.append(f"| {row['model']} | {row['parameters']:,} | {shape} | {trend} | {closer} | {nats} |")
    lines += [f"| {row['control']} | | {row['shape']:.4f} | {row['trend']:.4f} | | |" for row in report["controls"]]
    lines += [f"| {name} | | {s:.4f} | {t:.4f} | | |" for name, (s, t) in report["published"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
