"""From parsed options to what the application is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prefetch.app.requests import Place, SourceRequest
from prefetch.cli.options import Globals

if TYPE_CHECKING:
    from prefetch.app.cacheserver import CacheOptions


def place(common: Globals, reserve: str | None = None) -> Place:
    """Where the settings and the data are."""
    return Place(common.config, common.data_dir, reserve)


def source_request(
    common: Globals,
    sources: tuple[str, ...],
    images: tuple[str, ...],
    platforms: tuple[str, ...],
    reserve: str | None,
) -> SourceRequest:
    """Which images, for which platforms."""
    return SourceRequest(place(common, reserve), sources, images, platforms)


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
