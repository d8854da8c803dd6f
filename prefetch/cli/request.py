"""From parsed options to what the application is asked for."""

from __future__ import annotations

from prefetch.app.requests import Place, SourceRequest
from prefetch.cli.options import Globals


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
