"""What the cache holds: references with their content, for people and for `index.json`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from prefetch.clock import rfc3339
from prefetch.oci.model import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)
from prefetch.oci.reference import Digest
from prefetch.state.database import State
from prefetch.state.records import ReferenceRecord, Visibility
from prefetch.store.content import ContentStore
from prefetch.store.layout import IndexEntry, write_index
from prefetch.sync.closure import Closure, closure_of
from prefetch.sync.wanted import platforms_from_text

# Annotations of index.json, from which `db rebuild` restores what blobs alone do not tell.
ANNOTATION = "dev.oci-prefetch."
# On a second entry for a Docker type, for tools that see OCI types alone: skopeo before 1.10.
ALIAS = f"{ANNOTATION}alias-of-type"
_OCI_TYPE = {DOCKER_LIST: OCI_INDEX, DOCKER_MANIFEST: OCI_MANIFEST}


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A reference whose root document is known.

    `size` is the bytes of its manifests and blobs for the platforms last asked for, `warm` whether
    all of them are in the store, `root_size` the bytes of the root document. `fetched_from` are the
    registries that its content is known to have come from, where that was asked for.
    """

    record: ReferenceRecord
    platforms: tuple[str, ...]
    warm: bool
    size: int
    root_size: int
    visibility: Visibility
    last_served_at: datetime | None
    fetched_from: tuple[str, ...] = ()


class Catalog:
    """Reads the cache's contents from the state, and checks them against the store."""

    def __init__(self, state: State, store: ContentStore) -> None:
        self._state = state
        self._store = store

    async def entries(self, *, provenance: bool = False) -> list[CatalogEntry]:
        """All references that have content, by name; with `provenance`, where it came from."""
        references = [r for r in await self._state.references.list() if r.digest]
        records = await self._state.manifests.trees({r.digest for r in references if r.digest})
        closures: dict[str, Closure] = {
            r.name: closure_of(r.digest, records, platforms_from_text(r.platforms))
            for r in references
            if r.digest in records
        }
        digests = {digest for closure in closures.values() for digest in closure.digests}
        present = {str(digest) for digest in await self._store.present(map(Digest.parse, digests))}
        visibilities = await self._state.links.visibilities()
        roots = {r.digest for r in references if r.digest}
        facts = await self._state.blobs.get_many(roots | digests if provenance else roots)
        entries = []
        for record in references:
            closure = closures.get(record.name)
            if closure is None or record.digest is None:
                continue
            known = visibilities.get((record.registry, record.repository))
            blob = facts.get(record.digest)
            came = {facts[each].registry for each in closure.digests if each in facts}
            entries.append(
                CatalogEntry(
                    record=record,
                    platforms=closure.platforms,
                    warm=record.warm and present.issuperset(closure.digests),
                    size=sum(records[digest].size for digest in closure.manifests)
                    + sum(child.size for child in closure.blobs),
                    root_size=records[record.digest].size,
                    visibility=known[0] if known else "unknown",
                    last_served_at=blob.last_served_at if blob else None,
                    fetched_from=tuple(sorted(each for each in came if each)),
                )
            )
        return entries

    async def write_index(self, data_dir: Path) -> None:
        """Make `cache/index.json` name every warm reference."""
        warm = [_index_entry(entry) for entry in await self.entries() if entry.warm]
        aliases = [_alias(entry) for entry in warm if entry.descriptor.media_type in _OCI_TYPE]
        await asyncio.to_thread(write_index, data_dir, [*warm, *aliases])


def catalog_document(entries: Sequence[CatalogEntry]) -> list[dict[str, object]]:
    """`images -o json`."""
    return [
        {
            "reference": entry.record.name,
            "digest": entry.record.digest,
            "platforms": list(entry.platforms),
            "warm": entry.warm,
            "size": entry.size,
            "source": entry.record.registry,
            "fetched_from": list(entry.fetched_from),
            "visibility": entry.visibility,
            "resolved_at": _moment(entry.record.resolved_at),
            "synced_at": _moment(entry.record.synced_at),
            "last_served_at": _moment(entry.last_served_at),
        }
        for entry in entries
    ]


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def _index_entry(entry: CatalogEntry) -> IndexEntry:
    record = entry.record
    facts = {
        "platforms": record.platforms,
        "visibility": entry.visibility,
        "resolved-at": _moment(record.resolved_at),
        "changed-at": _moment(record.changed_at),
        "synced-at": _moment(record.synced_at),
        "pinned": "true" if record.pinned else None,
    }
    return IndexEntry(
        Descriptor(
            record.media_type or "application/octet-stream",
            Digest.parse(record.digest or ""),
            entry.root_size,
        ),
        record.name,
        {ANNOTATION + key: value for key, value in facts.items() if value},
    )


def _alias(entry: IndexEntry) -> IndexEntry:
    """The same content under the OCI type of its kind; who knows Docker's finds that first."""
    told = entry.descriptor.media_type
    descriptor = replace(entry.descriptor, media_type=_OCI_TYPE[told])
    return IndexEntry(descriptor, entry.reference_name, {ALIAS: told})
