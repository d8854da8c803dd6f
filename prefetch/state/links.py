"""Links: which repository holds what, and who may see it there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, or_, select

from prefetch.state.generation import bump_generation
from prefetch.state.models import image_references, links, repository_visibility
from prefetch.state.records import LinkRecord, Visibility
from prefetch.state.rows import Session, chunks, columns, upsert_changed, upsert_into, values

_LINK = columns(links, LinkRecord)
_SAVE = upsert_changed(links)
_LINKED = select(links.c.digest).where(
    links.c.registry == bindparam("registry"),
    links.c.repository == bindparam("repository"),
    links.c.digest.in_(bindparam("digests", expanding=True)),
)
_PRIVATE = (
    select(links.c.digest)
    .join(
        repository_visibility,
        and_(
            repository_visibility.c.registry == links.c.registry,
            repository_visibility.c.repository == links.c.repository,
        ),
    )
    .where(
        links.c.digest.in_(bindparam("digests", expanding=True)),
        repository_visibility.c.visibility == "private",
        or_(
            links.c.registry != bindparam("registry"),
            links.c.repository != bindparam("repository"),
        ),
    )
)
_REPOSITORIES = (
    select(image_references.c.registry, image_references.c.repository)
    .where(image_references.c.digest.is_not(None))
    .distinct()
)
_VISIBILITY = select(repository_visibility.c.visibility).where(
    repository_visibility.c.registry == bindparam("registry"),
    repository_visibility.c.repository == bindparam("repository"),
)
_SAVE_VISIBILITY = upsert_into(repository_visibility)


class Links:
    """Which repository holds what, and who may see it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add_many(self, records: Iterable[LinkRecord]) -> None:
        """Insert or replace, in one transaction."""
        rows = values(records)

        def work(connection: Connection) -> None:
            if connection.execute(_SAVE, rows).rowcount:
                bump_generation(connection)

        if rows:
            await self._session.run(work)

    async def repositories_of(self, digest: str) -> list[LinkRecord]:
        """Every repository known to hold the content."""

        def work(connection: Connection) -> list[LinkRecord]:
            rows = connection.execute(select(*_LINK).where(links.c.digest == digest))
            return [LinkRecord(*row) for row in rows]

        return await self._session.read(work)

    async def linked(self, registry: str, repository: str, digests: Iterable[str]) -> set[str]:
        """Those among `digests` that the repository is known to hold."""
        return await self._among(_LINKED, registry, repository, digests)

    async def private_elsewhere(
        self, registry: str, repository: str, digests: Iterable[str]
    ) -> set[str]:
        """Those among `digests` that some other repository holds which not everybody may see."""
        return await self._among(_PRIVATE, registry, repository, digests)

    async def repositories(self) -> list[tuple[str, str]]:
        """Each (registry, repository) that has a reference with a digest, sorted."""

        def work(connection: Connection) -> list[tuple[str, str]]:
            # Sorted here: how a database sorts text is for its locale to say.
            return sorted((row[0], row[1]) for row in connection.execute(_REPOSITORIES))

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

        def work(connection: Connection) -> None:
            if connection.execute(_VISIBILITY, row).scalar() != visibility:
                bump_generation(connection)
            connection.execute(_SAVE_VISIBILITY, [row])

        await self._session.run(work)

    async def _among(
        self, statement: Select[Any], registry: str, repository: str, digests: Iterable[str]
    ) -> set[str]:
        """Those of `digests` that the statement finds for the repository."""
        where = {"registry": registry, "repository": repository}
        wanted = list(digests)

        def work(connection: Connection) -> set[str]:
            return {
                digest
                for chunk in chunks(wanted)
                for digest in connection.execute(statement, {**where, "digests": chunk}).scalars()
            }

        return await self._session.read(work) if wanted else set()
