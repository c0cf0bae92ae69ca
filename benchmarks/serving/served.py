"""Is what is served what was trained, and evaluated? The bundled models on validation rows, one thread.

    python -m benchmarks served [--quick] [--json] [--rows N] [--models NAME,...]

Each row is scored along the likeliest order, as POST /score does it (`served`), and by the network's own forward
(`trained`): of networks of late queries over the whole row, of others a whole canvas a step. `largest_difference` is of
any row, in nats; means have standard errors over rows. For text stand bits a character, and the CPU seconds that
scoring its whole test split takes. Needs the data that the models were trained on.
"""

import json
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from unveil.benchmarks.common.runs import Fields
from unveil.benchmarks.domains.problems.text.rivals import bits_per_character, num_characters
from unveil.commands.training import cache_folder
from unveil.engine.catalog import Source
from unveil.engine.runner import Runner, load_models
from unveil.model.artifact.folder import Artifact, load_artifact
from unveil.model.decoding.canvas import SamplingParams
from unveil.model.decoding.scoring import score
from unveil.model.decoding.scoring_chain import Chain
from unveil.training.config import data_of
from unveil.training.data.dataset import Dataset
from unveil.training.data.load import load_dataset
from unveil.training.data.rows import Rows, split_rows
from unveil.training.evaluation.comparison_orders import Law
from unveil.training.evaluation.estimate import Estimate

FOLDER = Path("checkpoints")
ROWS = {"adult": 1000, "moses": 512, "sudoku": 16, "text": 64}  # a solver of sudokus takes seconds a row
QUICK_ROWS = 2
MAX_BATCH = 64
_LIKELIEST = SamplingParams(order_temperature=0.0)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows of each model and split")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, help=f"validation rows, evenly spaced; {ROWS} where left out")
    parser.add_argument("--models", default=",".join(ROWS), help="some of them")
    given = parser.parse_args()
    names = given.models.split(",")
    if not set(names) <= set(ROWS):
        parser.error(f"--models: takes some of {', '.join(ROWS)}, not {given.models}")
    torch.set_num_threads(1)
    limits = {name: QUICK_ROWS if given.quick else given.rows or ROWS[name] for name in names}
    models = {name: measured(name, rows, is_quick=given.quick) for name, rows in limits.items()}
    report = {"models": models, "threads": 1, "torch": torch.__version__}
    print(json.dumps(report, indent=2) if given.json else as_text(models))


def measured(name: str, limit: int, *, is_quick: bool) -> Fields:
    """One bundled model."""
    folder = FOLDER / name
    artifact = load_artifact(folder)
    network, dataset = artifact.denoiser, _dataset(artifact)
    ((_, runner),) = filter(None, load_models([Source(name, folder)], max_batch=MAX_BATCH, device="cpu"))
    rows = split_rows(dataset, "validation", limit=limit)
    law, served = Law(network), served_nats(runner, rows)
    trained = law.greedy(network, rows)
    found = {
        "rows": len(rows),
        "served": _estimate(served),
        "trained": _estimate(trained),
        "largest_difference": float((served - trained).abs().max()),
    }
    if artifact.manifest.domain == "text":
        characters = num_characters(dataset, rows.x).sum(1)
        found["bits_per_character"] = bits_per_character(served, characters)
        found["test"] = _whole_test_split(runner, dataset, QUICK_ROWS if is_quick else None)
    return found


def served_nats(runner: Runner, rows: Rows) -> Tensor:
    """What the engine says that each row costs along the likeliest order, [N] nats."""
    chains = [
        Chain.start(tuple(x), (False,) * len(x), seed=0, params=_LIKELIEST, given=tuple(given))
        for x, given in zip(rows.x.tolist(), rows.given.tolist(), strict=True)
    ]
    at_once = runner.largest(runner.bucket(rows.x.shape[1]), "score")
    every = score(runner.score, chains, max_batch=at_once, links=runner.links)
    return torch.tensor([sum(term.nats for term in terms) for terms in every], dtype=torch.float64)


def _whole_test_split(runner: Runner, dataset: Dataset, limit: int | None) -> Fields:
    rows = split_rows(dataset, "test", limit=limit)
    start = time.process_time()
    nats = served_nats(runner, rows)
    seconds = time.process_time() - start
    bits = bits_per_character(nats, num_characters(dataset, rows.x).sum(1))
    return {"rows": len(rows), "cpu_seconds": seconds, "bits_per_character": bits}


def _dataset(artifact: Artifact) -> Dataset:
    return load_dataset(data_of(artifact.manifest.training["recipe"]), cache=cache_folder())


def _estimate(values: Tensor) -> dict[str, float]:
    return asdict(Estimate.of(values))


def as_text(models: Fields) -> str:
    """The same for a reader."""
    lines: list[str] = []
    for name, found in models.items():
        lines.append(
            f"{name}: {found['rows']:,} rows, served {_shown(found['served'])} nats,"
            f" trained {_shown(found['trained'])}, largest difference {found['largest_difference']:.1e}"
        )
        lines += _text_lines(found) if "test" in found else ()
    return "\n".join(lines)


def _text_lines(found: Fields) -> Sequence[str]:
    test, bits = found["test"], found["test"]["bits_per_character"]
    return [
        f"  test split: {test['rows']:,} canvases in {test['cpu_seconds']:.1f} CPU seconds,"
        f" {bits['bits']:.3f} ± {bits['standard_error']:.3f} bits a character"
    ]


def _shown(estimate: Fields) -> str:
    return f"{estimate['mean']:.3f} ± {estimate['standard_error']:.3f}"


if __name__ == "__main__":
    main()
