"""What `deploy/kubernetes` says: the base's files as they are, and every kustomization as kubectl renders it."""

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
RENDERED = ("base", "overlays/cpu", "overlays/gpu")
FILES = "files"  # needs no kubectl

Resource = dict[str, Any]


@dataclass(frozen=True)
class Manifests:
    """The resources of one kustomization."""

    resources: tuple[Resource, ...]

    def one(self, kind: str) -> Resource:
        (found,) = (resource for resource in self.resources if resource["kind"] == kind)
        return found

    @property
    def pod(self) -> Resource:
        """The pod template's spec."""
        return dict(self.one("Deployment")["spec"]["template"]["spec"])

    @property
    def container(self) -> Resource:
        (container,) = self.pod["containers"]
        return dict(container)

    @property
    def settings(self) -> dict[str, str]:
        return dict(self.one("ConfigMap")["data"])


@cache
def load(source: str) -> Manifests:
    """`FILES` or one of `RENDERED`, which skips the test where there is no kubectl."""
    return Manifests(tuple(_read_files() if source == FILES else _render(source)))


def _read_files() -> list[Resource]:
    kustomization = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())
    resources = [yaml.safe_load((KUBERNETES / "base" / name).read_text()) for name in kustomization["resources"]]
    (generator,) = kustomization["configMapGenerator"]
    data = dict(literal.split("=", 1) for literal in generator["literals"])
    (labels,) = kustomization["labels"]
    for resource in resources:
        if resource["kind"] == "Deployment":
            resource["spec"]["template"]["metadata"]["labels"] = labels["pairs"]
    return [*resources, {"kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}]


def _render(source: str) -> list[Resource]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    command = [kubectl, "kustomize", str(KUBERNETES / source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr, result.stderr  # a deprecated field, for instance
    return list(yaml.safe_load_all(result.stdout))
