"""References and what they were when last looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, select, update

from prefetch.state.generation import bump_generation
from prefetch.state.models import image_references as table
from prefetch.state.records import ReferenceRecord
from prefetch.state.rows import Session, chunks, columns, upsert_into, values

_FIELDS = columns(table, ReferenceRecord)
_NEW = "new_"
_SERVED = ("digest", "media_type", "platforms", "warm")
_SAVE = upsert_into(table, prefix=_NEW)
# Updates only what stays the same to those who serve: its row count tells whether all did.
_SAVE_UNCHANGED = (
    update(table)
    .where(
        table.c.name == bindparam(f"{_NEW}name"),
        *(table.c[name].is_not_distinct_from(bindparam(_NEW + name)) for name in _SERVED),
    )
    .values({c: bindparam(_NEW + c.name) for c in table.c if c.name not in ("name", *_SERVED)})
)
_OF_REPOSITORY = (
    select(*_FIELDS)
    .where(
        table.c.registry == bindparam("in_registry"),
        table.c.repository == bindparam("in_repository"),
    )
    .order_by(table.c.name)
)
_TOUCH = update(table).where(table.c.name == bindparam("named")).values(resolved_at=bindparam("at"))
_COMPLETE = (
    update(table)
    .where(
        table.c.name == bindparam("named"),
        table.c.digest == bindparam("as_digest"),
        table.c.warm.is_(False),
    )
    .values(warm=True, synced_at=bindparam("at"))
)


class References:
    """The table of references."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get_many(self, names: Iterable[str]) -> dict[str, ReferenceRecord]:
        """The known ones among `names`."""
        wanted = list(names)

        def work(connection: Connection) -> dict[str, ReferenceRecord]:
            found = {}
            for chunk in chunks(wanted):
                for row in connection.execute(select(*_FIELDS).where(table.c.name.in_(chunk))):
                    found[row.name] = ReferenceRecord(*row)
            return found

        return await self._session.read(work) if wanted else {}

    async def of_repository(self, registry: str, repository: str) -> list[ReferenceRecord]:
        """The repository's references, by name."""
        where = {"in_registry": registry, "in_repository": repository}

        def work(connection: Connection) -> list[ReferenceRecord]:
            return [ReferenceRecord(*row) for row in connection.execute(_OF_REPOSITORY, where)]

        return await self._session.read(work)

    async def list(self) -> list[ReferenceRecord]:
        """All references, by name."""

        def work(connection: Connection) -> list[ReferenceRecord]:
            rows = connection.execute(select(*_FIELDS).order_by(table.c.name))
            return [ReferenceRecord(*row) for row in rows]

        return await self._session.read(work)

    async def save_many(self, records: Iterable[ReferenceRecord]) -> None:
        """Insert or replace, in one transaction.

        Records that differ from what is known in their times and errors alone are no change to
        those who serve.
        """
        rows = values(records, _NEW)

        def work(connection: Connection) -> None:
            if connection.execute(_SAVE_UNCHANGED, rows).rowcount < len(rows):
                connection.execute(_SAVE, rows)
                bump_generation(connection)

        if rows:
            await self._session.run(work)

    async def touch(self, name: str, at: datetime) -> None:
        """The tag was looked at, and is what it was: sets `resolved_at` alone."""
        row = {"named": name, "at": at}
        await self._session.run(lambda connection: connection.execute(_TOUCH, row))

    async def complete(self, digests: Mapping[str, str], at: datetime) -> None:
        """All of the content of these references, by name, is here: they are warm.

        One that has another digest than is given has moved meanwhile, and stays as it is.
        """
        rows = [{"named": name, "as_digest": digest, "at": at} for name, digest in digests.items()]

        def work(connection: Connection) -> None:
            if sum(connection.execute(_COMPLETE, row).rowcount for row in rows):
                bump_generation(connection)

        if rows:
            await self._session.run(work)

    async def set_pinned(self, names: Iterable[str], *, pinned: bool) -> int:
        """Pin or unpin; returns how many of `names` are known."""
        wanted = list(names)

        def work(connection: Connection) -> int:
            statement = update(table).values(pinned=pinned)
            return sum(
                connection.execute(statement.where(table.c.name.in_(chunk))).rowcount
                for chunk in chunks(wanted)
            )

        return await self._session.run(work)

    async def delete(self, names: Iterable[str]) -> int:
        """Forget references; returns how many of `names` were known."""
        wanted = list(names)

        def work(connection: Connection) -> int:
            gone = sum(
                connection.execute(delete(table).where(table.c.name.in_(chunk))).rowcount
                for chunk in chunks(wanted)
            )
            if gone:
                bump_generation(connection)
            return gone

        return await self._session.run(work)
