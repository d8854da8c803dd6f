"""Freezes: while one holds, upstreams are not asked and what is cached is served as it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select

from prefetch.state.generation import bump_generation
from prefetch.state.models import freezes
from prefetch.state.rows import Session, upsert_into

_ID = 1
_READ = select(freezes.c.since, freezes.c.until).where(freezes.c.id == _ID)
_SAVE = upsert_into(freezes)
_DELETE = delete(freezes).where(freezes.c.id == _ID)


@dataclass(frozen=True, slots=True)
class FreezeRecord:
    """A freeze: since when, and until when (None: until somebody thaws)."""

    since: datetime
    until: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        """Whether its `until` has come."""
        return self.until is not None and self.until <= now


class Freezes:
    """At most one freeze, for every process that uses the state."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, now: datetime) -> FreezeRecord | None:
        """The freeze that holds at `now`; one whose `until` has come is none."""
        row = await self._session.read(lambda connection: connection.execute(_READ).first())
        freeze = None if row is None else FreezeRecord(*row)
        return None if freeze is None or freeze.is_over(now) else freeze

    async def freeze(self, at: datetime, until: datetime | None) -> None:
        """Freeze from `at` on, in place of any freeze that there is."""
        row = {"id": _ID, "since": at, "until": until}

        def work(connection: Connection) -> None:
            connection.execute(_SAVE, [row])
            bump_generation(connection)

        await self._session.run(work)

    async def thaw(self) -> bool:
        """End the freeze; whether there was one, even if its time was over."""

        def work(connection: Connection) -> bool:
            found = connection.execute(_DELETE).rowcount > 0
            if found:
                bump_generation(connection)
            return found

        return await self._session.run(work)
