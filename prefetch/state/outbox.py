"""Notices on their way: kept until a hook has taken them, and what has been told already.

Rows name a hook; where that is, and with what it is signed, only the configuration knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, case, delete, func, insert, or_, select, update

from prefetch.state.models import notice_conditions as told
from prefetch.state.models import notices as table
from prefetch.state.rows import Session, columns, upsert_into, values

CAPACITY = 1000
"""So many rows are kept; beyond them the oldest go."""


@dataclass(frozen=True, slots=True)
class NoticeRecord:
    """A notice for one hook: its JSON document, and how its delivery goes.

    `error` is why the last attempt failed.
    """

    id: str
    hook: str
    event: str
    body: str
    created_at: datetime
    next_at: datetime
    attempts: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """What is told once while it lasts: until then, or (None) until it is cleared.

    Of one event and subject there may be several at a time, which differ in `detail`.
    """

    event: str
    subject: str
    detail: str = ""
    until: datetime | None = None


_FIELDS = columns(table, NoticeRecord)
_IN_ORDER = (table.c.created_at, table.c.id)
_SAVE_TOLD = upsert_into(told)


class Outbox:
    """The notices that wait, for every process that uses the state."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def put(
        self, notices: Sequence[NoticeRecord], condition: Condition | None, at: datetime
    ) -> list[NoticeRecord] | None:
        """Keep them, and that the condition has been told; returns those that had to make room.

        None: the condition had been told, and nothing is kept.
        """

        def work(connection: Connection) -> list[NoticeRecord] | None:
            connection.execute(delete(told).where(told.c.until <= at))
            if condition is not None:
                if _is_told(connection, condition, at):
                    return None
                connection.execute(_SAVE_TOLD, values([condition]))
            if notices:
                connection.execute(insert(table), values(notices))
            return _make_room(connection)

        return await self._session.run(work)

    async def is_told(self, condition: Condition, at: datetime) -> bool:
        """Whether it has been told and lasts; its own `until` does not count."""
        return await self._session.read(lambda connection: _is_told(connection, condition, at))

    async def clear(self, subject: str, events: Iterable[str]) -> None:
        """These have come to their end for a subject: when they come again they are told again."""
        statement = delete(told).where(told.c.subject == subject, told.c.event.in_(list(events)))
        await self._session.run(lambda connection: connection.execute(statement))

    async def waiting(self) -> list[NoticeRecord]:
        """All that wait, the oldest first."""

        def work(connection: Connection) -> list[NoticeRecord]:
            rows = connection.execute(select(*_FIELDS).order_by(*_IN_ORDER))
            return [NoticeRecord(*row) for row in rows]

        return await self._session.read(work)

    async def due_hooks(self, at: datetime) -> set[str]:
        """The hooks that something is due for."""
        statement = select(table.c.hook).where(table.c.next_at <= at).distinct()
        return await self._session.read(
            lambda connection: set(connection.execute(statement).scalars())
        )

    async def first_due(self, hook: str, at: datetime) -> NoticeRecord | None:
        """The oldest one that is due for a hook."""
        statement = (
            select(*_FIELDS)
            .where(table.c.hook == hook, table.c.next_at <= at)
            .order_by(*_IN_ORDER)
            .limit(1)
        )
        row = await self._session.read(lambda connection: connection.execute(statement).first())
        return None if row is None else NoticeRecord(*row)

    async def remove(self, notice: NoticeRecord) -> None:
        """It has been taken, or is given up."""
        statement = delete(table).where(table.c.id == notice.id, table.c.hook == notice.hook)
        await self._session.run(lambda connection: connection.execute(statement))

    async def put_off(self, notice: NoticeRecord, until: datetime, error: str) -> None:
        """An attempt has failed: until then the hook is left alone, with all that waits for it."""
        own = table.c.id == notice.id
        statement = (
            update(table)
            .where(table.c.hook == notice.hook, or_(own, table.c.next_at < until))
            .values(
                next_at=until,
                attempts=table.c.attempts + case((own, 1), else_=0),
                error=case((own, error), else_=table.c.error),
            )
        )
        await self._session.run(lambda connection: connection.execute(statement))

    async def take_expired(self, before: datetime) -> list[NoticeRecord]:
        """Give up what is older than that; returns it."""
        old = table.c.created_at < before

        def work(connection: Connection) -> list[NoticeRecord]:
            rows = connection.execute(select(*_FIELDS).where(old).order_by(*_IN_ORDER))
            found = [NoticeRecord(*row) for row in rows]
            if found:
                connection.execute(delete(table).where(old))
            return found

        return await self._session.run(work)


def _is_told(connection: Connection, condition: Condition, at: datetime) -> bool:
    found = connection.execute(
        select(told.c.event).where(
            told.c.event == condition.event,
            told.c.subject == condition.subject,
            told.c.detail == condition.detail,
            or_(told.c.until.is_(None), told.c.until > at),
        )
    )
    return found.first() is not None


def _make_room(connection: Connection) -> list[NoticeRecord]:
    """Drop the oldest beyond what is kept; returns them."""
    surplus = connection.execute(select(func.count()).select_from(table)).scalar_one() - CAPACITY
    if surplus <= 0:
        return []
    rows = connection.execute(select(*_FIELDS).order_by(*_IN_ORDER).limit(surplus))
    dropped = [NoticeRecord(*row) for row in rows]
    for each in dropped:
        connection.execute(delete(table).where(table.c.id == each.id, table.c.hook == each.hook))
    return dropped
