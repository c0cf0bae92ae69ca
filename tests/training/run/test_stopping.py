"""Runs that are stopped go on exactly where they were; and checkpoints by the clock."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.service.mocks import WAIT_SECONDS
from tests.training.small import small_dataset, small_recipe, write_csv
from unveil.training.run.checkpoint import find_checkpoint
from unveil.training.run.parent import bound
from unveil.training.run.stopping import StoppedError
from unveil.training.step.stepper import Stepper
from unveil.training.trainer import Trained, train

DATASET = small_dataset()
RARE = ("advanced.run.checkpoint_every=1000", "advanced.run.checkpoint_seconds=1000.0")


def _weights(trained: Trained | None) -> dict[str, torch.Tensor]:
    assert trained is not None
    return trained.denoiser.state_dict()


def _at_step(monkeypatch: pytest.MonkeyPatch, step: int, *signums: int) -> None:
    """Sends these signals in the middle of a step."""
    take = Stepper.take

    def sent(self: Stepper, now: int) -> Any:
        if now == step:
            for signum in signums:
                watching = signal.getsignal(signum)
                os.kill(os.getpid(), signum)
                while signum != signums[-1] and signal.getsignal(signum) is watching:
                    os.sched_yield()  # until it has been taken
        return take(self, now)

    monkeypatch.setattr(Stepper, "take", sent)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 6])
def test_a_signal_ends_the_run_after_its_step_and_it_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals, step: int
) -> None:
    recipe, before = small_recipe(*RARE), signal.getsignal(signum)
    expected = _weights(train(recipe, DATASET, work=tmp_path / "undisturbed"))
    with monkeypatch.context() as patched:
        _at_step(patched, step, signum)
        with pytest.raises(StoppedError, match=f"^stopped at step {step + 1} of 12; its checkpoint") as stopped:
            train(recipe, DATASET, work=tmp_path / "run")
    assert stopped.value.exit_code == 128 + signum
    assert signal.getsignal(signum) is before
    checkpoint = find_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == step + 1
    found = _weights(train(recipe, DATASET, work=tmp_path / "run"))
    for name, weights in expected.items():
        assert torch.equal(found[name], weights), name


def test_a_second_signal_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _at_step(monkeypatch, 3, signal.SIGTERM, signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell has sent us to the back
    try:
        with pytest.raises(KeyboardInterrupt):
            train(small_recipe(*RARE), DATASET, work=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert find_checkpoint(tmp_path / "checkpoints") is None


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, [11, 12]), (1000.0, [12])])
def test_checkpoints_are_written_by_the_clock_too(tmp_path: Path, seconds: float, steps: list[int]) -> None:
    recipe = small_recipe(RARE[0], f"advanced.run.checkpoint_seconds={seconds}")
    monkey = pytest.MonkeyPatch()
    monkey.setattr("unveil.training.run.stopping._MOST_SHARE", float("inf"))  # however long one takes here
    with monkey.context():
        train(recipe, DATASET, work=tmp_path)
    monkey.undo()
    assert sorted(int(path.name.removeprefix("step-")) for path in (tmp_path / "checkpoints").iterdir()) == steps


def test_the_command_says_where_it_stopped_and_goes_on_from_there(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "own.csv")
    choices = ("optimizer.steps=100000", "model.width=16", "run.threads=1")
    command = [sys.executable, "-m", "unveil.cli", "train", "--table", str(table), "--out", str(tmp_path / "out")]
    command += [word for choice in choices for word in ("--set", choice)]
    process = subprocess.Popen(bound(command), stderr=subprocess.PIPE, text=True)
    log = tmp_path / "out.run" / "log.jsonl"
    give_up = time.monotonic() + WAIT_SECONDS
    while not (log.exists() and log.read_text()) and time.monotonic() < give_up:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        os.sched_yield()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
    last = said.strip().splitlines()[-1]
    checkpoint = find_checkpoint(tmp_path / "out.run" / "checkpoints")
    assert checkpoint is not None
    assert last.startswith(f"error: stopped at step {checkpoint.step} of 100000; its checkpoint is written")
    assert "Traceback" not in said
