"""A whole probe: the connection, what the cache lists if nothing is named, then every client.

The kinds of client go on side by side, each reference by reference. It all ends by a deadline:
what has not been asked for by then counts as failed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from itertools import chain, islice, zip_longest
from typing import Any, Final

from prefetch.clock import Clock
from prefetch.errors import InvalidReference, PrefetchError
from prefetch.oci.distribution import tags_path
from prefetch.oci.reference import Reference, Repository, is_tag
from prefetch.remote.direct import DirectServer, Reply
from prefetch.sync.probe import Check, ClientResult, ProbeError, ProbeReport, Pulled, Step
from prefetch.sync.probeclients import CLIENT_KINDS, ClientKind, Puller
from prefetch.sync.probeconnection import Introducer, Introduction
from prefetch.sync.probereplies import Asked, Fault, expect

MOST_LISTED: Final = 5
"""References that are taken from what the cache lists."""

_PAGE: Final = 1000
_PAGE_LIMIT: Final = 1 << 20
# Every client stops at its first timeout, reference by reference.
_SPARE_TIMEOUTS: Final = 6


async def probe_cache(
    server: DirectServer, references: Sequence[str], *, any_registry: bool, clock: Clock
) -> ProbeReport:
    """Ask a running cache as each kind of client does; no pull is spent.

    `references` are as people write them. Raises nothing for what the server does.
    """
    errors: list[ProbeError] = []
    wanted = _parsed(references, errors)
    url = str(server.url)
    found = await Introducer(server, any_registry=any_registry, now=clock.now).meet()
    if found.usable and not references:
        wanted = await _listed(server, found, errors)
    if not found.usable or not wanted:
        return ProbeReport(url, found.steps, (), errors)
    clients = await _pull_all(server, found, wanted)
    return ProbeReport(url, found.steps, clients, errors)


def _parsed(texts: Iterable[str], errors: list[ProbeError]) -> list[Reference]:
    found: dict[Reference, None] = {}
    for text in texts:
        try:
            found[Reference.parse(text)] = None
        except InvalidReference as error:
            errors.append(ProbeError(text, str(error)))
    return list(found)


# Clients


async def _pull_all(
    server: DirectServer, found: Introduction, references: Sequence[Reference]
) -> list[ClientResult]:
    results: list[tuple[ClientKind, list[Pulled]]] = [(kind, []) for kind in CLIENT_KINDS]
    deadline = server.timeout * (_SPARE_TIMEOUTS + len(references))

    async def client(kind: ClientKind, pulled: list[Pulled]) -> None:
        for reference in filter(kind.pulls, references):
            asked = Asked(str(reference), found.login, found.wants_login)
            pulled.append(await Puller(server, kind, reference, asked).pull())

    try:
        async with asyncio.timeout(deadline), asyncio.TaskGroup() as group:
            for kind, pulled in results:
                group.create_task(client(kind, pulled))
    except TimeoutError:
        for kind, pulled in results:
            pulled.extend(_left(kind, references, len(pulled), deadline))
    return [ClientResult(kind.name, tuple(pulled)) for kind, pulled in results]


def _left(
    kind: ClientKind, references: Sequence[Reference], done: int, deadline: float
) -> Iterable[Pulled]:
    """What a kind of client has not come to."""
    message = f"not asked for: the probe has taken {deadline:g} s (--timeout)"
    for reference in list(filter(kind.pulls, references))[done:]:
        yield Pulled(str(reference), None, (Check("resolve", "", "", None, False, message),))


# What the cache lists


async def _listed(
    server: DirectServer, found: Introduction, errors: list[ProbeError]
) -> list[Reference]:
    """Up to MOST_LISTED references, of as many registries and repositories as there are."""
    try:
        repositories = await _repositories(server, found)
        tags = [await _tags(server, found, each) for each in repositories]
    except (Fault, PrefetchError) as error:
        message = f"it does not tell what it has, name references: {error}"
        errors.append(ProbeError(None, server.clean(message)))
        return []
    chosen = list(islice(_alternating(tags), MOST_LISTED))
    if not chosen:
        found.steps.append(
            Step("catalog", True, "the cache lists no image: the connection alone was tested")
        )
    return chosen


async def _repositories(server: DirectServer, found: Introduction) -> list[Repository]:
    """Some repositories, of each registry in turn."""
    names = await _names(server, found, f"/v2/_catalog?n={_PAGE}", "repositories")
    registries: dict[str, list[Repository]] = {}
    for name in names:
        try:
            repository = Repository.parse(name)
        except InvalidReference:
            continue
        registries.setdefault(repository.registry, []).append(repository)
    return list(islice(_alternating(registries.values()), MOST_LISTED))


async def _tags(
    server: DirectServer, found: Introduction, repository: Repository
) -> list[Reference]:
    """Some tags of images; signatures and the like have tags, too, which no client pulls."""
    path = tags_path(str(repository), page_size=_PAGE)
    try:
        names = await _names(server, found, path, "tags")
    except Fault:
        # Only digests of it are here.
        return []
    tags = [name for name in names if is_tag(name) and not name.startswith(("sha256-", "sha512-"))]
    return [repository.tagged(tag) for tag in tags[:MOST_LISTED]]


async def _names(server: DirectServer, found: Introduction, path: str, key: str) -> list[str]:
    """The first page of a list. Raises Fault, and what asking raises."""
    reply = await server.ask("GET", path, limit=_PAGE_LIMIT, anonymously=found.login is None)
    expect(reply, Asked(path, found.login, found.wants_login), HTTPStatus.OK)
    names = _document(reply).get(key)
    # Some registries say null for none.
    return [name for name in names or () if isinstance(name, str)] if _is_list(names) else []


def _document(reply: Reply) -> dict[str, Any]:
    if reply.more:
        raise Fault(f"a page of the list has more than {_PAGE_LIMIT} bytes")
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Fault("the list makes no sense")
    return document


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _alternating(lists: Iterable[list[Any]]) -> Iterable[Any]:
    """The first of each list, then the second of each, and so on."""
    return (each for each in chain.from_iterable(zip_longest(*lists)) if each is not None)
