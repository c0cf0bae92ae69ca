"""A training of two steps under torchrun that notes when each process leaves: see `test_training_processes`."""

import json
import os
import sys
import time
from pathlib import Path

from tests.training.small import small_dataset, small_recipe
from unveil.training.evaluation.report import evaluate_model
from unveil.training.trainer import Trained, train


def main(folder: Path) -> None:
    dataset, times = small_dataset(), {}

    def then(trained: Trained) -> None:
        evaluate_model(trained.denoiser, dataset, limit=40)
        times["evaluated"] = time.monotonic()

    train(small_recipe("optimizer.steps=2"), dataset, work=folder / "run", then=then)
    times["left"] = time.monotonic()
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(times))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
