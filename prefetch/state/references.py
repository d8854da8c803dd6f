"""References and what they were when last looked at."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, select, update

from prefetch.state.models import image_references as table
from prefetch.state.records import ReferenceRecord
from prefetch.state.rows import Session, chunks, columns, upsert

_FIELDS = columns(table, ReferenceRecord)


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

    async def list(self) -> list[ReferenceRecord]:
        """All references, by name."""

        def work(connection: Connection) -> list[ReferenceRecord]:
            rows = connection.execute(select(*_FIELDS).order_by(table.c.name))
            return [ReferenceRecord(*row) for row in rows]

        return await self._session.read(work)

    async def save_many(self, records: Iterable[ReferenceRecord]) -> None:
        """Insert or replace, in one transaction."""
        await upsert(self._session, table, records)

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
            return sum(
                connection.execute(delete(table).where(table.c.name.in_(chunk))).rowcount
                for chunk in chunks(wanted)
            )

        return await self._session.run(work)
