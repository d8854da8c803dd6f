"""State from the layout: a lost or damaged database made anew from `index.json` and the blobs.

What comes back: references, digests, platforms, warmth, sizes, times. Visibility that the layout
does not tell counts as private. Spends and observations are gone, so every meter is observed
before its first spend.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prefetch.clock import Clock
from prefetch.errors import InvalidReference, PrefetchError
from prefetch.oci.reference import Digest, Reference, Repository
from prefetch.state.database import State
from prefetch.state.records import (
    BlobRecord,
    LinkRecord,
    ManifestRecord,
    ReferenceRecord,
    Visibility,
)
from prefetch.store.content import ContentStore
from prefetch.store.layout import IndexEntry, read_index
from prefetch.sync.catalog import ALIAS, ANNOTATION
from prefetch.sync.closure import closure_of
from prefetch.sync.documents import Documents, platform_of_image, record_of
from prefetch.sync.wanted import platforms_from_text

_BATCH = 1000


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild has found."""

    references: int = 0
    incomplete: int = 0
    skipped: int = 0
    blobs: int = 0
    size: int = 0


class Rebuilder:
    """Fills an empty database from a data directory's layout."""

    def __init__(self, state: State, store: ContentStore, clock: Clock) -> None:
        self._state = state
        self._store = store
        self._documents = Documents(store)
        self._clock = clock
        self._records: dict[str, ManifestRecord] = {}
        # What each repository holds, by whether it was known to be private.
        self._held: dict[bool, list[tuple[Repository, tuple[str, ...]]]] = {True: [], False: []}

    async def run(self, data_dir: Path) -> Rebuilt:
        """Read the whole layout. Raises StoreError when `index.json` makes no sense."""
        found = Rebuilt()
        for entry in await asyncio.to_thread(read_index, data_dir):
            if ALIAS in entry.annotations:
                continue
            try:
                await self._restore(entry, found)
            except PrefetchError:
                found.skipped += 1  # a root that is gone or damaged: the next sync fetches it
        await self._link()
        await self._blobs(found)
        return found

    async def _restore(self, entry: IndexEntry, found: Rebuilt) -> None:
        reference = Reference.parse(entry.reference_name)
        facts = {
            key.removeprefix(ANNOTATION): value
            for key, value in entry.annotations.items()
            if key.startswith(ANNOTATION)
        }
        digest = entry.descriptor.digest
        await self._learn(digest)
        platforms = facts.get("platforms", "all")
        closure = closure_of(str(digest), self._records, platforms_from_text(platforms))
        present = await self._store.present(map(Digest.parse, closure.digests))
        warm = len(present) == len(set(closure.digests))
        repository = reference.repository
        await self._state.references.save_many(
            [
                ReferenceRecord(
                    name=str(reference),
                    registry=repository.registry,
                    repository=repository.path,
                    tag=reference.tag,
                    digest=str(digest),
                    media_type=entry.descriptor.media_type,
                    platforms=platforms,
                    warm=warm,
                    pinned=facts.get("pinned") == "true",
                    resolved_at=_moment(facts.get("resolved-at")),
                    changed_at=_moment(facts.get("changed-at")),
                    synced_at=_moment(facts.get("synced-at")),
                )
            ]
        )
        told = facts.get("visibility")
        visibility: Visibility = "public" if told == "public" else "private"
        self._held[told == "private"].append((repository, closure.digests))
        await self._state.links.set_visibility(
            repository.registry, repository.path, visibility, self._clock.now()
        )
        found.references += 1
        found.incomplete += not warm

    async def _link(self) -> None:
        """Remember which repository holds what.

        Documents may name anything: what a private repository holds is not taken to be in another
        one as well. `serve` asks the registry about that when somebody wants it there.
        """
        private = {digest for _, digests in self._held[True] for digest in digests}
        for is_private, held in self._held.items():
            hidden = set() if is_private else private
            await self._state.links.add_many(
                LinkRecord(repository.registry, repository.path, digest)
                for repository, digests in held
                for digest in digests
                if digest not in hidden
            )

    async def _learn(self, root: Digest) -> None:
        """Read the documents at and below `root` that are in the store."""
        pending = [root]
        new = []
        while pending:
            digest = pending.pop()
            if str(digest) in self._records:
                continue
            document = await self._documents.stored(digest)
            platform = None
            if digest == root:
                platform = await platform_of_image(self._store, document)
            record = record_of(document, platform=platform)
            self._records[record.digest] = record
            new.append(record)
            below = [
                Digest.parse(child.digest)
                for child in record.children
                if child.kind in ("manifest", "index")
            ]
            pending += await self._store.present(below)
        await self._state.manifests.save_many(new)

    async def _blobs(self, found: Rebuilt) -> None:
        batch: list[BlobRecord] = []
        async for info in self._store.walk():
            found.blobs += 1
            found.size += info.size
            if str(info.digest) not in self._records:
                batch.append(BlobRecord(str(info.digest), info.size))
            if len(batch) >= _BATCH:
                await self._state.blobs.save_many(batch)
                batch.clear()
        await self._state.blobs.save_many(batch)


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if text else None
    except ValueError as error:
        raise InvalidReference(f"{text!r:.40} is not a time") from error
