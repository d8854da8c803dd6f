"""How alternates behave: what an answer or an error says of one, and what is remembered of it.

Memory of this process is in `standing`; what outlives it, and holds for others, is in the state
(what became of a repository) and in the ledger (throttles, meters).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus

from prefetch.clock import Clock
from prefetch.errors import (
    BudgetExhausted,
    ContentError,
    NotFound,
    PrefetchError,
    RegistryError,
    Throttled,
    Unauthorized,
)
from prefetch.events import AlternateDropped, AlternateRested, Emit, Remark
from prefetch.oci.reference import Repository
from prefetch.remote.registry import RegistryClient
from prefetch.remote.settings import Alternate
from prefetch.state.alternates import AlternateFacts
from prefetch.state.meters import ANONYMOUS
from prefetch.state.records import AlternateRecord
from prefetch.sync.standing import REST_SECONDS, Standing

# A liar is asked again after a day, one that has nothing of a repository after an hour.
_LIE_HOLDS = timedelta(days=1)
_LACK_HOLDS = timedelta(hours=1)
# One that gave something of a repository within a day is asked for each of its digests.
_WORK_HOLDS = timedelta(days=1)
# So many digests in a row that it does not have, and it has nothing of the repository.
_LACKS_ALL = 3
# That it works is written down once in a while.
_STILL_WORKS = timedelta(minutes=1)
_MOST_TOLD = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """An alternate that may be asked for a repository now; `there` is the repository's name there.

    `record` is what is known of the two, None where nothing is.
    """

    alternate: Alternate
    client: RegistryClient
    repository: Repository
    there: Repository
    record: AlternateRecord | None

    @property
    def registry(self) -> str:
        """The registry that the content comes from."""
        return self.alternate.registry

    @property
    def key(self) -> tuple[str, str, str]:
        """Registry, repository and alternate, as the state has them."""
        return self.repository.registry, self.repository.path, str(self.alternate)


class Conduct:
    """Takes note of what alternates do."""

    def __init__(self, facts: AlternateFacts, clock: Clock, emit: Emit) -> None:
        self._dropped: dict[tuple[str, str], AlternateDropped] = {}
        self._facts = facts
        self._clock = clock
        self._emit = emit
        self._standings: dict[str, Standing] = {}
        self._refused: set[str] = set()

    @property
    def dropped(self) -> list[AlternateDropped]:
        """Those that lied in this process, and about which repository; the latest, of many."""
        return list(self._dropped.values())

    def standing(self, registry: str) -> Standing:
        """How a registry has answered as an alternate."""
        return self._standings.setdefault(registry, Standing(self._clock))

    async def known(self, repository: Repository) -> dict[str, AlternateRecord]:
        """What is remembered of each alternate of a repository."""
        return await self._facts.of(repository.registry, repository.path)

    def may_ask(self, record: AlternateRecord | None) -> bool:
        """Whether what is remembered lets an alternate be asked for the repository now."""
        return record is None or may_ask(record, self._clock.now())

    async def has_some(self, source: Source) -> None:
        """It says that it has something of the repository."""
        if source.record is not None and source.record.lacked:
            await self._facts.has(*source.key)

    async def worked(self, source: Source) -> None:
        """It gave what was asked for."""
        now, record = self._clock.now(), source.record
        if record is None or record.lacked or not _within(record.worked_at, now, _STILL_WORKS):
            await self._facts.worked(*source.key, now)

    async def failed(self, source: Source, error: PrefetchError) -> None:
        """It gave an error, or something that became one."""
        now, standing = self._clock.now(), self.standing(source.registry)
        if lacks(error):
            standing.answered()
            self._tell_of_login(source, error)
            await self._facts.lacks(*source.key, now)
        elif isinstance(error, ContentError):
            standing.answered()
            await self._drop(source, error, now)
        elif isinstance(error, BudgetExhausted):
            standing.answered()
            seconds = ((error.retry_at or now) - now).total_seconds()
            if standing.broke(max(1.0, seconds)):
                self._rested(source.alternate, error, seconds)
        elif isinstance(error, Throttled):
            standing.answered()
            seconds = error.retry_after or 1.0
            if standing.throttles(seconds):
                self._rested(source.alternate, error, seconds)
        elif standing.failed():
            self._rested(source.alternate, error, REST_SECONDS)

    def unusable(self, alternate: Alternate, error: PrefetchError) -> None:
        """No request can be sent to it, or none for this repository."""
        self.standing(alternate.registry).rest(REST_SECONDS)
        self._rested(alternate, error, REST_SECONDS)

    def _rested(self, alternate: Alternate, error: PrefetchError, seconds: float) -> None:
        until = self._clock.now() + timedelta(seconds=seconds)
        self._emit(AlternateRested(str(alternate), str(error), until))

    async def _drop(self, source: Source, error: ContentError, now: datetime) -> None:
        """It sent what was not asked for: nothing more of the repository is taken from it."""
        event = AlternateDropped(str(source.alternate), str(source.repository), str(error))
        key = (event.alternate, event.repository)
        if key not in self._dropped:
            self._dropped[key] = event
            self._emit(event)
        while len(self._dropped) > _MOST_TOLD:
            self._dropped.pop(next(iter(self._dropped)))
        await self._facts.lied(*source.key, now, event.reason)

    def _tell_of_login(self, source: Source, error: PrefetchError) -> None:
        """Say once that an alternate refuses a login that is configured for it."""
        refused = isinstance(error, Unauthorized) and source.client.identity != ANONYMOUS
        if refused and source.registry not in self._refused:
            self._refused.add(source.registry)
            self._emit(Remark(f"{source.alternate}, an alternate, refuses its login: {error}"))


def may_ask(record: AlternateRecord, now: datetime) -> bool:
    """Whether an alternate may be asked for a repository again; a time to come is no time."""
    if _within(record.lied_at, now, _LIE_HOLDS):
        return False
    if record.lacked < _LACKS_ALL or _within(record.worked_at, now, _WORK_HOLDS):
        return True
    return not _within(record.lacked_at, now, _LACK_HOLDS)


def lacks(error: PrefetchError) -> bool:
    """Whether an error says that it does not have what was asked for, or does not show it.

    504 is a cache's answer to `only-if-cached` (RFC 9111, section 5.2.1.7).
    """
    if isinstance(error, NotFound | Unauthorized):
        return True
    return isinstance(error, RegistryError) and error.status == HTTPStatus.GATEWAY_TIMEOUT


def _within(moment: datetime | None, now: datetime, length: timedelta) -> bool:
    return moment is not None and timedelta() <= now - moment < length
