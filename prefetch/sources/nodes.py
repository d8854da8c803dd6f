"""The nodes of a cluster: for which platforms a pod's images are wanted, and what nodes hold.

A pod runs where its `nodeSelector` and its required node affinity let it, and where it tolerates
the taints (kubernetes.io, "Assigning Pods to Nodes", "Taints and Tolerations"); and where it
runs now, whatever they say. Taints of a node's condition come and go, as a cordon does, and are
not looked at: a node that is drained today is back tomorrow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from prefetch.errors import InvalidReference
from prefetch.oci.platform import Platform, PlatformSet
from prefetch.sources.yamltree import MapNode, plain

_ARCH: Final = "kubernetes.io/arch"
_SYSTEM: Final = "kubernetes.io/os"
_USUAL: Final = "amd64"
_BUILD: Final = "node.kubernetes.io/windows-build"
_WINDOWS: Final = "windows"
_VERSION: Final = re.compile(r"[0-9]+(\.[0-9]+){2,3}")
_NUMBER: Final = re.compile(r"[-+]?[0-9]{1,18}")
# Kubernetes' own, those of autoscalers that take a node away, those of drivers not yet there.
_PASSING: Final = re.compile(
    r"node\.kubernetes\.io/|node\.cloudprovider\.kubernetes\.io/|karpenter\.sh/"
    r"|(ToBeDeleted|DeletionCandidateOf)[A-Za-z]*|.*/(agent-)?not-ready$|.*/uninitialized$"
)
_KEEPING_OUT: Final = ("NoSchedule", "NoExecute")
_FIELDS: Final = ("nodeSelector", "affinity", "tolerations", "os", "nodeName")


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    platform: Platform
    labels: Mapping[str, str]
    taints: Sequence[Mapping[str, Any]]


class Nodes:
    """The nodes that there are, as their API objects say."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._answers: dict[str, PlatformSet | None] = {}
        self._held: dict[tuple[str, ...], dict[Platform, str]] = {}

    def add(self, item: Mapping[str, Any]) -> bool:
        """Take one of the API's Nodes; False for one that does not say what it is."""
        platform = _platform(item)
        if platform is None:
            return False
        name = str(look(item, "metadata", "name") or "?")
        taints = [each for each in entries(look(item, "spec", "taints")) if _keeps_out(each)]
        self._nodes.append(_Node(name, platform, _labels(item), taints))
        for image in entries(look(item, "status", "images")):
            names = tuple(each for each in entries(look(image, "names")) if isinstance(each, str))
            if names:
                self._held.setdefault(names, {}).setdefault(platform, name)
        return True

    @property
    def platforms(self) -> tuple[Platform, ...] | None:
        """Those of all nodes; None where there is no node."""
        return tuple(dict.fromkeys(node.platform for node in self._nodes)) or None

    def platforms_for(self, spec: MapNode) -> PlatformSet | None:
        """Those of the nodes that a pod with this specification may run on.

        Where it may run on none, a node for it is still to come: of the platform that its selector
        names, or of any. None where neither says anything.
        """
        wish: dict[str, Any] = {key: plain(spec.items[key]) for key in _FIELDS if key in spec.items}
        key = json.dumps(wish, sort_keys=True, default=str)
        if key not in self._answers:
            found = dict.fromkeys(n.platform for n in self._nodes if _admits(n, wish))
            self._answers[key] = tuple(found) or self._to_come(wish)
        return self._answers[key]

    def _to_come(self, wish: Mapping[str, Any]) -> PlatformSet | None:
        """What the labels that every node has, or `os`, say of a node that is not there yet."""
        selector = wish.get("nodeSelector")
        architecture, system = look(selector, _ARCH), look(selector, _SYSTEM)
        if not isinstance(system, str):
            system = look(wish.get("os"), "name")
        if isinstance(architecture, str):
            architectures = [architecture]
        elif isinstance(system, str):
            architectures = [each.architecture for each in self.platforms or ()] or [_USUAL]
        else:
            return self.platforms
        found = (_parsed(system or "linux", each) for each in architectures)
        return tuple(dict.fromkeys(each for each in found if each is not None)) or self.platforms

    def held(self) -> Iterator[tuple[tuple[str, ...], PlatformSet, str]]:
        """The images that nodes say they hold: names, platforms, and one node that holds it.

        Kubelets tell of 50 images each unless told otherwise (`nodeStatusMaxImages`).
        """
        for names, platforms in self._held.items():
            yield names, tuple(platforms), next(iter(platforms.values()))


