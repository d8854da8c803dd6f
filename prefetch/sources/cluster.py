"""A live cluster as a source: the images of its pods, and of what will make pods.

Pods are counted; workloads add the images of replicas that are not there now (none at the moment,
a CronJob between runs), and no pods of their own. What nodes there are says for which platforms to
fetch. What may not be read is named, and the rest is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from prefetch.errors import InvalidReference, SourceError
from prefetch.oci.platform import Platform, PlatformSet
from prefetch.sources import kubernetes
from prefetch.sources.kubeapi import Connection, KubeApi, Refused, open_api
from prefetch.sources.selector import Parsed, Selector
from prefetch.sources.yamltree import tree_of

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
_NODES: Final = Kind("nodes", "Node", "/api/v1")


@dataclass(frozen=True, slots=True)
class ClusterQuery:
    """What of a cluster: namespaces (none: all), a label selector, and for which platforms.

    `nodes` are those of the nodes; None leaves it to the run.
    """

    connection: Connection = field(default_factory=Connection)
    namespaces: tuple[str, ...] = ()
    selector: str = ""
    platforms: PlatformSet | Literal["nodes"] | None = "nodes"


async def read_cluster(query: ClusterQuery) -> Parsed:
    """The images of a cluster, each use a selector, with who asks for it.

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
        # Many pods are alike: what the same owner's pods ask for is the same.
        self._merged: dict[object, Selector] = {}

    async def read(self) -> Parsed:
        platforms = await self._platforms()
        for kind in (_PODS, *_KINDS):
            await self._images(kind)
        self._parsed.selectors = [
            replace(each, platforms=platforms) for each in self._merged.values()
        ]
        return self._parsed

    async def _platforms(self) -> PlatformSet | None:
        """Those of the nodes that are there; None where they cannot be listed."""
        if self._query.platforms != "nodes":
            return self._query.platforms
        found: dict[Platform, None] = {}
        async for node in self._listed(_NODES, namespaced=False):
            platform = _platform(node)
            if platform is not None:
                found[platform] = None
        return tuple(found) or None

    async def _images(self, kind: Kind) -> None:
        seen: set[str] = set()
        async for item in self._listed(kind):
            uid = str(_at(item, "metadata", "uid") or id(item))
            if uid in seen or (not kind.owned and _at(item, "metadata", "ownerReferences")):
                continue
            seen.add(uid)
            item.setdefault("kind", kind.singular)
            self._take(item, pods=kind is _PODS)

    def _take(self, item: dict[str, Any], *, pods: bool) -> None:
        wanted = {key: item[key] for key in ("kind", "metadata", "spec", "template") if key in item}
        wanted["metadata"] = {k: _at(item, "metadata", k) for k in ("name", "namespace")}
        parsed = kubernetes.parse(tree_of(wanted), SOURCE)
        self._parsed.errors += parsed.errors
        for selector in parsed.selectors:
            demand = selector.demand if pods else replace(selector.demand, pods=0)
            first = self._merged.get(selector.reference)
            if first is not None:
                demand = first.demand + demand
            self._merged[selector.reference] = replace(first or selector, demand=demand)

    async def _listed(
        self, kind: Kind, *, namespaced: bool = True
    ) -> AsyncIterator[dict[str, Any]]:
        """All objects of a kind in the wanted namespaces; what may not be listed is an error."""
        namespaces = self._query.namespaces if namespaced else ()
        parameters = {"labelSelector": self._query.selector} if namespaced else {}
        for namespace in namespaces or ("",):
            scope = f"/namespaces/{namespace}" if namespace else ""
            try:
                async for item in self._api.objects(f"{kind.path}{scope}/{kind.name}", parameters):
                    yield item
            except Refused as refused:
                if refused.status == _NOT_FOUND and kind.optional:
                    continue
                where = f" in namespace {namespace}" if namespace else ""
                self._parsed.errors.append(
                    SourceError(SOURCE, None, f"{kind.name}{where}: {refused}", hint=_HINT)
                )


def _platform(node: dict[str, Any]) -> Platform | None:
    """`status.nodeInfo` of a Node (kubernetes/api core/v1, NodeSystemInfo)."""
    system = _at(node, "status", "nodeInfo", "operatingSystem")
    architecture = _at(node, "status", "nodeInfo", "architecture")
    if not isinstance(system, str) or not isinstance(architecture, str):
        return None
    try:
        return Platform.parse(f"{system}/{architecture}")
    except InvalidReference:
        return None


def _at(item: Any, *path: str) -> Any:
    for key in path:
        item = item.get(key) if isinstance(item, dict) else None
    return item
