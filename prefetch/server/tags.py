"""Which digest a tag is answered with.

A tag is answered from the cache within `tag_ttl`. After that it is checked by HEAD, which is free:
one check for all who ask, in all workers. The answer waits for it for `tag_wait` at most; then
the cached digest goes out, and the check goes on behind it. A tag that has moved is answered with
its old digest until the new image is whole, unless the old one never was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from prefetch.clock import Clock
from prefetch.errors import PrefetchError
from prefetch.events import ImmutableTagMoved
from prefetch.oci.distribution import EndpointKind
from prefetch.oci.platform import ALL, Platform, PlatformSet
from prefetch.oci.reference import Digest, Reference, Repository
from prefetch.remote.registry import Resolved
from prefetch.remote.upstreams import Upstreams
from prefetch.server.exclusion import Exclusion
from prefetch.server.gate import NOBODY, Caller, Gate
from prefetch.server.library import Library
from prefetch.server.manifests import ManifestService
from prefetch.server.refusals import Refusal, unavailable, unknown
from prefetch.server.renewal import Renewals
from prefetch.server.settings import ServeSettings
from prefetch.server.shared import Shared
from prefetch.state.records import ReferenceRecord
from prefetch.sync.immutable import moved_though_immutable
from prefetch.sync.wanted import Wanted, platforms_from_text

StaleReason: TypeAlias = Literal[
    "down", "slow", "throttled", "budget", "frozen", "behind", "failed"
]
FetchOutcome: TypeAlias = Literal["ok", "failed", "refused"]
_STALE_CAUSES: dict[str, StaleReason] = {
    "upstream_down": "down",
    "throttled": "throttled",
    "budget": "budget",
    "frozen": "frozen",
}
_KIND = EndpointKind.MANIFEST
_MOST_READY = 20_000
# How much more rarely tags are checked where each check costs a pull.
_COSTLY_FACTOR = 10


@dataclass(frozen=True, slots=True)
class TagAnswer:
    """A tag's digest; `stale` says why it may not be the latest, `age` since when, in seconds."""

    digest: Digest
    stale: StaleReason | None = None
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class _Ready:
    """An answer that needs no looking up, in this epoch of the library's and until then."""

    answer: TagAnswer
    epoch: int
    until: float

    def holds(self, epoch: int, now: float) -> bool:
        return epoch == self.epoch and now < self.until


