"""Selectors expanded: tag queries become references, with the registry's list of tags."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from prefetch.errors import InvalidReference, PrefetchError, SourceError
from prefetch.oci.platform import PlatformSet
from prefetch.oci.reference import Reference, Repository
from prefetch.sources.selector import Origin, Selector, TagQuery, merge
from prefetch.sources.versions import Range, TagVersion
from prefetch.sync.tagmatch import matching
from prefetch.sync.wanted import Wanted

ListTags = Callable[[Repository], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted, each reference once, and which selectors could not be expanded."""

    wanted: list[Wanted]
    errors: list[SourceError]


async def expand(selectors: Iterable[Selector], tags: ListTags, default: PlatformSet) -> Selection:
    """Everything that `selectors` ask for, in their order.

    `tags` lists a repository's tags; each repository is listed once, many at once. `default`
    stands in where a selector names no platforms. A query that fails, or that no tag passes, is an
    error at its origin; the others stand.
    """
    merged = merge(selectors, default)
    queries = [selector for selector in merged if selector.reference is None]
    listings = _Listings(tags)
    answers = await asyncio.gather(*(_expand(query, listings) for query in queries))
    expanded = dict(zip(map(id, queries), answers, strict=True))
    flat: list[Selector] = []
    errors: list[SourceError] = []
    for selector in merged:
        answer = expanded.get(id(selector), [selector])
        if isinstance(answer, SourceError):
            errors.append(answer)
        else:
            flat += answer
    wanted = [
        Wanted(
            selector.reference,
            selector.platforms,
            selector.priority,
            selector.demand,
            selector.optional,
        )
        for selector in merge(flat, default)
        if selector.reference is not None and selector.platforms is not None
    ]
    return Selection(wanted, errors)


def choose(query: TagQuery, tags: Iterable[str]) -> list[str]:
    """The tags that pass `semver` and `newest`, in version order where one of them is given.

    Prereleases need a range that admits them. Variants (`1.27-alpine`) are chosen only where a
    `regex`, already applied by the caller, has said which.
    """
    if query.semver is None and query.newest is None:
        return list(tags)
    versions = [version for version in map(TagVersion.parse, tags) if version is not None]
    if query.regex is None:
        versions = [version for version in versions if not version.variant]
    allowed = Range.parse(query.semver if query.semver is not None else "*")
    versions = sorted((v for v in versions if v.version in allowed), key=lambda v: v.key)
    return [version.tag for version in versions[-(query.newest or 0) :]]


class _Listings:
    """Each repository's tags, asked for once."""

    def __init__(self, tags: ListTags) -> None:
        self._list = tags
        self._tasks: dict[Repository, asyncio.Future[Sequence[str]]] = {}

    async def of(self, repository: Repository) -> Sequence[str]:
        if repository not in self._tasks:
            self._tasks[repository] = asyncio.ensure_future(self._list(repository))
        return await self._tasks[repository]


async def _expand(selector: Selector, listings: _Listings) -> list[Selector] | SourceError:
    query, repository = selector.tags or TagQuery(), selector.repository
    if repository is None:
        return []
    try:
        names = [*query.names, *await _listed(query, repository, selector.origin, listings)]
    except SourceError as error:
        return error
    except PrefetchError as error:
        return selector.origin.error(f"{repository}: its tags cannot be listed: {error}")
    references = [_reference(repository, name) for name in dict.fromkeys(names)]
    return [
        replace(selector, reference=reference, repository=None, tags=None)
        for reference in references
        if reference is not None
    ] or selector.origin.error(f"{repository}: no tag matches")


async def _listed(
    query: TagQuery, repository: Repository, origin: Origin, listings: _Listings
) -> list[str]:
    if not query.needs_listing:
        return []
    tags = await listings.of(repository)
    if query.regex is not None:
        tags = await matching(query.regex, tags, origin)
    return choose(query, tags)


def _reference(repository: Repository, tag: str) -> Reference | None:
    """None for what a registry listed and no tag can be."""
    try:
        return repository.tagged(tag)
    except InvalidReference:
        return None
