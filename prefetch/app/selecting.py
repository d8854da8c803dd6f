"""From what a command was given to the references of a run."""

from __future__ import annotations

import sys
from pathlib import Path

from prefetch.app.requests import SourceRequest
from prefetch.app.runtime import Runtime, settings_at
from prefetch.config.settings import Settings
from prefetch.errors import InvalidReference, UsageError
from prefetch.events import Emit, Remark
from prefetch.oci.platform import PlatformSet
from prefetch.oci.reference import Repository
from prefetch.sources.detect import load
from prefetch.sources.selector import Parsed, images_from_args, parse_platforms
from prefetch.sync.selection import Selection, expand


def read_all(request: SourceRequest, emit: Emit) -> tuple[Settings, PlatformSet, Parsed]:
    """Settings and sources, before anything is opened. Raises UsageError and ConfigError."""
    settings = settings_at(request.place)
    platforms = platforms_of(request, settings)
    parsed = read_sources(request, settings)
    for note in parsed.notes:
        emit(Remark(str(note)))
    return settings, platforms, parsed


def read_sources(request: SourceRequest, settings: Settings) -> Parsed:
    """Parse all sources; nothing is asked of any registry. Raises UsageError."""
    parsed = Parsed()
    for source in request.sources:
        parsed.extend(load(source, sys.stdin.buffer))
    parsed.extend(images_from_args(request.images))
    if request.sources or request.images:
        return parsed
    if not settings.sources:
        raise UsageError(
            "nothing to do: no SOURCE, no --image, and no sources in the configuration",
            hint="prefetch sync --help shows examples",
        )
    for spec in settings.sources:
        if not isinstance(spec, Path):
            raise UsageError(
                f"{settings.path}: this version cannot read a cluster's images",
                hint="name them in a list",
            )
        parsed.extend(load(spec, sys.stdin.buffer))
    return parsed


async def select(parsed: Parsed, runtime: Runtime, default: PlatformSet) -> Selection:
    """The references that the sources name, tag patterns expanded by asking the registries."""

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
