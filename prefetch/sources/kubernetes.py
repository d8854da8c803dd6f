"""Kubernetes objects: the images of pods, and of whatever makes pods.

A pod's specification has images in `containers`, `initContainers`, `ephemeralContainers` and, as
volumes, in `volumes[].image.reference` (kubernetes/api core/v1). It is a Pod's own `spec`, or what
a template holds: `spec.template` of Deployments, StatefulSets, DaemonSets, ReplicaSets,
ReplicationControllers, Jobs, Argo Rollouts, Knative Services and OpenKruise's workloads,
`spec.jobTemplate.spec.template` of CronJobs, `template` of PodTemplates. Every kind is looked at
for these, since there are more than one list could name; a kind that is not known and has none is
not wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prefetch.errors import InvalidReference
from prefetch.oci.reference import Reference
from prefetch.sources.kinds import CustomKind
from prefetch.sources.selector import Demand, Note, Origin, Parsed, Selector, shown
from prefetch.sources.yamltree import ListNode, MapNode, Node, Scalar, is_null

_TEMPLATES: Final = (
    ("spec", "template", "spec"),
    ("spec", "jobTemplate", "spec", "template", "spec"),
    ("spec", "template", "jobTemplate", "spec", "template", "spec"),  # OpenKruise AdvancedCronJob
    ("template", "spec"),
    ("spec",),  # Pod, Knative Revision, OpenKruise SidecarSet
)
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")
_MAKE_PODS: Final = frozenset(
    {
        *("Pod", "PodTemplate", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"),
        *("ReplicationController", "Job", "CronJob"),
    }
)
_PLACEHOLDER: Final = re.compile(r"\{\{|\$\{|\$\(")
_RENDER: Final = "render it first: helm template, kustomize build, envsubst"
_ALWAYS: Final = "Always"
_NEVER: Final = "Never"
_LATEST: Final = re.compile(r"(^|/)[^/:@]+(:latest)?$")
_MOST_PODS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Object:
    """An object in a source, and how it is called there."""

    node: MapNode
    source: str

    @property
    def kind(self) -> str:
        return _text(self.node.items.get("kind"))

    @property
    def pods(self) -> int:
        """How many it starts, as far as it says; a CronJob's run only now and then."""
        spec = self.node.items.get("spec")
        fields = spec.items if isinstance(spec, MapNode) else {}
        default = 0 if self.kind.endswith("CronJob") else 1
        return min(max(_number(fields.get("replicas"), default), 0), _MOST_PODS)

    @property
    def called(self) -> str:
        """`Deployment shop/web`, as far as it says."""
        metadata = self.node.items.get("metadata")
        fields = metadata.items if isinstance(metadata, MapNode) else {}
        name = _text(fields.get("name")) or _text(fields.get("generateName")) or "?"
        namespace = _text(fields.get("namespace"))
        path = f"{namespace}/{name}" if namespace else name
        return f"{self.kind or 'object'} {shown(path)[1:-1]}"


def is_object(node: Node) -> bool:
    """Whether a document is a Kubernetes object, or a list of them."""
    return isinstance(node, MapNode) and bool(_text(node.items.get("kind")))


def parse(node: Node, name: str, kinds: Sequence[CustomKind] = ()) -> Parsed:
    """The images of one document; `name` stands in origins and errors. Raises nothing.

    `kinds` are those of one's own, which are looked at where they say, too.
    """
    parsed = Parsed()
    for found in _objects(node, name, parsed):
        if parsed.is_full(_origin(name, found.node)):
            break
        _object(found, parsed, kinds)
    return parsed


def pod_spec(node: Node) -> MapNode | None:
    """The specification of an object's pods, if it has one where they usually are."""
    for path in _TEMPLATES:
        found = _down(node, path)
        if isinstance(found, MapNode) and "containers" in found.items:
            return found
    return None


def kustomization(name: str, node: Node) -> Note:
    """What is said of one, where images are."""
    return Note(_origin(name, node), "a kustomization: kustomize build has its images")


def _objects(node: Node, source: str, parsed: Parsed) -> Iterator[_Object]:
    """The object, or those in it: `List` and what else ends so has `items`."""
    todo = [node]
    while todo:
        each = todo.pop()
        if not isinstance(each, MapNode):
            parsed.refuse(_origin(source, each).error("not a Kubernetes object"))
            if parsed.is_full(_origin(source, each)):
                return
            continue
        items = each.items.get("items")
        if not _text(each.items.get("kind")).endswith("List"):
            yield _Object(each, source)
        elif isinstance(items, ListNode):
            todo += reversed(items.items)


def _object(found: _Object, parsed: Parsed, kinds: Sequence[CustomKind]) -> None:
    if found.kind == "Kustomization":
        parsed.note(kustomization(found.source, found.node))
        return
    images = _Images(found, parsed)
    spec = pod_spec(found.node)
    if spec is not None:
        images.of_pod(spec)
    elif found.kind in _MAKE_PODS:
        images.fault(found.node, "there is no pod specification in it")
    for _, named in _of_kinds(found, kinds):
        parsed.extend(named)


def of_kinds(
    node: MapNode, name: str, kinds: Sequence[CustomKind]
) -> Iterator[tuple[MapNode | None, Parsed]]:
    """What an object of one's own kinds names where they say; each with its pod specification,
    if it is in one. `parse` has all that, too.
    """
    return _of_kinds(_Object(node, name), kinds)


