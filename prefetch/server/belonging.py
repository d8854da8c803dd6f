"""Which repository holds what: content is served under a repository only where it belongs there.

What a repository has shown is certain: a pull, a HEAD, or a sync's work, written down as a link.
That one of its documents names something is less: whoever writes documents may name anything,
whether the repository has it or not. It is enough but for content that is also in repositories
which the caller may not see: for a digest alone, nobody is given what is in those. There, and
where nothing is known, the registry is asked.
"""

from __future__ import annotations

from prefetch.oci.reference import Digest, Repository
from prefetch.server.library import Library
from prefetch.server.permits import Permits


class Belonging:
    """Answers from memory. Raises StateError."""

    def __init__(self, library: Library, permits: Permits) -> None:
        self._library = library
        self._permits = permits

    async def holds(self, repository: Repository, digest: Digest, user: str) -> bool:
        """Whether the repository is known to have the content, surely enough for this user."""
        if await self._library.linked(repository, digest):
            return True
        if not await self._is_named(repository, digest):
            return False
        holders = await self._library.holders(digest)
        if holders is None:
            return False
        for holder in holders:
            if holder != repository and not await self._permits.may_see(holder, user):
                return False
        return True

    async def _is_named(self, repository: Repository, digest: Digest) -> bool:
        """Whether a document that the repository has shown names it."""
        for parent in await self._library.parents(digest):
            if await self._library.linked(repository, Digest.parse(parent)):
                return True
        return False
