"""Objects of Kubernetes, as `ApiServer.create` takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]

_RBAC = "rbac.authorization.k8s.io"


def manifest(
    version: str, kind: str, name: str, namespace: str | None = None, **rest: Any
) -> Object:
    """Of any kind; `rest` is what it has besides its metadata."""
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def service_account(namespace: str, name: str) -> Object:
    return manifest("v1", "ServiceAccount", name, namespace)


def pod(name: str, *images: str, namespace: str = "default", **spec: Any) -> Object:
    """A pod with a container an image, and whatever else its specification is to have."""
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    return manifest("v1", "Pod", name, namespace, spec={"containers": containers, **spec})


def node(
    name: str,
    *,
    architecture: str = "amd64",
    system: str = "linux",
    images: Iterable[Sequence[str]] = (),
) -> Object:
    """A node that is ready, with what its kubelet would tell; `images` are the names of each."""
    made = manifest("v1", "Node", name)
    made["metadata"]["labels"] = {"kubernetes.io/arch": architecture, "kubernetes.io/os": system}
    made["status"] = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "images": [{"names": list(names), "sizeBytes": 1 << 20} for names in images],
        "nodeInfo": {"architecture": architecture, "operatingSystem": system},
    }
    return made


def role(
    name: str,
    user: str,
    verbs: Sequence[str],
    resources: Sequence[str],
    *,
    api_group: str = "",
    namespace: str | None = None,
) -> list[Object]:
    """A role that may do `verbs` to `resources`, everywhere or in a namespace; bound to a user."""
    scope = "ClusterRole" if namespace is None else "Role"
    rule = {"apiGroups": [api_group], "resources": list(resources), "verbs": list(verbs)}
    binding = {
        "roleRef": {"apiGroup": _RBAC, "kind": scope, "name": name},
        "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user}],
    }
    version = f"{_RBAC}/v1"
    return [
        manifest(version, scope, name, namespace, rules=[rule]),
        manifest(version, f"{scope}Binding", name, namespace, **binding),
    ]
