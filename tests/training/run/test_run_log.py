"""The log of a run: lines after the last checkpoint go, and no kill loses those before it."""

import json
import os
from pathlib import Path

import pytest

from unveil.training.run.run_log import LOG, Journal


def _open(folder: Path, *, start_step: int) -> Journal:
    return Journal(folder, total_steps=10, start_step=start_step, title="run")


def _write(folder: Path, *steps: int) -> None:
    lines = [json.dumps({"kind": "validation", "step": step}) for step in steps]
    (folder / LOG).write_text("\n".join([*lines, '{"kind": "validation", "st']))  # a kill cut the last one short


def _steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / LOG).read_text().splitlines()]


def test_lines_after_the_first_step_are_dropped_and_logged_anew(tmp_path: Path) -> None:
    _write(tmp_path, 2, 4, 6)
    with _open(tmp_path, start_step=4) as journal:
        journal.log("validation", 6, {"nelbo": 1.0})
    assert _steps(tmp_path) == [2, 4, 6]


def test_a_kill_while_lines_are_dropped_leaves_the_log_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, 2, 4, 6)
    before = (tmp_path / LOG).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", _killed)
        with pytest.raises(KeyboardInterrupt):
            _open(tmp_path, start_step=4)
    assert (tmp_path / LOG).read_bytes() == before
    with _open(tmp_path, start_step=4):
        pass
    assert _steps(tmp_path) == [2, 4]
    assert not list(tmp_path.glob("*.partial"))


def _killed(*_: object) -> None:
    raise KeyboardInterrupt
