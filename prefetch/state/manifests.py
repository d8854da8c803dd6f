"""Manifests and indexes as the database knows them, and what they name."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, FromClause, Select, bindparam, delete, select

from prefetch.state.generation import bump_generation
from prefetch.state.models import children, manifests
from prefetch.state.records import ChildRecord, ManifestRecord
from prefetch.state.rows import Session, chunks, upsert_changed, values

_SAVE, _SAVE_CHILDREN = upsert_changed(manifests), upsert_changed(children)
_ASKED = manifests.c.digest.in_(bindparam("asked", expanding=True))
_PARENTS = select(children.c.parent).where(children.c.digest == bindparam("child")).distinct()
_REFERRERS = select(manifests.c.digest).where(manifests.c.subject == bindparam("to"))


class Manifests:
    """Manifests and indexes whose documents have been seen, and what they name."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def save_many(self, records: Iterable[ManifestRecord]) -> None:
        """Keep documents, in one transaction; saving them again changes nothing.

        A subject, or a child's platform, that was known once stays known.
        """
        known = list(records)
        heads = [
            {
                "digest": record.digest,
                "media_type": record.media_type,
                "size": record.size,
                "subject": record.subject,
            }
            for record in known
        ]
        rows = [
            {"parent": record.digest, "position": position, **row}
            for record in known
            for position, row in enumerate(values(record.children))
        ]

        def work(connection: Connection) -> None:
            changed = connection.execute(_SAVE, heads).rowcount
            if rows:
                changed += connection.execute(_SAVE_CHILDREN, rows).rowcount
            if changed:
                bump_generation(connection)

        if known:
            await self._session.run(work)

    async def get_many(self, digests: Iterable[str]) -> dict[str, ManifestRecord]:
        """The known ones among `digests`, without what is below them."""
        return await self._gather(_ALONE, digests)

    async def trees(self, roots: Iterable[str]) -> dict[str, ManifestRecord]:
        """Every known document at or below `roots`, by digest; unknown roots are left out."""
        return await self._gather(_TREES, roots)

    async def parents(self, digest: str) -> list[str]:
        """The known documents that name `digest` as a child, whatever it is; sorted."""
        return await self._digests(_PARENTS, {"child": digest})

    async def referrers(self, subject: str) -> list[str]:
        """The known documents whose subject is `subject`; sorted."""
        return await self._digests(_REFERRERS, {"to": subject})

    async def delete(self, digests: Iterable[str]) -> None:
        """Forget documents and their lists of children.

        It counts as a change even where they were not known.
        """
        gone = list(digests)

        def work(connection: Connection) -> None:
            for chunk in chunks(gone):
                connection.execute(delete(manifests).where(manifests.c.digest.in_(chunk)))
            # The store may have held what was not written down here.
            bump_generation(connection)

        if gone:
            await self._session.run(work)

    async def _gather(
        self, statement: Select[Any], digests: Iterable[str]
    ) -> dict[str, ManifestRecord]:
        wanted = list(dict.fromkeys(digests))

        def work(connection: Connection) -> dict[str, ManifestRecord]:
            found: dict[str, ManifestRecord] = {}
            for chunk in chunks(wanted):
                _read(connection, statement, chunk, found)
            return found

        return await self._session.read(work) if wanted else {}

    async def _digests(self, statement: Select[Any], parameters: dict[str, str]) -> list[str]:
        def work(connection: Connection) -> list[str]:
            # Sorted here: how a database sorts text is for its locale to say.
            return sorted(connection.execute(statement, parameters).scalars())

        return await self._session.read(work)


def _documents(source: FromClause) -> Select[Any]:
    """The documents in `source`, a row for each child (or one without)."""
    return (
        select(
            manifests.c.digest,
            manifests.c.media_type,
            manifests.c.size,
            manifests.c.subject,
            children.c.digest,
            children.c.kind,
            children.c.media_type,
            children.c.size,
            children.c.platform,
        )
        .select_from(source)
        .outerjoin(children, children.c.parent == manifests.c.digest)
        .order_by(manifests.c.digest, children.c.position)
    )


def _trees() -> Select[Any]:
    """Documents at or below the bound `asked`."""
    tree = select(manifests.c.digest).where(_ASKED).cte("tree", recursive=True)
    below = select(children.c.digest).join(tree, children.c.parent == tree.c.digest)
    tree = tree.union(below.where(children.c.kind.in_(["manifest", "index"])))
    return _documents(tree.join(manifests, manifests.c.digest == tree.c.digest))


_ALONE, _TREES = _documents(manifests).where(_ASKED), _trees()


def _read(
    connection: Connection,
    statement: Select[Any],
    asked: Iterable[str],
    found: dict[str, ManifestRecord],
) -> None:
    """Group the rows of one query by document."""
    head: tuple[str, str, int] | None = None
    subject: str | None = None
    below: list[ChildRecord] = []

    def close() -> None:
        if head is not None and head[0] not in found:
            found[head[0]] = ManifestRecord(*head, tuple(below), subject)

    for row in connection.execute(statement, {"asked": list(asked)}):
        digest, media_type, size, about, child, kind, child_type, child_size, platform = row
        if head is None or head[0] != digest:
            close()
            head, subject, below = (digest, sys.intern(media_type), size), about, []
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
