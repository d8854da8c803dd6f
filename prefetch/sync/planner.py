"""A priced plan: what each image lacks, in pulls and bytes. Only free requests are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from prefetch.errors import InvalidManifest, PlatformMissing
from prefetch.oci.model import INDEX_TYPES
from prefetch.oci.platform import ALL
from prefetch.oci.reference import Digest
from prefetch.remote.upstreams import Upstreams
from prefetch.state.database import State
from prefetch.state.records import ManifestRecord
from prefetch.store.content import ContentStore
from prefetch.sync.alternates import Alternates, Offers
from prefetch.sync.closure import Closure
from prefetch.sync.documents import Documents
from prefetch.sync.resolver import Resolver
from prefetch.sync.wanted import Action, PlannedImage, Wanted

# More than an alternate's request slots, so that none of them lies idle.
_ASKED_AT_ONCE = 16


class Planner:
    """Resolves references and prices what the store lacks of them."""

    def __init__(
        self,
        *,
        state: State,
        store: ContentStore,
        documents: Documents,
        upstreams: Upstreams,
        resolver: Resolver,
        alternates: Alternates,
    ) -> None:
        self._state = state
        self._store = store
        self._documents = documents
        self._upstreams = upstreams
        self._resolver = resolver
        self._alternates = alternates

    async def plan(self, wanted: Sequence[Wanted]) -> list[PlannedImage]:
        """A planned image for each of `wanted`, in the same order.

        What fails (no such tag, no credentials) is marked in its image; StateError and StoreError
        are raised.
        """
        records = await self._state.references.get_many([w.name for w in wanted])
        images = [PlannedImage(w, records.get(w.name)) for w in wanted]
        fixed = [image for image in images if self._is_fixed(image)]
        for image in fixed:
            self._recall(image)
        await self.price(fixed)
        asked = [image for image in images if not image.needs_nothing]
        await self.refresh(asked)
        return images

    async def refresh(self, images: Sequence[PlannedImage]) -> None:
        """Ask for the images' digests again and price them anew."""
        for image in images:
            image.closure, image.problem, image.action = None, None, Action.SYNC
        await self._resolver.resolve(images)
        await self.price([image for image in images if image.problem is None])

    async def price(self, images: Sequence[PlannedImage]) -> None:
        """Fill in what each image (whose digest is known) lacks in the store."""
        records = await self._trees({image.digest for image in images if image.digest})
        for image in images:
            if image.digest in records:
                _enclose(image, image.digest, records)
        needed = {digest for i in images if i.closure for digest in i.closure.digests}
        present = {str(d) for d in await self._store.present(map(Digest.parse, needed))}
        for image in images:
            if image.problem is None and image.closure is None:
                _price_unknown(image)
            elif image.closure is not None:
                _price_known(image, image.closure, present)
        turn = asyncio.Semaphore(_ASKED_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for image in images:
                image.pulls_expected = None
                if _is_vouched_for(image) and self._alternates.of(image.wanted.registry):
                    group.create_task(self._expect(image, _lacking(image, present), turn))

    async def _expect(
        self, image: PlannedImage, lacking: Sequence[str], turn: asyncio.Semaphore
    ) -> None:
        """Find out whether alternates may be asked for the image, and what they have of it.

        That is taken off the expected price and its lower bound; the upper one stands, since they
        may fail.
        """
        repository = image.wanted.reference.repository
        async with turn:
            client = await self._upstreams.client_for(repository)
            await self._alternates.introduce(client, repository, Digest.parse(image.digest or ""))
            offers = await self._alternates.offers(repository, lacking) if lacking else Offers()
        if offers.digests:
            image.pulls_expected = max(0, image.pulls_min - len(offers.digests))
            image.pulls_min = image.pulls_expected
        if offers.unsure:
            image.pulls_min = max(0, image.pulls_min - len(lacking))

    def _is_fixed(self, image: PlannedImage) -> bool:
        """Whether the reference cannot change: a digest, or a tag said to be immutable."""
        reference = image.wanted.reference
        if reference.digest is not None:
            return True
        if image.record is None or not image.record.warm:
            return False
        patterns = self._upstreams.settings(image.wanted.registry).immutable_tags
        return any(pattern.fullmatch(reference.tag or "") for pattern in patterns)

    def _recall(self, image: PlannedImage) -> None:
        """Take the digest from the reference itself, or from the database."""
        if image.wanted.reference.digest is not None:
            image.digest = str(image.wanted.reference.digest)
        elif image.record is not None:
            image.digest = image.record.digest

    async def _trees(self, roots: Iterable[str]) -> dict[str, ManifestRecord]:
        """What is known below `roots`: from the database, else from documents in the store.

        A run that was killed between the two leaves documents that only the store has.
        """
        roots = set(roots)
        records = await self._state.manifests.trees(roots)
        unknown = roots - records.keys()
        while unknown:
            adopted = await self._documents.adopt(map(Digest.parse, unknown))
            if not adopted:
                break
            await self._state.manifests.save_many(adopted.values())
            records |= await self._state.manifests.trees(adopted.keys())
            unknown = _documents_below(adopted) - records.keys()
        return records


def _documents_below(records: Mapping[str, ManifestRecord]) -> set[str]:
    return {
        child.digest
        for record in records.values()
        for child in record.children
        if child.kind in ("manifest", "index")
    }


def _enclose(image: PlannedImage, root: str, records: Mapping[str, ManifestRecord]) -> None:
    try:
        image.closure = image.enclose(root, records)
    except (InvalidManifest, PlatformMissing) as error:
        image.fail(error)


def _price_unknown(image: PlannedImage) -> None:
    """The root is not here: one pull for it, and one for each platform of an index."""
    image.bytes = None
    image.pulls_min = image.pulls_max = 1
    if image.media_type is None or image.media_type in INDEX_TYPES:
        platforms = image.wanted.platforms
        image.pulls_max = None if platforms is ALL else 1 + len(platforms)


def _is_vouched_for(image: PlannedImage) -> bool:
    """Whether something lacks of what the registry has lately shown by a HEAD.

    One that knows no HEAD has shown nothing, even where the digest was known before.
    """
    shown = image.media_type is not None or image.size is not None
    vouched = shown and image.digest is not None and image.checked_at is not None
    return vouched and image.problem is None and not image.needs_nothing


def _lacking(image: PlannedImage, present: set[str]) -> list[str]:
    """The digests of the manifests that the image is known to lack."""
    if image.closure is None:
        return [image.digest] if image.digest else []
    known = [digest for digest in image.closure.manifests if digest not in present]
    return [*known, *(child.digest for child in image.closure.unknown)]


def _price_known(image: PlannedImage, closure: Closure, present: set[str]) -> None:
    lacking = len(_lacking(image, present))
    image.pulls_min = image.pulls_max = lacking
    nested = sum(child.kind == "index" for child in closure.unknown)
    if nested:
        platforms = image.wanted.platforms
        image.pulls_max = None if platforms is ALL else lacking + nested * len(platforms)
    missing = [blob.size for blob in closure.blobs if blob.digest not in present]
    image.bytes = None if closure.unknown else sum(missing)
    image.bytes_present = sum(b.size for b in closure.blobs) - sum(missing)