def look(item: Any, *path: str) -> Any:
    """What is at a path of keys in JSON; None where there is nothing."""
    for key in path:
        item = item.get(key) if isinstance(item, dict) else None
    return item


def entries(value: Any) -> list[Any]:
    """A list's, in JSON; none where there is no list."""
    return value if isinstance(value, list) else []


def _platform(item: Mapping[str, Any]) -> Platform | None:
    """`status.nodeInfo` of a Node (kubernetes/api core/v1, NodeSystemInfo), or what its labels say.

    Windows runs images of its own build alone, which its kernel's version tells.
    """
    labels = _labels(item)
    info = look(item, "status", "nodeInfo")
    system = look(info, "operatingSystem") or labels.get(_SYSTEM)
    platform = _parsed(system, look(info, "architecture") or labels.get(_ARCH))
    if platform is None or platform.os != _WINDOWS:
        return platform
    version = look(info, "kernelVersion") or labels.get(_BUILD)
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        return platform
    return replace(platform, os_version=version)


def _parsed(system: Any, architecture: Any) -> Platform | None:
    try:
        both = isinstance(system, str) and isinstance(architecture, str)
        return Platform.parse(f"{system}/{architecture}") if both else None
    except InvalidReference:
        return None


def _labels(item: Mapping[str, Any]) -> dict[str, str]:
    labels = look(item, "metadata", "labels")
    found = labels.items() if isinstance(labels, dict) else ()
    return {key: value for key, value in found if isinstance(value, str)}


def _keeps_out(taint: Any) -> bool:
    key = str(look(taint, "key"))
    return look(taint, "effect") in _KEEPING_OUT and _PASSING.match(key) is None


def _admits(node: _Node, wish: Mapping[str, Any]) -> bool:
    if wish.get("nodeName") == node.name:
        return True
    selector = wish.get("nodeSelector")
    labels = selector.items() if isinstance(selector, dict) else ()
    if any(node.labels.get(key) != value for key, value in labels):
        return False
    system = look(wish.get("os"), "name")
    if isinstance(system, str) and system != node.platform.os:
        return False
    required = look(
        wish.get("affinity"), "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if required is not None and not any(
        _fits(node, term) for term in entries(look(required, "nodeSelectorTerms"))
    ):
        return False
    tolerations = entries(wish.get("tolerations"))
    return all(any(_tolerates(each, taint) for each in tolerations) for taint in node.taints)


def _fits(node: _Node, term: Any) -> bool:
    """Whether all of a NodeSelectorTerm is so; an empty one fits nothing."""
    labels, fields = entries(look(term, "matchExpressions")), entries(look(term, "matchFields"))
    own = {"metadata.name": node.name}
    return bool(labels or fields) and all(
        (
            *(_holds(node.labels, each) for each in labels),
            *(_holds(own, each) for each in fields),
        )
    )


def _holds(labels: Mapping[str, str], wanted: Any) -> bool:
    """A NodeSelectorRequirement (kubernetes/api core/v1)."""
    key, values = look(wanted, "key"), entries(look(wanted, "values"))
    value = labels.get(key) if isinstance(key, str) else None
    match look(wanted, "operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            return _compares(value, values, greater=operator == "Gt")
    return False


def _compares(value: str | None, values: Sequence[Any], *, greater: bool) -> bool:
    have, limit = value or "", values[0] if values else None
    if not isinstance(limit, str) or not _NUMBER.fullmatch(have) or not _NUMBER.fullmatch(limit):
        return False
    return int(have) > int(limit) if greater else int(have) < int(limit)


def _tolerates(toleration: Any, taint: Mapping[str, Any]) -> bool:
    """kubernetes/api core/v1, Toleration: no key and Exists tolerates all."""
    key, effect = look(toleration, "key"), look(toleration, "effect")
    if (key and key != taint.get("key")) or (effect and effect != taint["effect"]):
        return False
    if look(toleration, "operator") == "Exists":
        return True
    return bool(key) and (look(toleration, "value") or "") == (taint.get("value") or "")