class Tags:
    """Answers tags. Raises Refusal, StateError and StoreError."""

    def __init__(
        self,
        *,
        library: Library,
        gate: Gate,
        upstreams: Upstreams,
        manifests: ManifestService,
        renewals: Renewals,
        shared: Shared,
        exclusion: Exclusion,
        settings: ServeSettings,
        platforms: PlatformSet,
        clock: Clock,
        checked: Callable[[FetchOutcome], None],
        moved: Callable[[ImmutableTagMoved], None],
    ) -> None:
        self._checked_as = checked
        self._tell_of_move = moved
        self._library = library
        self._gate = gate
        self._upstreams = upstreams
        self._manifests = manifests
        self._renewals = renewals
        self._shared = shared
        self._exclusion = exclusion
        self._settings = settings
        self._platforms = platforms
        self._clock = clock
        self._began: dict[str, float] = {}
        self._ready: dict[tuple[Repository, str], _Ready] = {}
        # As few as there are ways in which syncs were asked for platforms.
        self._unions: dict[str, PlatformSet] = {}

    async def answer(self, repository: Repository, tag: str, caller: Caller) -> TagAnswer:
        """The digest to answer with."""
        ready = self._ready.get((repository, tag))
        if ready is not None and ready.holds(self._library.epoch, self._clock.monotonic()):
            return ready.answer
        epoch = self._library.epoch
        answer = await self._found(repository, tag, caller)
        await self._keep_ready(repository, tag, answer, epoch)
        return answer

    async def _keep_ready(
        self, repository: Repository, tag: str, answer: TagAnswer, epoch: int
    ) -> None:
        """Remember an answer that is good until the tag has to be looked at again."""
        record = await self._record(repository.tagged(tag))
        if answer.stale is not None or record is None or record.digest != str(answer.digest):
            return
        if not await self._is_whole(record) or not self._is_fresh(record):
            return
        left = self._settings.tag_ttl - self._age(record)
        if len(self._ready) >= _MOST_READY:
            self._ready.clear()
        self._ready[repository, tag] = _Ready(answer, epoch, self._clock.monotonic() + left)

    async def _found(self, repository: Repository, tag: str, caller: Caller) -> TagAnswer:
        reference = repository.tagged(tag)
        record = await self._record(reference)
        if record is None or record.digest is None:
            return TagAnswer(await self._cold(reference, record, caller))
        digest = Digest.parse(record.digest)
        if await self._library.whole(digest, self.wanted(record)):
            return await self._warm(reference, record, digest, caller)
        if self._is_fresh(record):
            return TagAnswer(digest)
        return TagAnswer(await self._cold(reference, record, caller))

    def wanted(self, record: ReferenceRecord | None) -> PlatformSet:
        """The platforms of which one must be whole: the configured ones, and the record's own."""
        text = record.platforms if record is not None else ""
        found = self._unions.get(text)
        if found is None:
            own = platforms_from_text(text)
            if own is ALL or self._platforms is ALL:
                found = ALL
            else:
                found = tuple(dict.fromkeys((*self._platforms, *own)))
            self._unions[text] = found
        return found

    async def wanted_of(self, repository: Repository, digest: Digest) -> PlatformSet:
        """The same for a digest: by the references of the repository that name it."""

        async def load() -> PlatformSet:
            records = (await self._library.references(repository)).values()
            platforms: list[Platform] = []
            for each in (None, *(r for r in records if r.digest == str(digest))):
                wanted = self.wanted(each)
                if wanted is ALL:
                    return ALL
                platforms += wanted
            return tuple(dict.fromkeys(platforms))

        return await self._library.remember(("wanted", str(repository), str(digest)), load)

    async def _warm(
        self, reference: Reference, record: ReferenceRecord, digest: Digest, caller: Caller
    ) -> TagAnswer:
        if self._is_immutable(record):
            return TagAnswer(digest)
        settled = self._is_fresh(record) or self._renewals.replaces(record.name, digest)
        if settled or caller.only_cached or not self._gate.serves(record.registry):
            return self._as_known(record, digest)
        try:
            self._gate.check_memory(reference.repository, _KIND, reference.target)
            found = await self._checked(reference, record)
        except Refusal as refusal:
            stale = _STALE_CAUSES.get(refusal.cause, "failed")
        else:
            if found is not None:
                return await self._after_check(reference, record, digest)
            stale = "slow"
        if self._gate.is_down(reference.repository):
            stale = "down"
        return TagAnswer(digest, stale, self._age(record))

    async def _checked(self, reference: Reference, record: ReferenceRecord) -> Digest | None:
        """What a check finds; None: it goes on alone. Raises Refusal.

        It is waited for briefly, and not at all where that would be in vain.
        """
        down = self._gate.is_down(reference.repository)
        patience = 0.0 if down else self._patience(record.name)
        task = self._shared.start(("tag", record.name), lambda: self._check(reference, record))
        done, _ = await asyncio.wait([task], timeout=patience)
        return task.result() if done else None

    async def _after_check(
        self, reference: Reference, before: ReferenceRecord, digest: Digest
    ) -> TagAnswer:
        """The digest that is whole, and what is known of it now."""
        record = await self._record(reference)
        if record is None or record.digest is None:
            return TagAnswer(digest, "behind", self._age(before))
        now = Digest.parse(record.digest)
        if now != digest and not await self._library.whole(now, self.wanted(record)):
            return TagAnswer(digest, "behind", self._age(before))
        return self._as_known(record, now)

    def _as_known(self, record: ReferenceRecord, digest: Digest) -> TagAnswer:
        """The digest, with what its record tells of why it may not be the latest."""
        stale: StaleReason | None = None
        if self._renewals.replaces(record.name, digest):
            stale = "behind"
        elif record.deferred_since is not None:
            stale = "budget"
        elif record.last_error is not None:
            stale = "failed"
        return TagAnswer(digest, stale, self._age(record) if stale else 0.0)

    async def _cold(
        self, reference: Reference, record: ReferenceRecord | None, caller: Caller
    ) -> Digest:
        """The digest of a tag of which nothing whole is here: whoever asks has to wait for it."""
        key = ("tag", str(reference))
        await self._gate.check(reference.repository, caller, _KIND, reference.target)
        return await self._gate.miss(
            self._shared, caller, key, lambda: self._check(reference, record)
        )

    async def _check(self, reference: Reference, known: ReferenceRecord | None) -> Digest:
        """Ask what the tag is now, unless another worker has just done so. Raises Refusal."""
        name, repository = str(reference), reference.repository
        self._began[name] = self._clock.monotonic()
        try:
            await self._gate.check(repository, NOBODY, _KIND, reference.target)
            async with self._exclusion.of(f"tag {name}"):
                record = (await self._library.state.references.get_many([name])).get(name)
                if record is None or not self._is_news(record, known):
                    return await self._ask(reference, record)
                await self._library.forget_references(repository)
                return Digest.parse(record.digest or "")
        except PrefetchError as error:
            raise self._gate.failed(repository, _KIND, error, reference.target) from error
        finally:
            del self._began[name]

    async def _ask(self, reference: Reference, record: ReferenceRecord | None) -> Digest:
        """What the registry says, written down. Raises Refusal and PrefetchError."""
        repository = reference.repository
        whole = await self._is_whole(record)
        client = await self._upstreams.client_for(repository)
        if whole:
            await self._gate.charge_check(client.meter)
        outcome: FetchOutcome = "failed"
        try:
            resolved = await client.resolve(repository, reference.target)
            outcome = "ok"
        finally:
            self._checked_as(outcome)
        self._gate.answered(repository)
        if resolved.digest is None:
            if whole:
                raise self._untold(reference)
            resolved = await self._manifests.pull_tag(reference)
        return await self._learn(reference, record, resolved, whole=whole)

    async def _learn(
        self,
        reference: Reference,
        record: ReferenceRecord | None,
        resolved: Resolved,
        *,
        whole: bool,
    ) -> Digest:
        """Keep what the tag is, or see to it that the image it has moved to is fetched."""
        now, references = self._clock.now(), self._library.state.references
        digest = resolved.digest
        if digest is None:
            raise unknown(_KIND)
        if record is not None and self._stays(record, digest):
            await references.touch(record.name, now)
            await self._library.forget_references(reference.repository)
            return Digest.parse(record.digest or "")
        if record is None or record.digest is None or not (whole or record.digest == str(digest)):
            await references.save_many([self._new(reference, record, resolved, now)])
        elif record.digest != str(digest):
            if self._library.freeze() is None:
                wanted = Wanted(reference, platforms_from_text(record.platforms))
                self._renewals.start(wanted, Digest.parse(record.digest))
            return digest
        elif record.deferred_since is None and record.last_error is None:
            await references.touch(record.name, now)
        else:
            # It has come back to what is here, or what was wrong has passed.
            settled = replace(record, resolved_at=now, deferred_since=None, last_error=None)
            await references.save_many([settled])
        await self._library.forget_references(reference.repository)
        return digest

    def _stays(self, record: ReferenceRecord, digest: Digest) -> bool:
        """Whether the tag was said never to move, has moved, and stays here what it was."""
        settings = self._upstreams.settings(record.registry)
        moved = moved_though_immutable(record, digest, settings)
        if moved is not None:
            self._tell_of_move(moved)
        return moved is not None and moved.kept

    def _untold(self, reference: Reference) -> Refusal:
        """For a registry that tells by a pull alone what a tag is: what is here will do."""
        registry = reference.repository.registry
        refusal = unavailable(f"{registry} tells only for a pull", "upstream_error", 300)
        self._gate.remember(reference.repository, _KIND, reference.target, refusal)
        return refusal

    async def _is_whole(self, record: ReferenceRecord | None) -> bool:
        if record is None or record.digest is None:
            return False
        return await self._library.whole(Digest.parse(record.digest), self.wanted(record))

    async def _record(self, reference: Reference) -> ReferenceRecord | None:
        records = await self._library.references(reference.repository)
        return records.get(str(reference))

    def _new(
        self,
        reference: Reference,
        record: ReferenceRecord | None,
        resolved: Resolved,
        now: datetime,
    ) -> ReferenceRecord:
        """The reference's row: known, and not whole yet."""
        repository = reference.repository
        wanted = Wanted(reference, self._platforms)
        old = record or ReferenceRecord(
            str(reference),
            repository.registry,
            repository.path,
            reference.tag,
            platforms=wanted.platforms_text,
        )
        return replace(
            old,
            digest=str(resolved.digest),
            media_type=resolved.media_type or None,
            warm=False,
            resolved_at=now,
            changed_at=now,
            last_error=None,
        )

    def _is_news(self, record: ReferenceRecord, known: ReferenceRecord | None) -> bool:
        """Whether the row tells of a check that ended after this one was wished for."""
        before = known.resolved_at if known is not None else None
        return bool(record.digest) and self._is_fresh(record) and record.resolved_at != before

    def _is_fresh(self, record: ReferenceRecord) -> bool:
        """Whether the tag was looked at within `tag_ttl`; a time to come is no such time."""
        if record.resolved_at is None:
            return False
        ttl = self._settings.tag_ttl
        if self._gate.is_costly(record.registry):
            ttl *= _COSTLY_FACTOR
        return timedelta() <= self._clock.now() - record.resolved_at < timedelta(seconds=ttl)

    def _is_immutable(self, record: ReferenceRecord) -> bool:
        return self._upstreams.settings(record.registry).is_immutable(record.tag)

    def _patience(self, name: str) -> float:
        """What is left of `tag_wait`: it is waited once a check, however many ask meanwhile."""
        began = self._began.get(name)
        if began is None:
            return self._settings.tag_wait
        return max(0.0, began + self._settings.tag_wait - self._clock.monotonic())

    def _age(self, record: ReferenceRecord) -> float:
        """Seconds since the tag was last looked at."""
        if record.resolved_at is None:
            return 0.0
        return max(0.0, (self._clock.now() - record.resolved_at).total_seconds())
