"""The manifests are valid, and what they say about the service is what the code says."""

import copy
import os

import kubernetes_validate
import pytest
from fastapi.routing import APIRoute

from tests.deploy.dockerfile import image_environment, last
from tests.deploy.drain import end_seconds
from tests.deploy.manifests import FILES, RENDERED, Manifests, load
from unveil.service.routes import router
from unveil.service.settings import PREFIX, Settings, load_settings

# The oldest that knows the preStop sleep, and a recent one.
VERSIONS = ("1.30", "1.34")
KINDS = {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"}


@pytest.fixture(params=[FILES, *RENDERED])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return load(request.param)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("source", RENDERED)
def test_every_resource_fits_the_schema_of_its_kind_and_has_no_field_besides(source: str, version: str) -> None:
    resources = load(source).resources
    assert {resource["kind"] for resource in resources} == KINDS
    for resource in resources:
        assert kubernetes_validate.validate(resource, version, strict=True) == version


def test_a_misspelt_field_would_be_found() -> None:
    deployment = copy.deepcopy(load("base").one("Deployment"))
    deployment["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="enableServiceLink"):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


def test_probes_and_scrapes_ask_paths_that_the_service_has(manifests: Manifests) -> None:
    paths = {route.path for route in router.routes if isinstance(route, APIRoute) and "GET" in (route.methods or ())}
    probes = {kind: manifests.container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: get["path"] for kind, get in probes.items()} == {
        "startup": "/health/ready",
        "liveness": "/health/live",
        "readiness": "/health/ready",
    }
    annotations = manifests.one("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert {annotations["prometheus.io/path"], *(get["path"] for get in probes.values())} <= paths
    assert annotations["prometheus.io/scrape"] == "true"


def test_everything_speaks_of_the_port_the_service_listens_on(manifests: Manifests) -> None:
    (port,) = manifests.container["ports"]
    assert port == {"name": "http", "containerPort": Settings.model_fields["port"].default}
    assert f"{PREFIX}PORT" not in manifests.settings
    for kind in ("startup", "liveness", "readiness"):
        assert manifests.container[f"{kind}Probe"]["httpGet"]["port"] == port["name"]
    assert [entry["targetPort"] for entry in manifests.one("Service")["spec"]["ports"]] == [port["name"]]
    assert manifests.one("NetworkPolicy")["spec"]["ingress"] == [{"ports": [{"port": port["name"]}]}]
    annotations = manifests.one("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def _settings(manifests: Manifests, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a pod: the image's environment, and over it the manifests'."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in {**image_environment(), **manifests.settings}.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_the_settings_are_the_services_own_and_can_be_used(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert set(manifests.settings) <= names
    assert all(isinstance(value, str) for value in manifests.settings.values())
    assert _settings(manifests, monkeypatch).host == "0.0.0.0"
    name = manifests.one("ConfigMap")["metadata"]["name"]
    assert manifests.container["envFrom"] == [{"configMapRef": {"name": name}}]


def test_the_grace_period_holds_the_wait_for_load_balancers_and_the_whole_drain(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_seconds = manifests.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_seconds = _settings(manifests, monkeypatch).drain_timeout_seconds
    assert wait_seconds >= 5
    assert manifests.pod["terminationGracePeriodSeconds"] >= wait_seconds + drain_seconds + end_seconds() + 5


def test_the_container_may_do_nothing_that_it_need_not(manifests: Manifests) -> None:
    user, group = map(int, last("USER").split(":"))
    assert manifests.pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert manifests.container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert manifests.pod["automountServiceAccountToken"] is False
    assert manifests.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert manifests.pod["serviceAccountName"] == manifests.one("ServiceAccount")["metadata"]["name"]
    assert manifests.one("NetworkPolicy")["spec"]["egress"] == []


def test_no_service_beside_the_pod_writes_into_its_settings(manifests: Manifests) -> None:
    assert manifests.pod["enableServiceLinks"] is False


def test_every_selector_means_these_pods_and_no_others(manifests: Manifests) -> None:
    labels = manifests.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifests.one("Deployment")["spec"]["selector"]["matchLabels"],
        manifests.one("Service")["spec"]["selector"],
        manifests.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifests.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        manifests.pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector  # an empty one would mean every pod of the namespace
        assert selector.items() <= labels.items()


@pytest.mark.parametrize(
    ("source", "tag", "device"), [("overlays/cpu", "cpu", "cpu"), ("overlays/gpu", "cuda", "cuda")]
)
def test_each_overlay_names_its_image_its_device_and_what_a_pod_needs(
    source: str, tag: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = load(source)
    assert manifests.container["image"] == f"unveil:{tag}"
    assert _settings(manifests, monkeypatch).device == device
    resources = manifests.container["resources"]
    assert set(resources["requests"]) == {"cpu", "memory", "ephemeral-storage"}
    assert resources["limits"]["memory"] == resources["requests"]["memory"]
    assert "cpu" not in resources["limits"]


def test_the_gpu_overlay_asks_for_a_gpu_may_go_where_they_are_and_never_waits_for_a_second_one() -> None:
    manifests = load("overlays/gpu")
    assert manifests.container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in manifests.pod["tolerations"]
    rolling = manifests.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}
    assert "nvidia.com/gpu" not in str(load("overlays/cpu").resources)
