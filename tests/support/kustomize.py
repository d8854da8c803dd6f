"""The manifests that are shipped, put together as a user does, and rendered by kubectl."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from tree import ROOT

import prefetch
from support.gotools import path_of
from support.manifests import Object

MANIFESTS = ROOT / "manifests"
IMAGE = f"localhost/prefetch:{prefetch.__version__}"
COMPONENTS = ("cronjob", "nodeport", "prometheus", "tls")
OVERLAYS = ("generic", "k3s", "rke2")


def put_together(
    directory: Path, start: str, components: Iterable[str] = (), files: Mapping[str, str] = {}
) -> Path:
    """Write a user's kustomization on top of `start` (`base`, `overlays/k3s`); return it.

    `files` take the place of those of the ConfigMap.
    """
    directory.mkdir(parents=True)
    there = Path(os.path.relpath(MANIFESTS, directory.resolve()))
    written: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(there / start)],
        "components": [str(there / "components" / name) for name in components],
    }
    for name, text in files.items():
        (directory / name).write_text(text)
    if files:
        config = {"name": "prefetch", "namespace": "prefetch", "behavior": "merge"}
        written["configMapGenerator"] = [{**config, "files": list(files)}]
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(written))
    return directory


def rendered(kustomization: Path) -> list[Object]:
    """The objects of a kustomization."""
    command = (path_of("kubectl"), "kustomize", kustomization)
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return list(yaml.safe_load_all(shown))


def only(objects: Iterable[Object], kind: str) -> Object:
    """The one object of a kind."""
    (found,) = (each for each in objects if each["kind"] == kind)
    return found


def pod_of(objects: Iterable[Object], kind: str) -> Object:
    """The pod that a StatefulSet's controller, or a CronJob's, would make, with its volumes."""
    made_by = only(objects, kind)
    spec = made_by["spec"]
    template = (spec["jobTemplate"]["spec"] if kind == "CronJob" else spec)["template"]
    name = f"{made_by['metadata']['name']}-0"
    claims = [
        {"name": each, "persistentVolumeClaim": {"claimName": f"{each}-{name}"}}
        for each in (claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ()))
    ]
    volumes = [*template["spec"]["volumes"], *claims]
    metadata = {**template["metadata"], "name": name, "namespace": "prefetch"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**template["spec"], "volumes": volumes},
    }
