"""Settings come from defaults, the environment and flags, in that order, and every mistake is one line."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from unveil.model.errors import UnveilError
from unveil.service.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("UNVEIL_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.threads) == ("127.0.0.1", 8000, 1)
    assert settings.max_body_bytes == 2**20
    assert settings.checkpoints.name == "checkpoints"


def test_a_flag_beats_the_environment_and_a_flag_not_given_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNVEIL_PORT", "9001")
    monkeypatch.setenv("UNVEIL_MAX_BATCH", "8")
    settings = load_settings({"port": 9002, "host": None, "max_batch": None})
    assert (settings.port, settings.host, settings.max_batch) == (9002, "127.0.0.1", 8)


def test_artifacts_are_paths_or_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNVEIL_ARTIFACTS", "runs/a, b=runs/c,")
    assert load_settings().artifacts == ("runs/a", "b=runs/c")
    assert load_settings({"artifacts": [Path("x"), Path("y")]}).artifacts == ("x", "y")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("UNVEIL_PORT", "eighty", "setting port (UNVEIL_PORT)"),
        ("UNVEIL_PORT", "70000", "setting port (UNVEIL_PORT)"),
        ("UNVEIL_MAX_BATCH", "0", "setting max_batch"),
        ("UNVEIL_LOG_LEVEL", "loud", "setting log_level"),
        ("UNVEIL_DEVICE", "tpu", "setting device"),
        ("UNVEIL_DEFAULT_TIMEOUT_SECONDS", "1e6", "default_timeout_seconds is longer than max_timeout_seconds"),
        ("UNVEIL_PROT", "8001", "unknown setting UNVEIL_PROT; did you mean UNVEIL_PORT?"),
        ("UNVEIL_MAXBATCH", "8", "did you mean UNVEIL_MAX_BATCH?"),
    ],
)
def test_a_wrong_or_misspelt_setting_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UnveilError) as refusal:
        load_settings()
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(UnveilError, match="prot"):
        load_settings({"prot": 1})


def test_what_kubernetes_says_of_a_service_called_unveil_is_not_taken_for_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UNVEIL_PORT", "tcp://10.0.0.7:8000")
    monkeypatch.setenv("UNVEIL_PORT_8000_TCP_PORT", "8000")
    monkeypatch.setenv("UNVEIL_SERVICE_HOST", "10.0.0.7")
    monkeypatch.setenv("UNVEIL_SERVICE_PORT", "8000")
    assert load_settings().port == 8000
