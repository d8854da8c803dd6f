"""Content as the database knows it: manifests with their children, blobs, links."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, select, update

from prefetch.state.models import blobs, children, links, manifests, repository_visibility
from prefetch.state.records import (
    BlobRecord,
    ChildRecord,
    LinkRecord,
    ManifestRecord,
    Visibility,
)
from prefetch.state.rows import Session, chunks, columns, upsert, upsert_into, values

_BLOB = columns(blobs, BlobRecord)
_LINK = columns(links, LinkRecord)


class Manifests:
    """Manifests and indexes whose documents have been seen, and what they name."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def save(
        self, digest: str, media_type: str, size: int, children: Iterable[ChildRecord]
    ) -> None:
        """Keep one document; saving it again changes nothing."""
        await self.save_many([ManifestRecord(digest, media_type, size, tuple(children))])

    async def save_many(self, records: Iterable[ManifestRecord]) -> None:
        """Keep documents, in one transaction."""
        known = list(records)
        heads = [
            {"digest": record.digest, "media_type": record.media_type, "size": record.size}
            for record in known
        ]
        rows = [
            {"parent": record.digest, "position": position, **row}
            for record in known
            for position, row in enumerate(values(record.children))
        ]

        def work(connection: Connection) -> None:
            connection.execute(upsert_into(manifests), heads)
            if rows:
                connection.execute(upsert_into(children), rows)

        if known:
            await self._session.run(work)

    async def trees(self, roots: Iterable[str]) -> dict[str, ManifestRecord]:
        """Every known document at or below `roots`, by digest; unknown roots are left out."""
        wanted = list(dict.fromkeys(roots))

        def work(connection: Connection) -> dict[str, ManifestRecord]:
            found: dict[str, ManifestRecord] = {}
            statement = _tree()
            for chunk in chunks(wanted):
                _gather(connection, statement, chunk, found)
            return found

        return await self._session.read(work) if wanted else {}

    async def delete(self, digests: Iterable[str]) -> None:
        """Forget documents and their lists of children."""
        gone = list(digests)

        def work(connection: Connection) -> None:
            for chunk in chunks(gone):
                connection.execute(delete(manifests).where(manifests.c.digest.in_(chunk)))

        await self._session.run(work)


def _tree() -> Select[Any]:
    """Documents at or below the bound `roots`, a row for each child (or one without)."""
    roots = select(manifests.c.digest).where(
        manifests.c.digest.in_(bindparam("roots", expanding=True))
    )
    tree = roots.cte("tree", recursive=True)
    below = select(children.c.digest).join(tree, children.c.parent == tree.c.digest)
    tree = tree.union(below.where(children.c.kind.in_(["manifest", "index"])))
    return (
        select(
            manifests.c.digest,
            manifests.c.media_type,
            manifests.c.size,
            children.c.digest,
            children.c.kind,
            children.c.media_type,
            children.c.size,
            children.c.platform,
        )
        .select_from(tree)
        .join(manifests, manifests.c.digest == tree.c.digest)
        .outerjoin(children, children.c.parent == manifests.c.digest)
        .order_by(manifests.c.digest, children.c.position)
    )


def _gather(
    connection: Connection,
    statement: Select[Any],
    roots: Iterable[str],
    found: dict[str, ManifestRecord],
) -> None:
    """Group the rows of one query by document."""
    head: tuple[str, str, int] | None = None
    below: list[ChildRecord] = []

    def close() -> None:
        if head is not None and head[0] not in found:
            found[head[0]] = ManifestRecord(*head, tuple(below))

    for row in connection.execute(statement, {"roots": list(roots)}):
        digest, media_type, size, child, kind, child_type, child_size, platform = row
        if head is None or head[0] != digest:
            close()
            head, below = (digest, sys.intern(media_type), size), []
        if child is not None:
            # A few words name the types and platforms of all content: keep one copy of each.
            below.append(
                ChildRecord(
                    sys.intern(child),
                    kind,
                    sys.intern(child_type),
                    child_size,
                    None if platform is None else sys.intern(platform),
                )
            )
    close()


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
        """Remember that content was served."""
        wanted = list(digests)

        def work(connection: Connection) -> None:
            for chunk in chunks(wanted):
                connection.execute(
                    update(blobs).where(blobs.c.digest.in_(chunk)).values(last_served_at=at)
                )

        await self._session.run(work)

    async def delete(self, digests: Iterable[str]) -> None:
        """Forget content."""
        gone = list(digests)

        def work(connection: Connection) -> None:
            for chunk in chunks(gone):
                connection.execute(delete(blobs).where(blobs.c.digest.in_(chunk)))

        await self._session.run(work)


class Links:
    """Which repository holds what, and who may see it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add_many(self, records: Iterable[LinkRecord]) -> None:
        """Insert or replace, in one transaction."""
        await upsert(self._session, links, records)

    async def repositories_of(self, digest: str) -> list[LinkRecord]:
        """Every repository known to hold the content."""

        def work(connection: Connection) -> list[LinkRecord]:
            rows = connection.execute(select(*_LINK).where(links.c.digest == digest))
            return [LinkRecord(*row) for row in rows]

        return await self._session.read(work)

    async def visibilities(self) -> dict[tuple[str, str], tuple[Visibility, datetime]]:
        """What is known of each (registry, repository): who may see it, and when that was asked."""

        def work(
            connection: Connection,
        ) -> dict[tuple[str, str], tuple[Visibility, datetime]]:
            facts = repository_visibility.c
            rows = connection.execute(
                select(facts.registry, facts.repository, facts.visibility, facts.checked_at)
            )
            return {(row[0], row[1]): (row[2], row[3]) for row in rows}

        return await self._session.read(work)

    async def set_visibility(
        self, registry: str, repository: str, visibility: Visibility, at: datetime
    ) -> None:
        """Remember who may see a repository."""
        row = {
            "registry": registry,
            "repository": repository,
            "visibility": visibility,
            "checked_at": at,
        }
        await self._session.run(
            lambda connection: connection.execute(upsert_into(repository_visibility), [row])
        )
