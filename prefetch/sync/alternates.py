"""Alternates: places besides a registry that have its content, and cost it no pull.

The registry says by HEAD which digest a tag has; the bytes may come from anywhere. They are asked
for by digest, in the order of the configuration, and verified as always. An alternate hears the
name of a repository only when everybody may know it, or the configuration trusts it with private
ones. It is asked for what it has and not to fetch it (`only-if-cached`), so that caches which are
each other's alternates do not ask in circles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prefetch.clock import Clock
from prefetch.errors import ContentError, NotFound, PrefetchError, StateError, StoreError
from prefetch.events import AlternateDropped, Emit
from prefetch.oci.model import Document
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.registry import RegistryClient
from prefetch.remote.settings import Alternate
from prefetch.remote.upstreams import Upstreams
from prefetch.state.database import State
from prefetch.state.ledger import Ledger
from prefetch.state.records import AlternateRecord
from prefetch.sync.conduct import Conduct, Source, lacks
from prefetch.sync.standing import Seen
from prefetch.sync.visibility import Visibilities

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Offers:
    """Which of some manifests alternates say that they have.

    `unsure`: an alternate could not be asked just now, and may have more.
    """

    digests: frozenset[str] = frozenset()
    unsure: bool = False


class Alternates:
    """Asks them. `alternates_of` says which a registry has; `upstreams` speaks to them."""

    def __init__(
        self,
        upstreams: Upstreams,
        alternates_of: Callable[[str], Sequence[Alternate]],
        *,
        state: State,
        ledger: Ledger,
        visibilities: Visibilities,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self._upstreams = upstreams
        self._alternates_of = alternates_of
        self._ledger = ledger
        self._visibilities = visibilities
        self._conduct = Conduct(state.alternates, clock, emit)
        self._seen = Seen(clock)

    @property
    def dropped(self) -> Sequence[AlternateDropped]:
        """Those that lied in this run, and about which repository."""
        return self._conduct.dropped

    def of(self, registry: str) -> list[Alternate]:
        """The alternates of a registry, in order; none is its own."""
        return [each for each in self._alternates_of(registry) if each.registry != registry]

    def is_unknown(self, repository: Repository) -> bool:
        """Whether it has to be found out who may hear of a repository."""
        return self._has_strangers(repository) and self._visibilities.is_due(repository)

    async def introduce(
        self, client: RegistryClient, repository: Repository, digest: Digest
    ) -> None:
        """Find it out by a manifest that the client has just seen there (free), or wait for whoever
        is about to.
        """
        if self._has_strangers(repository):
            await self._visibilities.learn(client, repository, digest)

    async def sources(self, repository: Repository) -> list[Source]:
        """The alternates that may be asked for a repository now, in order."""
        found, _ = await self._sources(repository)
        return found

    async def offers(self, repository: Repository, digests: Iterable[str]) -> Offers:
        """Ask (by HEAD, free) which of these manifests there are."""
        sources, unsure = await self._sources(repository)
        able = [source for source in sources if not self._is_broke(source)]
        asked = list(digests)
        told = await asyncio.gather(*(self._anybody(able, Digest.parse(each)) for each in asked))
        have = frozenset(each for each, there in zip(asked, told, strict=True) if there)
        return Offers(have, unsure or len(able) < len(sources) or None in told)

    async def document(
        self, repository: Repository, digest: Digest, on_pull: Callable[[], None]
    ) -> tuple[Document, str] | None:
        """A manifest or index, verified, and the registry that it came from; None: nobody gave it.

        Each attempt costs the alternate's own meter a pull, and calls `on_pull`.
        """
        for source in await self.sources(repository):
            if self._is_broke(source) or not await self._has(source, digest):
                continue
            document = await self._document(source, digest, on_pull)
            if document is not None:
                return document, source.registry
        return None

    async def blob(
        self, source: Source, digest: Digest, receive: Callable[[], Awaitable[None]]
    ) -> bool:
        """Have `receive` fetch a blob from a source; whether it is whole now. Raises StoreError."""

        async def look() -> bool:
            if await source.client.blob_size(source.there, digest) is None:
                raise NotFound(f"{source.there}@{digest}: no such blob")
            return True

        async def fetch() -> bool:
            await receive()
            return True

        if self._seen.get((source.key, digest)) is False:
            return False
        # The first word from it is not to take as long as a download.
        known = self._conduct.standing(source.registry).has_answered
        if not known and not await self._ask(source, digest, look):
            return False
        return await self._given(source, digest, fetch) or False

    async def _document(
        self, source: Source, digest: Digest, on_pull: Callable[[], None]
    ) -> Document | None:
        async def pull() -> Document:
            return await source.client.manifest(
                source.there, str(digest), hold=None, on_pull=on_pull
            )

        return await self._given(source, digest, pull)

    async def _sources(self, repository: Repository) -> tuple[list[Source], bool]:
        """The alternates that may be asked, and whether one of the others may be later."""
        alternates = self.of(repository.registry)
        if not self._visibilities.is_public(repository):
            alternates = [alternate for alternate in alternates if alternate.private]
        if not alternates:
            return [], False
        records = await self._conduct.known(repository)
        found, later = [], False
        for alternate in alternates:
            record = records.get(str(alternate))
            if not self._conduct.may_ask(record):
                continue
            there = alternate.repository(repository)
            if there is None:
                continue
            source = await self._open(alternate, repository, there, record)
            later |= source is None
            if source is not None:
                found.append(source)
        return found, later

    async def _open(
        self,
        alternate: Alternate,
        repository: Repository,
        there: Repository,
        record: AlternateRecord | None,
    ) -> Source | None:
        """The alternate as a source; None while it is left alone, or cannot be used."""
        rests = self._conduct.standing(alternate.registry).rests
        if rests or await self._ledger.throttled_until(alternate.registry) is not None:
            return None
        try:
            client = await self._upstreams.client_for(there)
        except StateError:
            raise
        except PrefetchError as error:
            self._conduct.unusable(alternate, error)
            return None
        return Source(alternate, client, repository, there, record)

    async def _anybody(self, sources: Iterable[Source], digest: Digest) -> bool | None:
        """Whether one of them has the manifest; None: none says so, and not all have answered."""
        told: bool | None = False
        for source in sources:
            there = await self._has(source, digest)
            if there:
                return True
            told = None if there is None else told
        return told

    async def _has(self, source: Source, digest: Digest) -> bool | None:
        """Whether it says that it has a manifest: one HEAD, which is free, and good for a while.

        None: it did not say.
        """
        key = (source.key, digest)
        known = self._seen.get(key)
        if known is not None:
            return known
        answer = await self._ask(
            source, digest, lambda: source.client.resolve(source.there, str(digest))
        )
        if answer is None:
            return self._seen.get(key)
        # A registry that knows no HEAD does not tell, and is left out.
        there = answer.digest is not None
        self._seen.put(key, there=there)
        if there:
            await self._conduct.has_some(source)
        return there

    async def _given(
        self, source: Source, digest: Digest, work: Callable[[], Awaitable[T]]
    ) -> T | None:
        """Content from the source; one that does not give it is not asked for it again soon."""
        content = await self._ask(source, digest, work)
        if content is None:
            self._seen.put((source.key, digest), there=False)
        else:
            await self._conduct.worked(source)
        return content

    async def _ask(
        self, source: Source, digest: Digest, work: Callable[[], Awaitable[T]]
    ) -> T | None:
        """What the source answers; None where it gives nothing, which is remembered."""
        standing = self._conduct.standing(source.registry)
        async with standing.contact():
            if standing.rests:
                return None
            try:
                answer = await work()
            except (StateError, StoreError):
                raise
            except PrefetchError as error:
                if lacks(error) or isinstance(error, ContentError):
                    self._seen.put((source.key, digest), there=False)
                await self._conduct.failed(source, error)
                return None
            standing.answered()
            return answer

    def _has_strangers(self, repository: Repository) -> bool:
        return any(not alternate.private for alternate in self.of(repository.registry))

    def _is_broke(self, source: Source) -> bool:
        return self._conduct.standing(source.registry).is_broke
