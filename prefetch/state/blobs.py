"""Content as the database knows it: how much of it there is, where from, and when it was used."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, Text, bindparam, delete, func, select, union_all, update
from sqlalchemy.dialects.sqlite import insert

from prefetch.state.generation import bump_generation
from prefetch.state.models import blobs, children, manifests
from prefetch.state.records import BlobRecord
from prefetch.state.rows import Session, chunks, columns, upsert_into, values

_BLOB = columns(blobs, BlobRecord)
_CHUNK = bindparam("chunk", type_=Text, expanding=True)
_AT = bindparam("at", type_=blobs.c.last_served_at.type)
_SERVED = update(blobs).where(blobs.c.digest.in_(_CHUNK)).values(last_served_at=_AT)
# Documents have no row before they are served, nor has content that no fetch of ours has brought.
_NAMED = union_all(
    select(manifests.c.digest, manifests.c.size).where(manifests.c.digest.in_(_CHUNK)),
    select(children.c.digest, children.c.size).where(children.c.digest.in_(_CHUNK)),
).subquery()
_SERVED_FIRST = (
    insert(blobs)
    .from_select(
        ["digest", "size", "last_served_at"],
        select(_NAMED.c.digest, func.max(_NAMED.c.size), _AT).group_by(_NAMED.c.digest),
    )
    .on_conflict_do_nothing()
)


class Blobs:
    """Content in the store: size, origin, last use."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get_many(self, digests: Iterable[str]) -> dict[str, BlobRecord]:
        """The known ones among `digests`."""
        wanted = list(digests)

        def work(connection: Connection) -> dict[str, BlobRecord]:
            found = {}
            for chunk in chunks(wanted):
                for row in connection.execute(select(*_BLOB).where(blobs.c.digest.in_(chunk))):
                    found[row.digest] = BlobRecord(*row)
            return found

        return await self._session.read(work) if wanted else {}

    async def save_many(self, records: Iterable[BlobRecord]) -> None:
        """Insert or replace, in one transaction; when a blob was last served stays known."""
        rows = values(records)
        statement = upsert_into(blobs, "last_served_at")
        if rows:
            await self._session.run(lambda connection: connection.execute(statement, rows))

    async def served(self, digests: Iterable[str], at: datetime) -> None:
        """Remember that content was served; what the database has never heard of is left out."""
        wanted = list(digests)

        def work(connection: Connection) -> None:
            for chunk in chunks(wanted):
                connection.execute(_SERVED, {"chunk": chunk, "at": at})
                connection.execute(_SERVED_FIRST, {"chunk": chunk, "at": at})

        await self._session.run(work)

    async def delete(self, digests: Iterable[str]) -> None:
        """Forget content; it counts as a change even where it was not known."""
        gone = list(digests)

        def work(connection: Connection) -> None:
            for chunk in chunks(gone):
                connection.execute(delete(blobs).where(blobs.c.digest.in_(chunk)))
            # The store may have held what was not written down here.
            bump_generation(connection)

        if gone:
            await self._session.run(work)
