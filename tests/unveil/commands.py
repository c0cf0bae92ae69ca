"""Runs the command in this process, as a shell would."""

import sys

import pytest

from unveil import cli

Outcome = tuple[int, str, str]


def run_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Outcome:
    """Exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["unveil", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, captured.out, captured.err
