"""The nodes of a cluster: for which platforms a pod's images are wanted, and what nodes hold.

A pod runs where its `nodeSelector` and its required node affinity let it, and where it tolerates
the taints (kubernetes.io, "Assigning Pods to Nodes", "Taints and Tolerations"). Taints of a node's
condition come and go, as a cordon does, and are not looked at: a node that is drained today is
back tomorrow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prefetch.errors import InvalidReference
from prefetch.oci.platform import Platform, PlatformSet
from prefetch.sources.yamltree import MapNode, plain

_ARCH: Final = "kubernetes.io/arch"
_SYSTEM: Final = "kubernetes.io/os"
_CONDITIONS: Final = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
_KEEPING_OUT: Final = ("NoSchedule", "NoExecute")
_FIELDS: Final = ("nodeSelector", "affinity", "tolerations", "os")


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

    def add(self, item: Mapping[str, Any]) -> None:
        """Take one of the API's Nodes; one that does not say what it is counts for nothing."""
        platform = _platform(item)
        if platform is None:
            return
        name = str(look(item, "metadata", "name") or "?")
        taints = [each for each in entries(look(item, "spec", "taints")) if _keeps_out(each)]
        self._nodes.append(_Node(name, platform, _labels(item), taints))
        for image in entries(look(item, "status", "images")):
            names = tuple(each for each in entries(look(image, "names")) if isinstance(each, str))
            if names:
                self._held.setdefault(names, {}).setdefault(platform, name)

    @property
    def platforms(self) -> PlatformSet | None:
        """Those of all nodes; None where there is no node."""
        return tuple(dict.fromkeys(node.platform for node in self._nodes)) or None

    def platforms_for(self, spec: MapNode) -> PlatformSet | None:
        """Those of the nodes that a pod with this specification may run on.

        Where it may run on none, a node for it is still to come: of the platform that its selector
        names, or of any. None where no node is known.
        """
        if not self._nodes:
            return None
        wish: dict[str, Any] = {key: plain(spec.items[key]) for key in _FIELDS if key in spec.items}
        key = json.dumps(wish, sort_keys=True, default=str)
        if key not in self._answers:
            found = dict.fromkeys(n.platform for n in self._nodes if _admits(n, wish))
            self._answers[key] = tuple(found) or _named(wish) or self.platforms
        return self._answers[key]

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
    """`status.nodeInfo` of a Node (kubernetes/api core/v1, NodeSystemInfo)."""
    system = look(item, "status", "nodeInfo", "operatingSystem")
    architecture = look(item, "status", "nodeInfo", "architecture")
    if not isinstance(system, str) or not isinstance(architecture, str):
        return None
    try:
        return Platform.parse(f"{system}/{architecture}")
    except InvalidReference:
        return None


def _labels(item: Mapping[str, Any]) -> dict[str, str]:
    labels = look(item, "metadata", "labels")
    found = labels.items() if isinstance(labels, dict) else ()
    return {key: value for key, value in found if isinstance(value, str)}


def _keeps_out(taint: Any) -> bool:
    return look(taint, "effect") in _KEEPING_OUT and not str(look(taint, "key")).startswith(
        _CONDITIONS
    )


def _admits(node: _Node, wish: Mapping[str, Any]) -> bool:
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
    try:
        have, limit = int(value or ""), int(values[0])
    except (ValueError, TypeError, IndexError):
        return False
    return have > limit if greater else have < limit


def _tolerates(toleration: Any, taint: Mapping[str, Any]) -> bool:
    """kubernetes/api core/v1, Toleration: no key and Exists tolerates all."""
    key, effect = look(toleration, "key"), look(toleration, "effect")
    if (key and key != taint.get("key")) or (effect and effect != taint["effect"]):
        return False
    if look(toleration, "operator") == "Exists":
        return True
    return bool(key) and (look(toleration, "value") or "") == (taint.get("value") or "")


def _named(wish: Mapping[str, Any]) -> PlatformSet | None:
    """The platform that a selector names by the labels that every node has."""
    selector = wish.get("nodeSelector")
    architecture, system = look(selector, _ARCH), look(selector, _SYSTEM)
    if not isinstance(architecture, str):
        return None
    named = system if isinstance(system, str) else look(wish.get("os"), "name")
    try:
        return (Platform.parse(f"{named or 'linux'}/{architecture}"),)
    except InvalidReference:
        return None
