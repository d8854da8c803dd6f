"""A live cluster as a source: the images of its pods, and of what will make pods.

Pods are counted; workloads add the images of replicas that are not there now (none at the moment,
a CronJob between runs), and no pods of their own. What nodes there are says for which platforms to
fetch. What may not be read is named, and the rest is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from prefetch.errors import InvalidReference, SourceError
from prefetch.oci.platform import PlatformSet
from prefetch.oci.reference import Reference
from prefetch.sources import kubernetes
from prefetch.sources.kinds import CustomKind
from prefetch.sources.kubeapi import Connection, KubeApi, Refused, open_api
from prefetch.sources.nodes import Nodes, entries, look
from prefetch.sources.pullsecrets import PullSecrets
from prefetch.sources.selector import Demand, Note, Origin, Parsed, Selector
from prefetch.sources.yamltree import MapNode, tree_of

SOURCE: Final = "cluster"
_NOT_FOUND: Final = 404
_HINT: Final = "the rest is used; docs/clusters.md has the rights that are needed"


@dataclass(frozen=True, slots=True)
class Kind:
    """Objects of one kind: `path` is that of the API's group, `owned` also what others own.

    Items of a list leave out what they are, which is `singular`.
    """

    name: str
    singular: str
    path: str
    optional: bool = False
    owned: bool = True
    namespaced: bool = True


_PODS: Final = Kind("pods", "Pod", "/api/v1")
_KINDS: Final = (
    Kind("deployments", "Deployment", "/apis/apps/v1"),
    Kind("statefulsets", "StatefulSet", "/apis/apps/v1"),
    Kind("daemonsets", "DaemonSet", "/apis/apps/v1"),
    # Those of Deployments are old revisions, or say what the Deployment says.
    Kind("replicasets", "ReplicaSet", "/apis/apps/v1", owned=False),
    Kind("replicationcontrollers", "ReplicationController", "/api/v1", owned=False),
    Kind("cronjobs", "CronJob", "/apis/batch/v1"),
    Kind("jobs", "Job", "/apis/batch/v1", owned=False),
    Kind("rollouts", "Rollout", "/apis/argoproj.io/v1alpha1", optional=True),
    Kind("services", "Service", "/apis/serving.knative.dev/v1", optional=True),
)
_NODES: Final = Kind("nodes", "Node", "/api/v1", namespaced=False)
_ACCOUNTS: Final = Kind("serviceaccounts", "ServiceAccount", "/api/v1")
_PARTS: Final = ("spec", "template")
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
    """The images of a cluster, each once, with who asks for it; with the logins, if asked for.

    Raises UsageError and NetworkError where the cluster cannot be asked at all.
    """
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
        self._merged: dict[Reference, Selector] = {}

    async def read(self) -> Parsed:
        query = self._query
        if query.platforms == "nodes" or query.node_images:
            async for item in self._listed(_NODES):
                self._nodes.add(item)
        if self._secrets is not None:
            async for item in self._listed(_ACCOUNTS):
                self._secrets.account(item)
        own = [Kind(k.resource, k.kind, k.root, optional=True) for k in query.kinds]
        for kind in (_PODS, *_KINDS, *own):
            await self._images(kind)
        if query.node_images:
            for selector in _held(self._nodes, set(self._merged)):
                by_nodes = query.platforms == "nodes"
                self._add(selector if by_nodes else replace(selector, platforms=self._platforms()))
        self._parsed.selectors = list(self._merged.values())
        if self._secrets is not None:
            await self._secrets.read(self._api, self._parsed)
        return self._parsed.summed_up(SOURCE)

    async def _images(self, kind: Kind) -> None:
        seen: set[str] = set()
        async for item in self._listed(kind):
            uid = str(look(item, "metadata", "uid") or id(item))
            if uid in seen or (not kind.owned and look(item, "metadata", "ownerReferences")):
                continue
            seen.add(uid)
            self._take(item, kind)

    def _take(self, item: Mapping[str, Any], kind: Kind) -> None:
        metadata = {key: look(item, "metadata", key) for key in ("name", "namespace")}
        version = kind.path.removeprefix("/apis/").removeprefix("/api/")
        wanted = {"apiVersion": version, "kind": kind.singular, "metadata": metadata}
        wanted |= {key: item[key] for key in _PARTS if key in item}
        tree = tree_of(wanted)
        found = kubernetes.parse(tree, SOURCE, self._query.kinds)
        for error in found.errors:
            self._parsed.refuse(error)
        spec = kubernetes.pod_spec(tree)
        platforms = self._platforms(spec)
        if kind is _PODS:
            self._running(item, found)
        for selector in found.selectors:
            demand = selector.demand if kind is _PODS else replace(selector.demand, pods=0)
            self._add(replace(selector, platforms=platforms, demand=demand))
        if self._secrets is not None and spec is not None:
            used = {s.reference.repository for s in found.selectors if s.reference is not None}
            self._secrets.use(str(metadata["namespace"]), spec, used)

    def _platforms(self, spec: MapNode | None = None) -> PlatformSet | None:
        if self._query.platforms != "nodes":
            return self._query.platforms
        return self._nodes.platforms if spec is None else self._nodes.platforms_for(spec)

    def _add(self, selector: Selector) -> None:
        reference = selector.reference
        if reference is not None:
            first = self._merged.get(reference)
            self._merged[reference] = selector if first is None else first + selector

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
            scope = f"/namespaces/{namespace}" if namespace else ""
            try:
                async for item in self._api.objects(f"{kind.path}{scope}/{kind.name}", parameters):
                    yield item
            except Refused as refused:
                if refused.status == _NOT_FOUND and kind.optional:
                    if kind not in _KINDS:
                        note = f"{kind.name}: the cluster has no {kind.path}/{kind.name}"
                        self._parsed.note(Note(Origin(SOURCE), note))
                    continue
                where = f" in namespace {namespace}" if namespace else ""
                self._parsed.refuse(
                    SourceError(SOURCE, None, f"{kind.name}{where}: {refused}", hint=_HINT)
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
