"""One image fetched: its documents by pulls that are held for it, then its blobs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prefetch.clock import Clock
from prefetch.errors import BudgetExhausted, PrefetchError
from prefetch.oci.model import Descriptor, Document, Manifest
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.registry import RegistryClient
from prefetch.state.database import State
from prefetch.state.ledger import Ledger
from prefetch.state.records import BlobRecord, LinkRecord, ManifestRecord
from prefetch.store.content import ContentStore
from prefetch.sync.closure import Closure
from prefetch.sync.documents import Documents, platform_of_image, record_of
from prefetch.sync.sharing import Payer, Sharing
from prefetch.sync.transfer import Transfer
from prefetch.sync.wanted import Grant, PlannedImage, Spent

T = TypeVar("T")


class Fetcher:
    """Brings images into the store, any number at once."""

    def __init__(
        self,
        *,
        state: State,
        ledger: Ledger,
        store: ContentStore,
        documents: Documents,
        transfer: Transfer,
        clock: Clock,
    ) -> None:
        self.state = state
        self.ledger = ledger
        self.store = store
        self.documents = documents
        self.transfer = transfer
        self.clock = clock

    async def fetch(
        self,
        client: RegistryClient,
        image: PlannedImage,
        grant: Grant,
        spent: Spent,
        sharing: Sharing,
    ) -> Closure:
        """Complete the image; returns its closure, all of it in the store.

        What was spent is counted in `spent` (of the image that pays, where others of the run share
        a document) even when this raises: BudgetExhausted (the image is
        dearer than its grant), PlatformMissing, or whatever stopped a document or a blob.
        """
        covered = spent.pulls + grant.pulls
        return await _Job(self, client, image, grant, spent, sharing, covered).run()

    async def link(
        self,
        client: RegistryClient,
        repository: Repository,
        closure: Closure,
        fetched: Collection[str] = (),
        borrowed: Collection[str] = (),
    ) -> None:
        """Remember that the repository holds this content; `fetched` has just come from it, what is
        `borrowed` from another one.

        A document may name anything. What is borrowed, and what another repository holds in
        private, is taken to be in this one, too, only when the registry says so (free): nobody is
        to be shown it for having named its digest.
        """
        reused = [digest for digest in closure.digests if digest not in fetched]
        doubtful = await self.state.links.private_elsewhere(
            repository.registry, repository.path, reused
        )
        doubtful |= {digest for digest in reused if digest in borrowed}
        manifests = set(closure.documents)
        for digest in list(doubtful):
            if await _has(client, repository, Digest.parse(digest), manifest=digest in manifests):
                doubtful.discard(digest)
        await self.state.links.add_many(
            LinkRecord(repository.registry, repository.path, digest)
            for digest in closure.digests
            if digest not in doubtful
        )


@dataclass(slots=True)
class _Job:
    """The state of one fetch; `covered` is what `spent.pulls` may reach within the grant."""

    tools: Fetcher
    client: RegistryClient
    image: PlannedImage
    grant: Grant
    spent: Spent
    sharing: Sharing
    covered: int
    documents: dict[str, Document] = field(default_factory=dict)
    borrowed: set[str] = field(default_factory=set)
    config_platform: str | None = None

    async def run(self) -> Closure:
        """Documents, then the platform's check, then blobs, then what the database keeps."""
        root = await self._root()
        closure = await self._descend(root)
        if isinstance(root, Manifest):
            closure = await self._identify(root)
        await self._blobs(closure)
        await self._record(closure)
        return closure

    async def _root(self) -> Document:
        image = self.image
        repository = image.wanted.reference.repository
        if image.digest is None:
            # The registry's HEAD named no digest: the tag itself costs a pull.
            tag = str(image.wanted.reference.tag)
            document = await self.client.manifest(
                repository, tag, hold=self.grant.hold, on_pull=self._pulled
            )
            await self.tools.store.put(document.digest, document.raw)
            image.digest = str(document.digest)
        else:
            size = image.size if image.size is not None else -1
            top = Descriptor(image.media_type or "", Digest.parse(image.digest), size)
            document = await self._document(top)
        image.media_type, image.size = document.media_type, len(document.raw)
        self.documents[str(document.digest)] = document
        return document

    async def _descend(self, root: Document) -> Closure:
        """Fetch the wanted documents below the root, level by level."""
        while True:
            closure = self._closure(root)
            if not closure.unknown:
                return closure
            self.sharing.reveal(str(root.digest), self._records(root))
            children = self._descriptors(child.digest for child in closure.unknown)
            await self._cover(children)
            found = await gather_all(self._document(child) for child in children)
            self.documents |= {str(document.digest): document for document in found}

    def _closure(self, root: Document) -> Closure:
        return self.image.enclose(str(root.digest), self._records(root))

    def _records(self, root: Document) -> dict[str, ManifestRecord]:
        return {
            digest: record_of(document, platform=self.config_platform if document is root else None)
            for digest, document in self.documents.items()
        }

    def _descriptors(self, digests: Iterable[str]) -> list[Descriptor]:
        """The descriptors of these digests, as the documents that name them have them."""
        known = {
            str(descriptor.digest): descriptor
            for document in self.documents.values()
            for descriptor in document.descriptors()
        }
        return [known[digest] for digest in digests]

    async def _cover(self, children: list[Descriptor]) -> None:
        """Make the hold as large as what these documents cost, or raise BudgetExhausted."""
        digests = [
            child.digest
            for child in children
            if child.data is None and not self.sharing.is_anothers(str(child.digest), self.image)
        ]
        lacking = len(digests) - len(await self.tools.store.present(digests))
        hold = self.grant.hold
        if hold is None or not self.grant.whole:
            return
        more = self.spent.pulls + lacking - self.covered
        if more <= 0:
            return
        if not await self.tools.ledger.grow(hold, more):
            retry_at = await self.tools.ledger.forecast(
                self.client.meter, self.client.policy, lacking
            )
            raise BudgetExhausted(
                f"{self.image.wanted.name} needs {lacking} more pulls than are left",
                retry_at=retry_at,
            )
        self.covered += more

    async def _document(self, descriptor: Descriptor) -> Document:
        repository = self.image.wanted.reference.repository
        payer = self.sharing.payer_of(str(descriptor.digest), self.image)
        if payer is not None:
            try:
                return await self._on_behalf(payer, descriptor)
            except BudgetExhausted:
                pass  # another hold, or another meter, may have it
            except PrefetchError:
                if payer.repository == repository:
                    raise
        return await self.tools.documents.fetch(
            self.client,
            repository,
            descriptor,
            hold=self.grant.hold,
            on_pull=lambda: self._pulled(str(descriptor.digest)),
        )

    async def _on_behalf(self, payer: Payer, descriptor: Descriptor) -> Document:
        """A document that another image of the run pays for, as that image would fetch it."""
        digest = str(descriptor.digest)
        hold = payer.hold
        if hold is None and payer.client is self.client:
            hold = self.grant.hold  # it has not been admitted yet, and will find the document here

        def pulled() -> None:
            payer.spent.count(digest)
            if hold is self.grant.hold:
                self.covered -= 1

        document = await self.tools.documents.fetch(
            payer.client, payer.repository, descriptor, hold=hold, on_pull=pulled
        )
        if not self.sharing.is_anothers(digest, self.image):
            self.sharing.arrived(digest)
        if payer.repository != self.image.wanted.reference.repository:
            self.borrowed.add(digest)
        return document

    def _pulled(self, digest: str | None = None) -> None:
        self.spent.count(digest)

    async def _identify(self, root: Manifest) -> Closure:
        """A lone manifest's platform stands in its config, a blob; fetch that before the layers."""
        await self._blob(root.config)
        self.config_platform = await platform_of_image(self.tools.store, root)
        return self._closure(root)

    async def _blobs(self, closure: Closure) -> None:
        blobs = self._descriptors(blob.digest for blob in closure.blobs)
        here = await self.tools.store.present([blob.digest for blob in blobs])
        await gather_all(self._blob(blob) for blob in blobs if blob.digest not in here)

    async def _blob(self, descriptor: Descriptor) -> None:
        fetched = await self.tools.transfer.blob(
            self.client, self.image.wanted.reference.repository, descriptor
        )
        if fetched:
            self.spent.bytes_fetched += fetched
            self.spent.fetched.add(str(descriptor.digest))

    async def _record(self, closure: Closure) -> None:
        """Write down documents, blobs and links: one transaction each, none spans an await."""
        state, now = self.tools.state, self.tools.clock.now()
        root = self.image.digest
        await state.manifests.save_many(
            record_of(document, platform=self.config_platform if digest == root else None)
            for digest, document in self.documents.items()
        )
        repository = self.image.wanted.reference.repository
        await state.blobs.save_many(
            BlobRecord(blob.digest, blob.size, repository.registry, now)
            for blob in closure.blobs
            if blob.digest in self.spent.fetched
        )
        await self.tools.link(self.client, repository, closure, self.spent.fetched, self.borrowed)


async def _has(
    client: RegistryClient, repository: Repository, digest: Digest, *, manifest: bool
) -> bool:
    """Whether the registry says that a repository has the content: one HEAD, which is free."""
    try:
        if manifest:
            await client.resolve(repository, str(digest))
            return True
        return await client.blob_size(repository, digest) is not None
    except PrefetchError:
        return False


async def gather_all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all to their end, then raise the first error: one failure costs no other's progress."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
    for error in [task.exception() for task in tasks]:  # each is looked at, so none is lamented
        if error is not None:
            raise error
    return [task.result() for task in tasks]
