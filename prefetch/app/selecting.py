"""From what a command was given to the references of a run."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from prefetch.app.offloop import off_loop
from prefetch.app.requests import ClusterRequest, SourceRequest
from prefetch.app.runtime import Runtime, settings_for
from prefetch.config.settings import Settings, SourceSpec
from prefetch.errors import InvalidReference, UsageError
from prefetch.events import Emit, Remark
from prefetch.oci.platform import PlatformSet
from prefetch.oci.reference import Repository
from prefetch.sources.detect import load
from prefetch.sources.selector import Parsed, images_from_args, parse_platforms
from prefetch.sync.selection import Selection, expand


async def read_all(
    request: SourceRequest, emit: Emit, *, secrets: bool = True
) -> tuple[Settings, PlatformSet, Parsed]:
    """Settings and sources, before anything is opened; no registry is asked.

    Without `secrets` a cluster's are not read: what asks no registry needs none. Raises UsageError
    and ConfigError.
    """
    settings = await settings_for(request.place)
    platforms = platforms_of(request, settings)
    if not secrets:
        settings = replace(settings, cluster=replace(settings.cluster, use_pull_secrets=False))
        if request.cluster is not None:
            cluster = replace(request.cluster, use_pull_secrets=False)
            request = replace(request, cluster=cluster)
    parsed = await _read(request, settings)
    for note in parsed.notes:
        emit(Remark(str(note)))
    return settings, platforms, parsed


async def _read(request: SourceRequest, settings: Settings) -> Parsed:
    parsed = Parsed()
    for source in request.sources:
        parsed.extend(await _load(source, settings))
    parsed.extend(images_from_args(request.images))
    if request.cluster is not None:
        platforms: Literal["nodes"] | None = None if request.platforms else "nodes"
        parsed.extend(await read_cluster_of(request.cluster, settings, platforms))
    if request.sources or request.images or request.cluster is not None:
        return parsed
    if not settings.sources:
        raise UsageError(
            "nothing to do: no SOURCE, no --image, no --cluster, and no sources in the "
            "configuration",
            hint="prefetch sync --help shows examples",
        )
    return await read_specs(settings.sources, settings, by_nodes=not request.platforms)


async def read_specs(
    specs: Iterable[SourceSpec], settings: Settings, *, by_nodes: bool = True
) -> Parsed:
    """Sources of the configuration; without `by_nodes` the run's platforms go before a cluster's.

    Raises UsageError.
    """
    parsed = Parsed()
    for spec in specs:
        if isinstance(spec, Path):
            parsed.extend(await _load(spec, settings))
        else:
            wanted = ClusterRequest(namespaces=spec.namespaces, selector=spec.selector)
            platforms = spec.platforms if by_nodes else None
            parsed.extend(await read_cluster_of(wanted, settings, platforms))
    return parsed


async def _load(source: str | Path, settings: Settings) -> Parsed:
    """A pipe may never end, and what comes out of it may take long to parse."""
    # Not sys.stdin: a thread that waits for it would hold a lock that the interpreter's end needs.
    return await off_loop(lambda: load(source, lambda: io.FileIO(0, closefd=False), settings.kinds))


async def read_cluster_of(
    request: ClusterRequest,
    settings: Settings,
    platforms: PlatformSet | Literal["nodes"] | None = "nodes",
) -> Parsed:
    """What a cluster runs; `platforms` None: those that the run asks for.

    Raises UsageError.
    """
    from prefetch.sources.cluster import ClusterQuery, read_cluster
    from prefetch.sources.kubeapi import Connection

    def chosen(name: str) -> bool:
        asked: bool | None = getattr(request, name)
        return bool(getattr(settings.cluster, name)) if asked is None else asked

    query = ClusterQuery(
        Connection(request.kubeconfig, request.context),
        request.namespaces,
        request.selector,
        platforms,
        settings.kinds,
        running_digests=chosen("running_digests"),
        node_images=chosen("node_images"),
        use_pull_secrets=chosen("use_pull_secrets"),
    )
    return await read_cluster(query)


async def select(parsed: Parsed, runtime: Runtime, default: PlatformSet) -> Selection:
    """The references that the sources name, tag patterns expanded by asking the registries.

    From now on these are shown what the sources bring for them.
    """
    runtime.keychain.give(parsed.logins)

    async def tags(repository: Repository) -> list[str]:
        client = await runtime.upstreams.client_for(repository)
        return await client.tags(repository)

    selection = await expand(parsed.selectors, tags, default)
    return Selection(selection.wanted, [*parsed.errors, *selection.errors])


def platforms_of(request: SourceRequest, settings: Settings) -> PlatformSet:
    """What to fetch where a source does not say. Raises UsageError."""
    if not request.platforms:
        return settings.platforms
    try:
        return parse_platforms(request.platforms)
    except InvalidReference as error:
        raise UsageError(f"--platform: {error}") from None
