"""The `unveil` command, ended as by `kill -9` once a training has logged a step beyond its first checkpoint."""

import os
import signal
from collections.abc import Mapping
from unittest.mock import patch

from unveil.cli import main
from unveil.training.run.run_log import Journal

LAST_STEP = 27  # where there is a checkpoint every 20 steps


def run() -> None:
    log = Journal.log

    def killing(journal: Journal, kind: str, step: int, metrics: Mapping[str, float]) -> None:
        log(journal, kind, step, metrics)
        if step == LAST_STEP:
            os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(Journal, "log", killing):
        main()


if __name__ == "__main__":
    run()
