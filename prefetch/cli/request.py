"""From parsed options to what the application is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prefetch.app.requests import ClusterRequest, Place, SourceRequest
from prefetch.cli.options import Globals
from prefetch.errors import UsageError

if TYPE_CHECKING:
    from prefetch.app.cacheserver import CacheOptions

_CLUSTER_OPTIONS = (
    *("kubeconfig", "context", "namespaces", "selector"),
    *("use_pull_secrets", "running_digests", "node_images"),
)
_IMAGE_OPTIONS = ("sources", "images", "platforms", "cluster", *_CLUSTER_OPTIONS)


def place(common: Globals, reserve: str | None = None, pace: str | None = None) -> Place:
    """Where the settings and the data are, and how pulls are spent."""
    return Place(common.config, common.data_dir, reserve, pace)


def source_request(
    common: Globals,
    images: dict[str, Any],
    reserve: str | None = None,
    pace: str | None = None,
) -> SourceRequest:
    """Which images, for which platforms, from the values of `image_options`; takes them out."""
    named = {name: images.pop(name) for name in _IMAGE_OPTIONS}
    cluster = cluster_request(named) if named["cluster"] else None
    stray = [] if cluster else [name for name in _CLUSTER_OPTIONS if named[name]]
    if stray:
        option = stray[0].replace("_", "-").removesuffix("s" if stray[0] == "namespaces" else "")
        raise UsageError(f"--{option} goes with --cluster")
    return SourceRequest(
        place(common, reserve, pace), named["sources"], named["images"], named["platforms"], cluster
    )


def cluster_request(options: Mapping[str, Any]) -> ClusterRequest:
    """Which cluster, from the values of `cluster_options`."""
    return ClusterRequest(**{name: options[name] for name in _CLUSTER_OPTIONS})


def cache_of(url: str, options: Mapping[str, Any]) -> CacheOptions:
    """Where a running cache is, from the values of `cache_options`."""
    from prefetch.app.cacheserver import CacheOptions
    from prefetch.remote.direct import Trust

    trust = Trust(
        options["ca_file"],
        options["cert_file"],
        options["key_file"],
        verify=not options["insecure_skip_verify"],
    )
    return CacheOptions(
        url,
        options["username"],
        options["password_env"],
        options["password_file"],
        trust,
        options["timeout"],
    )
