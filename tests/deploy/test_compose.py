"""The compose file says what the Dockerfile and the code say."""

from typing import Any

import yaml

from tests.deploy.drain import end_seconds
from tests.deploy.manifests import ROOT
from unveil.service.settings import PREFIX, Settings

FOLDER = ROOT / "deploy"


def _service() -> dict[str, Any]:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert set(compose["services"]) == {"unveil"}
    return dict(compose["services"]["unveil"])


def test_it_builds_the_projects_dockerfile() -> None:
    assert (FOLDER / _service()["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"


def test_it_publishes_the_services_port_to_this_machine_only() -> None:
    port = Settings.model_fields["port"].default
    assert _service()["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_stopping_it_leaves_time_for_the_drain() -> None:
    environment = _service()["environment"]
    assert {name.removeprefix(PREFIX).lower() for name in environment} <= set(Settings.model_fields)
    grace_seconds = float(_service()["stop_grace_period"].removesuffix("s"))
    assert grace_seconds >= float(environment["UNVEIL_DRAIN_TIMEOUT_SECONDS"]) + end_seconds()


def test_it_runs_with_a_read_only_root_and_no_capabilities() -> None:
    service = _service()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
