"""Who may see a repository: what only credentials can fetch is private.

Asked by an anonymous HEAD (free), once a repository and a day, and remembered.
"""

from __future__ import annotations

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

    async def load(self) -> None:
        """Read what earlier runs have learned."""
        now = self._clock.now()
        for key, (visibility, checked_at) in (await self._state.links.visibilities()).items():
            self._known[key] = visibility
            if checked_at <= now:
                self._ask_again[key] = checked_at + _GOOD_FOR

    def of(self, repository: Repository) -> Visibility:
        """`public`, `private`, or `unknown` where nobody has asked."""
        return self._known.get((repository.registry, repository.path), "unknown")

    async def learn(self, client: RegistryClient, repository: Repository, digest: Digest) -> None:
        """Find out by one of its manifests whether a repository can be seen by anybody."""
        key = (repository.registry, repository.path)
        now = self._clock.now()
        if key in self._ask_again and now < self._ask_again[key]:
            return
        self._ask_again[key] = now + _UNCLEAR_FOR
        answer: bool | None = True
        if client.identity != "anonymous":
            answer = await client.visible_anonymously(repository, digest)
        if answer is not None:
            self._ask_again[key] = now + _GOOD_FOR
            self._known[key] = "public" if answer else "private"
            await self._state.links.set_visibility(*key, self._known[key], now)
