"""Who may see a repository: what only credentials can fetch is private.

Asked by an anonymous HEAD (free), once a repository and a day, and remembered.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from prefetch.clock import Clock
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.registry import RegistryClient
from prefetch.state.database import State
from prefetch.state.records import Visibility

_GOOD_FOR = timedelta(days=1)
_UNCLEAR_FOR = timedelta(minutes=5)


class Visibilities:
    """What is known of the repositories."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._known: dict[tuple[str, str], Visibility] = {}
        self._ask_again: dict[tuple[str, str], datetime] = {}
        self._seen_at: dict[tuple[str, str], datetime] = {}
        self._asking: dict[tuple[str, str], asyncio.Lock] = {}

    async def load(self) -> None:
        """Read what earlier runs have learned."""
        now = self._clock.now()
        for key, (visibility, checked_at) in (await self._state.links.visibilities()).items():
            self._known[key] = visibility
            self._seen_at[key] = checked_at
            if checked_at <= now:
                self._ask_again[key] = checked_at + _GOOD_FOR

    def of(self, repository: Repository) -> Visibility:
        """`public`, `private`, or `unknown` where nobody has asked."""
        return self._known.get((repository.registry, repository.path), "unknown")

    def is_public(self, repository: Repository) -> bool:
        """Whether anybody may see a repository, as `learn` has found out within a day."""
        key = (repository.registry, repository.path)
        seen = self._seen_at.get(key)
        fresh = seen is not None and timedelta() <= self._clock.now() - seen < _GOOD_FOR
        return fresh and self._known.get(key) == "public"

    def is_due(self, repository: Repository) -> bool:
        """Whether it is time to find out again."""
        moment = self._ask_again.get((repository.registry, repository.path))
        return moment is None or self._clock.now() >= moment

    async def learn(self, client: RegistryClient, repository: Repository, digest: Digest) -> None:
        """Find out by one of its manifests whether a repository can be seen by anybody.

        A client without a login must have seen the manifest.
        """
        key = (repository.registry, repository.path)
        async with self._asking.setdefault(key, asyncio.Lock()):
            await self._learn(client, repository, digest)

    async def _learn(self, client: RegistryClient, repository: Repository, digest: Digest) -> None:
        key = (repository.registry, repository.path)
        now = self._clock.now()
        if not self.is_due(repository):
            return
        self._ask_again[key] = now + _UNCLEAR_FOR
        answer: bool | None = True
        if client.identity != "anonymous":
            answer = await client.visible_anonymously(repository, digest)
        if answer is not None:
            self._ask_again[key] = now + _GOOD_FOR
            self._seen_at[key] = now
            self._known[key] = "public" if answer else "private"
            await self._state.links.set_visibility(*key, self._known[key], now)
