"""What is remembered of alternates, repository by repository: they worked, lacked it, or lied."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects.sqlite import insert

from prefetch.state.models import alternate_facts as table
from prefetch.state.records import AlternateRecord
from prefetch.state.rows import Session, columns

_FIELDS = columns(table, AlternateRecord)
_OF_REPOSITORY = select(*_FIELDS).where(
    table.c.registry == bindparam("registry"), table.c.repository == bindparam("repository")
)
_KEY = [column.name for column in table.primary_key]


class AlternateFacts:
    """Facts of alternates. `registry` and `repository` are the named ones, not the alternate's."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def of(self, registry: str, repository: str) -> dict[str, AlternateRecord]:
        """What is known of each alternate of a repository, by the alternate."""
        where = {"registry": registry, "repository": repository}

        def work(connection: Connection) -> dict[str, AlternateRecord]:
            records = [AlternateRecord(*row) for row in connection.execute(_OF_REPOSITORY, where)]
            return {record.alternate: record for record in records}

        return await self._session.read(work)

    async def worked(self, registry: str, repository: str, alternate: str, at: datetime) -> None:
        """It gave something of the repository, whole and right."""
        await self._change((registry, repository, alternate), {"worked_at": at, "lacked": 0})

    async def has(self, registry: str, repository: str, alternate: str) -> None:
        """It says that it has something of the repository: what it lacked before is no habit."""
        key = dict(zip(_KEY, (registry, repository, alternate), strict=True))
        same = [table.c[name] == bindparam(f"of_{name}") for name in _KEY]
        statement = update(table).where(*same, table.c.lacked > 0).values(lacked=0)
        where = {f"of_{name}": value for name, value in key.items()}
        await self._session.run(lambda connection: connection.execute(statement, where))

    async def lacks(self, registry: str, repository: str, alternate: str, at: datetime) -> None:
        """It does not have something of the repository."""
        more = {"lacked_at": at, "lacked": table.c.lacked + 1}
        await self._change((registry, repository, alternate), more, lacked=1)

    async def lied(
        self, registry: str, repository: str, alternate: str, at: datetime, lie: str
    ) -> None:
        """It sent other content than was asked for; `lie` says what, in words."""
        await self._change((registry, repository, alternate), {"lied_at": at, "lie": lie})

    async def _change(
        self, key: tuple[str, str, str], change: dict[str, Any], *, lacked: int = 0
    ) -> None:
        """Change a row, or begin it."""
        first = {**dict(zip(_KEY, key, strict=True)), **change, "lacked": lacked}
        statement = insert(table).values(first)
        statement = statement.on_conflict_do_update(index_elements=_KEY, set_=change)
        await self._session.run(lambda connection: connection.execute(statement))