def _of_kinds(
    found: _Object, kinds: Sequence[CustomKind]
) -> Iterator[tuple[MapNode | None, Parsed]]:
    for kind in kinds:
        if not kind.is_of(_text(found.node.items.get("apiVersion")), found.kind):
            continue
        for path in kind.images:
            for node in _at(found.node, path):
                images = _Images(found, Parsed())
                yield images.at(path, node), images.parsed


def _down(node: Node | None, path: Sequence[str]) -> Node | None:
    for key in path:
        node = node.items.get(key) if isinstance(node, MapNode) else None
    return node


@dataclass(frozen=True, slots=True)
class _Images:
    """Takes an object's images, and what is wrong with it, into `parsed`."""

    found: _Object
    parsed: Parsed

    def of_pod(self, spec: MapNode) -> None:
        for key in _CONTAINERS:
            for index, container in enumerate(self._list(spec, key)):
                if self.parsed.is_full(_origin(self.found.source, container)):
                    return
                if isinstance(container, MapNode):
                    self._used(spec, container, "image", f"{key}[{index}]")
                else:
                    self.fault(container, f"{key}[{index}]: not a container")
        for index, volume in enumerate(self._list(spec, "volumes")):
            image = volume.items.get("image") if isinstance(volume, MapNode) else None
            if isinstance(image, MapNode) and "reference" in image.items:
                self._used(spec, image, "reference", f"volumes[{index}].image")

    def _used(self, spec: MapNode, use: MapNode, key: str, where: str) -> None:
        """A container's or a volume's image, if nodes pull it."""
        if _is_never_pulled(use):
            return
        if key in use.items:
            self.add(use.items[key], f"{where}.{key}", self._demand(spec, use))
        elif self.found.kind == "Pod":
            self.fault(use, f"{where} has no {key}")

    def at(self, path: str, node: Node) -> MapNode | None:
        """What a path of a kind of one's own leads to: an image, or what pods are made of, which
        is returned.
        """
        for spec in (node, _down(node, ("spec",))):
            if isinstance(spec, MapNode) and "containers" in spec.items:
                self.of_pod(spec)
                return spec
        self.add(node, path, Demand(self.found.pods, askers=(self.found.called,)))
        return None

    def add(self, node: Node, where: str, demand: Demand) -> None:
        if not isinstance(node, Scalar) or node.value is None or not node.text:
            self.fault(node, f"{where} is no image")
        elif _PLACEHOLDER.search(node.text):
            self.fault(node, f"{where}: {shown(node.text)} is a template", hint=_RENDER)
        else:
            try:
                reference = Reference.parse(node.text)
            except InvalidReference as error:
                self.fault(node, f"{where}: {error}")
            else:
                origin = _origin(self.found.source, node)
                self.parsed.selectors.append(Selector(origin, reference, demand=demand))

    def fault(self, node: Node, message: str, *, hint: str | None = None) -> None:
        origin = _origin(self.found.source, node)
        self.parsed.refuse(origin.error(f"{self.found.called}: {message}", hint=hint))

    def _list(self, spec: MapNode, key: str) -> list[Node]:
        node = spec.items.get(key)
        optional = key != _CONTAINERS[0]
        if node is None or (optional and is_null(node)):
            return []
        if isinstance(node, ListNode):
            return node.items
        self.fault(node, f"{key} is not a list")
        return []

    def _demand(self, spec: MapNode, use: MapNode) -> Demand:
        """What a container or volume adds; a pod's `priority` is its class's, once admitted.

        An image with no tag, or `latest`, is pulled always unless a policy says otherwise
        (kubernetes.io, "Default image pull policy").
        """
        policy = _text(use.items.get("imagePullPolicy")) or _text(use.items.get("pullPolicy"))
        image = _text(use.items.get("image")) or _text(use.items.get("reference"))
        always = policy == _ALWAYS or (not policy and _LATEST.search(image) is not None)
        return Demand(
            self.found.pods, always, _number(spec.items.get("priority")), (self.found.called,)
        )


def _is_never_pulled(use: MapNode) -> bool:
    """Whether its image is on the node, or is yet to be named: Istio puts its own for `auto`
    (istio.io, "Installing Gateways").
    """
    policy = use.items.get("imagePullPolicy") or use.items.get("pullPolicy")
    injected = _text(use.items.get("name")) == "istio-proxy"
    return _text(policy) == _NEVER or (injected and _text(use.items.get("image")) == "auto")


def _at(node: Node, path: str) -> Iterator[Node]:
    """The nodes at a path; what is null there is not there."""
    key, _, rest = path.partition(".")
    found = node.items.get(key.removesuffix("[]")) if isinstance(node, MapNode) else None
    entries = found.items if key.endswith("[]") and isinstance(found, ListNode) else [found]
    for entry in entries:
        if entry is None or is_null(entry):
            continue
        if rest:
            yield from _at(entry, rest)
        else:
            yield entry


def _origin(source: str, node: Node) -> Origin:
    """What comes from a live cluster has no lines."""
    return Origin(source, node.line or None)


def _number(node: Node | None, default: int = 0) -> int:
    value = node.value if isinstance(node, Scalar) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) and node.value is not None else ""
