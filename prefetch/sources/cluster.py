"""A live cluster as a source: the images of its pods, and of what will make pods.

Pods are counted; workloads add the images of replicas that are not there now (none at the moment,
a CronJob between runs), and no pods of their own. What nodes there are says for which platforms to
fetch. What may not be read is named, and the rest is used.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from prefetch.errors import InvalidReference, NetworkError, SourceError, UsageError
from prefetch.oci.platform import PlatformSet
from prefetch.oci.reference import Reference
from prefetch.sources import kubernetes
from prefetch.sources.kinds import CustomKind
from prefetch.sources.kubeapi import Connection, KubeApi, Refused, open_api
from prefetch.sources.nodes import Nodes, entries, look
from prefetch.sources.pullsecrets import PullSecrets
from prefetch.sources.selector import Demand, Note, Origin, Parsed, Selector, shown
from prefetch.sources.yamltree import MapNode, tree_of

SOURCE: Final = "cluster"
_NOT_FOUND: Final = 404
_HINT: Final = "the rest is used; docs/clusters.md has the rights that are needed"


@dataclass(frozen=True, slots=True)
class Kind:
    """Objects of one kind: `path` is that of the API's group. Those that are controlled by one of
    `makers` say what those say, or what they said once.

    Items of a list leave out what they are, which is `singular`.
    """

    name: str
    singular: str
    path: str
    optional: bool = False
    makers: tuple[str, ...] = ()
    namespaced: bool = True


_PODS: Final = Kind("pods", "Pod", "/api/v1")
_KINDS: Final = (
    Kind("deployments", "Deployment", "/apis/apps/v1"),
    Kind("statefulsets", "StatefulSet", "/apis/apps/v1"),
    Kind("daemonsets", "DaemonSet", "/apis/apps/v1"),
    Kind("replicasets", "ReplicaSet", "/apis/apps/v1", makers=("Deployment", "Rollout")),
    Kind("replicationcontrollers", "ReplicationController", "/api/v1"),
    Kind("cronjobs", "CronJob", "/apis/batch/v1"),
    Kind("jobs", "Job", "/apis/batch/v1", makers=("CronJob",)),
    Kind("rollouts", "Rollout", "/apis/argoproj.io/v1alpha1", optional=True),
    Kind("services", "Service", "/apis/serving.knative.dev/v1", optional=True),
)
_NODES: Final = Kind("nodes", "Node", "/api/v1", namespaced=False)
_ACCOUNTS: Final = Kind("serviceaccounts", "ServiceAccount", "/api/v1")
_PARTS: Final = frozenset({"spec", "template"})
_MOST_UNANSWERED: Final = 1
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_STATUSES: Final = (
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
)


@dataclass(frozen=True, slots=True)
class ClusterQuery:
    """What of a cluster: namespaces (none: all), a label selector, and for which platforms.

    Platforms `nodes` are those of the nodes that pods may run on; None leaves it to the run.
    `kinds` are looked at besides those that every cluster has. `running_digests` adds what pods run
    now by digest, `node_images` what nodes hold and no pod names; `use_pull_secrets` reads what
    pods show to registries.
    """

    connection: Connection = field(default_factory=Connection)
    namespaces: tuple[str, ...] = ()
    selector: str = ""
    platforms: PlatformSet | Literal["nodes"] | None = "nodes"
    kinds: tuple[CustomKind, ...] = ()
    running_digests: bool = False
    node_images: bool = False
    use_pull_secrets: bool = False


async def read_cluster(query: ClusterQuery) -> Parsed:
    """The images of a cluster, with who asks for them; with the logins, if asked for.

    An image comes once, or twice where it is for some nodes' platforms and for the run's. What is
    not answered is an error in the result. Raises UsageError for a cluster that cannot be meant.
    """
    for namespace in query.namespaces:
        if not _NAMESPACE.fullmatch(namespace):
            raise UsageError(f"{shown(namespace)} is not a namespace's name")
    api = await open_api(query.connection)
    try:
        return await _Reading(api, query).read()
    finally:
        await api.close()


class _Reading:
    def __init__(self, api: KubeApi, query: ClusterQuery) -> None:
        self._api = api
        self._query = query
        self._parsed = Parsed()
        self._nodes = Nodes()
        self._secrets = PullSecrets(SOURCE) if query.use_pull_secrets else None
        # Many pods are alike; memory is for images, not for pods.
        self._merged: dict[tuple[Reference, bool], Selector] = {}
        self._unanswered = 0
        self._empty = set(query.namespaces)

    async def read(self) -> Parsed:
        await self._read_nodes()
        if self._secrets is not None:
            async for item in self._listed(_ACCOUNTS):
                self._secrets.account(item)
        own = [Kind(k.resource, k.kind, k.root) for k in self._query.kinds]
        for kind in (_PODS, *_KINDS, *own):
            await self._images(kind)
        if self._query.node_images:
            self._add_held()
        for namespace in sorted(self._empty):
            told = f"namespace {namespace}: there is nothing in it"
            self._parsed.note(Note(Origin(SOURCE), told))
        self._parsed.selectors = list(self._merged.values())
        if self._secrets is not None:
            await self._secrets.read(self._api, self._parsed)
        return self._parsed.summed_up(SOURCE)

    async def _read_nodes(self) -> None:
        if self._query.platforms != "nodes" and not self._query.node_images:
            return
        async for item in self._listed(_NODES):
            if not self._nodes.add(item):
                self._parsed.refuse(_error(f"Node {_name(item)} does not say what platform it is"))

    def _add_held(self) -> None:
        for selector in _held(self._nodes, {reference for reference, _ in self._merged}):
            by_nodes = self._query.platforms == "nodes"
            self._add(selector if by_nodes else replace(selector, platforms=self._platforms()))

    async def _images(self, kind: Kind) -> None:
        seen: set[str] = set()
        async for item in self._listed(kind):
            uid = str(look(item, "metadata", "uid") or id(item))
            if uid in seen or _is_made(item, kind.makers) or _is_finished(item, kind):
                continue
            seen.add(uid)
            try:
                self._take(item, kind)
            except RecursionError:
                self._parsed.refuse(_error(f"{kind.singular} {_name(item)}: nested too deeply"))

    def _take(self, item: Mapping[str, Any], kind: Kind) -> None:
        metadata = {key: look(item, "metadata", key) for key in ("name", "namespace")}
        version = kind.path.removeprefix("/apis/").removeprefix("/api/")
        wanted = {"apiVersion": version, "kind": kind.singular, "metadata": metadata}
        kinds = [each for each in self._query.kinds if each.is_of(version, kind.singular)]
        parts = _PARTS.union(*(each.roots for each in kinds))
        tree = tree_of(wanted | {key: item[key] for key in parts if key in item})
        if not isinstance(tree, MapNode):
            return
        found = kubernetes.parse(tree, SOURCE)
        if kind is _PODS:
            self._running(item, found)
        self._use(kubernetes.pod_spec(tree), found, kind, metadata["namespace"])
        for spec, named in kubernetes.of_kinds(tree, SOURCE, kinds):
            self._use(spec, named, kind, metadata["namespace"])

    def _use(self, spec: MapNode | None, found: Parsed, kind: Kind, namespace: Any) -> None:
        """Take in what pods of one specification use, or what an object names by itself."""
        for error in found.errors:
            self._parsed.refuse(error)
        platforms = self._platforms(spec)
        for selector in found.selectors:
            demand = selector.demand if kind is _PODS else replace(selector.demand, pods=0)
            self._add(replace(selector, platforms=platforms, demand=demand))
        if self._secrets is not None and spec is not None:
            used = {s.reference.repository for s in found.selectors if s.reference is not None}
            self._secrets.use(str(namespace), spec, used)

    def _platforms(self, spec: MapNode | None = None) -> PlatformSet | None:
        if self._query.platforms != "nodes":
            return self._query.platforms
        return self._nodes.platforms if spec is None else self._nodes.platforms_for(spec)

    def _add(self, selector: Selector) -> None:
        reference = selector.reference
        if reference is not None:
            # Those for the run's own platforms are united with others when these are known.
            key = (reference, selector.platforms is None)
            first = self._merged.get(key)
            self._merged[key] = selector if first is None else first + selector

    def _running(self, item: Mapping[str, Any], found: Parsed) -> None:
        """What a pod runs now, by digest."""
        if self._query.running_digests:
            asker = found.selectors[0].demand.askers if found.selectors else ()
            found.selectors += [
                Selector(Origin(SOURCE), each, demand=Demand(1, askers=asker), optional=True)
                for each in dict.fromkeys(_running(look(item, "status")))
            ]

    async def _listed(self, kind: Kind) -> AsyncIterator[dict[str, Any]]:
        """All objects of a kind in the wanted namespaces; what may not be listed is an error."""
        namespaces = self._query.namespaces if kind.namespaced else ()
        narrowed = kind.namespaced and kind is not _ACCOUNTS
        parameters = {"labelSelector": self._query.selector} if narrowed else {}
        for namespace in namespaces or ("",):
            if self._unanswered > _MOST_UNANSWERED:
                return
            scope = f"/namespaces/{namespace}" if namespace else ""
            where = f" in namespace {namespace}" if namespace else ""
            try:
                async for item in self._api.objects(f"{kind.path}{scope}/{kind.name}", parameters):
                    self._empty.discard(namespace)
                    yield item
            except Refused as refused:
                if refused.status == _NOT_FOUND and kind.optional:
                    continue
                self._parsed.refuse(_error(f"{kind.name}{where}: {refused}", hint=_HINT))
            except NetworkError as error:
                self._unanswered += 1
                rest = "" if self._unanswered <= _MOST_UNANSWERED else "; no more is asked for"
                self._parsed.refuse(_error(f"{kind.name}{where}: {error}{rest}"))


def _error(message: str, *, hint: str | None = None) -> SourceError:
    return SourceError(SOURCE, None, message, hint=hint)


def _name(item: Mapping[str, Any]) -> str:
    return shown(look(item, "metadata", "name"))


def _is_made(item: Mapping[str, Any], makers: tuple[str, ...]) -> bool:
    owners = entries(look(item, "metadata", "ownerReferences"))
    return any(look(o, "controller") is True and look(o, "kind") in makers for o in owners)


def _is_finished(item: Mapping[str, Any], kind: Kind) -> bool:
    """Pods and Jobs that have ended are not started again: what controls them makes new ones."""
    if kind is _PODS:
        return look(item, "status", "phase") in ("Succeeded", "Failed")
    conditions = entries(look(item, "status", "conditions")) if kind.singular == "Job" else []
    return any(
        look(each, "type") in ("Complete", "Failed") and look(each, "status") == "True"
        for each in conditions
    )


def _running(status: Any) -> Iterator[Reference]:
    """`imageID` of each container, `imageRef` of each mounted image (kubernetes/api core/v1).

    Runtimes put their own words before it (`docker-pullable://`). A lone digest is that of a
    config, by which no registry gives an image.
    """
    for statuses in _STATUSES:
        for each in entries(look(status, statuses)):
            mounts = entries(look(each, "volumeMounts"))
            names = [look(mount, "volumeStatus", "image", "imageRef") for mount in mounts]
            for name in (look(each, "imageID"), *names):
                reference = _parsed(name)
                if reference is not None and reference.digest is not None:
                    yield reference


def _held(nodes: Nodes, named: set[Reference]) -> Iterator[Selector]:
    """Images on nodes that nothing names; by their tags, or by digest where they have none."""
    for names, platforms, node in nodes.held():
        references = [each for each in map(_parsed, names) if each is not None]
        if named.isdisjoint(references):
            tagged = [each for each in references if each.digest is None]
            demand = Demand(askers=(f"Node {node}",))
            for each in tagged or references:
                yield Selector(
                    Origin(SOURCE), each, platforms=platforms, demand=demand, optional=True
                )


def _parsed(name: Any) -> Reference | None:
    """None for what is no reference: nodes and runtimes say so of images that were built there."""
    text = name.rpartition("://")[2] if isinstance(name, str) else ""
    try:
        return Reference.parse(text) if text and not text.startswith("sha256:") else None
    except InvalidReference:
        return None
