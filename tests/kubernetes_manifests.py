"""Read the manifests of `deploy/kubernetes`."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.test_house import ROOT

FOLDER: Final = ROOT / "deploy" / "kubernetes"
COMPONENT: Final = "app.kubernetes.io/component"
PART_OF: Final = "app.kubernetes.io/part-of"

Manifest = dict[str, Any]


def kustomization(folder: Path) -> Manifest:
    loaded: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return loaded


@cache
def manifests() -> list[Manifest]:
    """Return everything that is applied, of the service and of the migration. To change one, copy it first."""
    files = [folder / name for folder in (FOLDER, FOLDER / "migration") for name in kustomization(folder)["resources"]]
    return [manifest for file in files for manifest in yaml.safe_load_all(file.read_text())]


def of_kind(kind: str) -> dict[str, Manifest]:
    """Return the manifests of a kind, by name."""
    return {one["metadata"]["name"]: one for one in manifests() if one["kind"] == kind}


def pod_templates() -> dict[str, Manifest]:
    """Return what each workload makes pods of, by the workload's name."""
    templates = {name: one["spec"]["template"] for kind in ("Deployment", "Job") for name, one in of_kind(kind).items()}
    return templates | {
        name: one["spec"]["jobTemplate"]["spec"]["template"] for name, one in of_kind("CronJob").items()
    }


def container(template: Manifest) -> Manifest:
    """Return the only container of a pod."""
    (only,) = template["spec"]["containers"]
    found: Manifest = only
    return found


def environment(template: Manifest) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(template).get("env", [])}


def ports(template: Manifest) -> dict[str, int]:
    return {one["name"]: one["containerPort"] for one in container(template).get("ports", [])}


def selected(selector: Manifest) -> set[str]:
    """Return the workloads whose pods a selector finds. `{}` finds all."""
    return {name for name, one in pod_templates().items() if _fits(selector, one["metadata"]["labels"])}


def _fits(selector: Manifest, labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    expressions = selector.get("matchExpressions", [])
    assert {one["operator"] for one in expressions} <= {"In"}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(one["key"]) in one["values"] for one in expressions
    )


def values_in(found: Any) -> Iterator[str]:
    """Yield each text that a manifest holds."""
    if isinstance(found, dict):
        for one in found.values():
            yield from values_in(one)
    elif isinstance(found, list):
        for one in found:
            yield from values_in(one)
    elif isinstance(found, str):
        yield found
