"""Manifests and indexes: from the store when they are there, else by a counted pull.

A document is fetched once, whichever images share it, in whichever process: the same coalescing
and the same kernel lock as for blobs.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable

from prefetch.errors import InvalidReference, NotFound, PrefetchError, StoreError
from prefetch.oci.model import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_SIZE,
    Descriptor,
    Document,
    Index,
    Manifest,
    parse_document,
)
from prefetch.oci.platform import Platform
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.registry import RegistryClient
from prefetch.state.ledger import Hold
from prefetch.state.records import ChildKind, ChildRecord, ManifestRecord
from prefetch.store.content import ContentStore, Provider
from prefetch.sync.alternates import Alternates
from prefetch.sync.transfer import Coalescer

_IMAGE_CONFIGS = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
_MAX_CONFIG_SIZE = 8 * 1024 * 1024

Get = Callable[[], Awaitable[Document]]


class Documents:
    """Reads and fetches manifests and indexes."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._coalescer = Coalescer()

    async def stored(self, digest: Digest, media_type: str | None = None) -> Document:
        """A document that is in the store; raises StoreError or InvalidManifest."""
        raw = await self._store.read(digest, limit=MAX_MANIFEST_SIZE)
        return parse_document(raw, media_type, algorithm=digest.algorithm)

    async def adopt(self, digests: Iterable[Digest]) -> dict[str, ManifestRecord]:
        """Records of documents that the store has and the database does not know."""
        found = {}
        for digest in await self._store.present(digests):
            try:
                document = await self.stored(digest)
                platform = await platform_of_image(self._store, document)
            except PrefetchError:
                continue  # damaged, or only half here: it will be fetched again
            found[str(digest)] = record_of(document, platform=platform)
        return found

    async def fetch(
        self,
        client: RegistryClient,
        repository: Repository,
        descriptor: Descriptor,
        *,
        hold: Hold | None,
        on_pull: Callable[[], None],
    ) -> Document:
        """The document; `on_pull` is called for each pull that this very call spends.

        Raises BudgetExhausted, RegistryError, NetworkError, ContentError or StoreError.
        """

        async def pull() -> Document:
            digest = str(descriptor.digest)
            return await client.manifest(repository, digest, hold=hold, on_pull=on_pull)

        return await self._shared(descriptor, pull, str(repository))

    async def from_alternates(
        self,
        alternates: Alternates,
        repository: Repository,
        descriptor: Descriptor,
        *,
        on_pull: Callable[[], None],
    ) -> tuple[Document, str | None] | None:
        """The document from an alternate of the repository's registry; None: nobody gave it.

        Also says which registry it came from, None where it was here, or came for somebody else.
        """
        source: str | None = None

        async def ask() -> Document:
            nonlocal source
            given = await alternates.document(repository, descriptor.digest, on_pull)
            if given is None:
                raise NotFound(f"{repository}@{descriptor.digest}: no alternate has it")
            source = given[1]
            return given[0]

        if not await alternates.sources(repository):
            return None
        try:
            found = await self._shared(descriptor, ask, f"alternates of {repository}")
        except NotFound:
            return None
        return found, source

    async def _shared(self, descriptor: Descriptor, get: Get, source: str) -> Document:
        """The document, got once for all who want it from that source."""
        document, _ = await self._coalescer.run(
            str(descriptor.digest), lambda: self._fetch(descriptor, get), source=source
        )
        return document

    async def _fetch(self, descriptor: Descriptor, get: Get) -> Document:
        digest = descriptor.digest
        if descriptor.data is not None:
            await self._store.put(digest, descriptor.data)
        writer = await self._store.open_writer(digest, None)
        if writer is None:
            try:
                return await self.stored(digest, descriptor.media_type or None)
            except StoreError:
                # Damaged on the disk: what is served must be what was named, so pull it anew.
                await self._store.delete(digest)
                return await self._fetch(descriptor, get)
        try:
            document = await get()
            await writer.restart()
            await writer.write(document.raw)
            await writer.commit()
        finally:
            await writer.close()
        return document


def telling_config(document: Document) -> Descriptor | None:
    """The config that names a lone image's platform.

    None for an index, for an artifact, which fits every platform, and for one that is too large.
    """
    if not isinstance(document, Manifest) or document.config.media_type not in _IMAGE_CONFIGS:
        return None
    return document.config if document.config.size <= _MAX_CONFIG_SIZE else None


async def platform_of_image(store: Provider, document: Document) -> str | None:
    """The platform that a lone image's config (which must be in the store) names, if any does."""
    config = telling_config(document)
    if config is None:
        return None
    return platform_of_config(await store.read(config.digest, limit=_MAX_CONFIG_SIZE))


def platform_of_config(raw: bytes) -> str | None:
    """`os/architecture[/variant]` of an image config (image-spec, "Image Configuration").

    None where it names none, or nonsense: such an image is taken to fit every platform.
    """
    try:
        config = json.loads(raw)
        named = [config.get(key) for key in ("os", "architecture", "variant")]
        words = [word for word in named if isinstance(word, str) and word]
        return str(Platform.parse("/".join(words))) if len(words) > 1 else None
    except (ValueError, AttributeError, RecursionError, InvalidReference):
        return None


def record_of(document: Document, *, platform: str | None = None) -> ManifestRecord:
    """The document as the database keeps it; `platform` is what an image's config says."""
    if isinstance(document, Index):
        children = tuple(_child(d, _kind(d)) for d in document.manifests)
    else:
        config = _child(document.config, "config", platform)
        children = (config, *(_child(layer, "layer") for layer in document.layers))
    return ManifestRecord(
        str(document.digest),
        document.media_type,
        len(document.raw),
        children,
        subject=None if document.subject is None else str(document.subject.digest),
    )


def _kind(descriptor: Descriptor) -> ChildKind:
    """What an index's entry is; one of another media type is content like any blob."""
    if descriptor.media_type in INDEX_TYPES:
        return "index"
    return "manifest" if descriptor.media_type in MANIFEST_TYPES else "layer"


def _child(descriptor: Descriptor, kind: ChildKind, platform: str | None = None) -> ChildRecord:
    if descriptor.platform is not None:
        platform = str(descriptor.platform)
    return ChildRecord(
        str(descriptor.digest), kind, descriptor.media_type, descriptor.size, platform
    )
