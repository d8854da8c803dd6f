"""Tag lists, page by page (distribution-spec, "Listing Tags")."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from yarl import URL

from prefetch.errors import ServerFault
from prefetch.oci.distribution import next_link
from prefetch.remote.addresses import untrusted_url
from prefetch.remote.faults import redact

PAGE_LIMIT: Final = 16 * 1024 * 1024
_MAX_PAGES: Final = 10_000
_MAX_TAGS: Final = 1_000_000
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")

FetchPage = Callable[[URL], Awaitable[tuple[bytes, str | None]]]


async def all_tags(first: URL, fetch: FetchPage, subject: str) -> list[str]:
    """Every tag, each once, in the registry's order; what cannot be a tag is left out.

    `fetch` gives a page's body and its Link header. Raises ServerFault for pages that make no
    sense, lead to another host, or do not end.
    """
    tags: dict[str, None] = {}
    async for body in _pages(first, fetch, subject):
        tags.update(dict.fromkeys(_parse(body, subject)))
        if len(tags) > _MAX_TAGS:
            raise ServerFault(f"{subject}: the registry lists more than {_MAX_TAGS} tags")
    return list(tags)


async def _pages(first: URL, fetch: FetchPage, subject: str) -> AsyncIterator[bytes]:
    url, seen = first, {first}
    for _ in range(_MAX_PAGES):
        body, link = await fetch(url)
        yield body
        following = next_link(link)
        if following is None:
            return
        url = _joined(url, following, subject)
        if url in seen:
            raise ServerFault(f"{subject}: the tag list leads back to itself", url=redact(url))
        seen.add(url)
    raise ServerFault(f"{subject}: the tag list has more than {_MAX_PAGES} pages", url=redact(url))


def _joined(url: URL, following: str, subject: str) -> URL:
    target = untrusted_url(following, url)
    if target is None or not target.raw_host or target.origin() != url.origin():
        raise ServerFault(f"{subject}: the tag list goes on at another host", url=redact(url))
    return target


def _parse(body: bytes, subject: str) -> list[str]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("tags") or [], list):
        raise ServerFault(f"{subject}: the registry sent no tag list")
    # Some registries say null for none.
    tags = document.get("tags") or []
    return [tag for tag in tags if isinstance(tag, str) and _TAG.fullmatch(tag)]
