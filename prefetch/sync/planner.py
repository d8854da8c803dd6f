"""A priced plan: what each image lacks, in pulls and bytes. Only free requests are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from prefetch.errors import InvalidManifest, PlatformMissing, PrefetchError
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
        roots = {image.digest for image in images if image.digest}
        records = await self._state.manifests.trees(roots)
        unread: set[str] = set()
        while True:
            for image in images:
                if image.digest in records:
                    _enclose(image, image.digest, records)
            present = await self._present(images)
            # A run that was killed between the two leaves documents that only the store has.
            stray = {digest for i in images for digest in _unseen(i)} & present - unread
            adopted = await self._documents.adopt(map(Digest.parse, stray))
            if not adopted:
                break
            unread |= stray
            await self._state.manifests.save_many(adopted.values())
            records |= await self._state.manifests.trees(adopted.keys())
        for image in images:
            if image.problem is None and image.closure is None:
                _price_unknown(image, present)
            elif image.closure is not None:
                embedded = await self._embedded(image.closure, present)
                _price_known(image, image.closure, present, embedded, records)
        turn = asyncio.Semaphore(_ASKED_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for image in images:
                image.pulls_expected = None
                if _is_vouched_for(image) and self._alternates.of(image.wanted.registry):
                    group.create_task(self._expect(image, sorted(image.lacks), turn))

    async def _present(self, images: Iterable[PlannedImage]) -> set[str]:
        """What the store has of all that the images need, as far as that is known."""
        needed: set[str] = set()
        for image in images:
            needed.update(image.closure.digests if image.closure else _unseen(image))
        return {str(digest) for digest in await self._store.present(map(Digest.parse, needed))}

    async def _embedded(self, closure: Closure, present: set[str]) -> set[str]:
        """Documents that stand in those of the image that are here (a descriptor's `data`)."""
        if present.issuperset(closure.documents):
            return set()
        found: set[str] = set()
        for digest in present.intersection(closure.manifests):
            with suppress(PrefetchError):  # a damaged one is pulled again when it is fetched
                document = await self._documents.stored(Digest.parse(digest))
                found |= {str(d.digest) for d in document.descriptors() if d.data is not None}
        return found

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
        return self._upstreams.settings(image.wanted.registry).is_immutable(reference.tag)

    def _recall(self, image: PlannedImage) -> None:
        """Take the digest from the reference itself, or from the database."""
        if image.wanted.reference.digest is not None:
            image.digest = str(image.wanted.reference.digest)
        elif image.record is not None:
            image.digest = image.record.digest


def _unseen(image: PlannedImage) -> list[str]:
    """The documents that the image is known to need and that no record tells of."""
    if image.closure is not None:
        return [child.digest for child in image.closure.unknown]
    return [image.digest] if image.problem is None and image.digest else []


def _enclose(image: PlannedImage, root: str, records: Mapping[str, ManifestRecord]) -> None:
    try:
        image.closure = image.enclose(root, records)
    except (InvalidManifest, PlatformMissing) as error:
        image.closure = None
        image.fail(error)


def _price_unknown(image: PlannedImage, present: set[str]) -> None:
    """The root is not known: one pull for it, and one for each platform of an index."""
    image.bytes = None
    image.lacks = frozenset([image.digest] if image.digest else []) - present
    image.pulls_min = image.pulls_max = int(image.digest not in present)
    if image.media_type is None or image.media_type in INDEX_TYPES:
        platforms = image.wanted.platforms
        image.pulls_max = None if platforms is ALL else image.pulls_min + len(platforms)


def _is_vouched_for(image: PlannedImage) -> bool:
    """Whether something lacks of what the registry has lately shown by a HEAD.

    One that knows no HEAD has shown nothing, even where the digest was known before.
    """
    shown = image.media_type is not None or image.size is not None
    vouched = shown and image.digest is not None and image.checked_at is not None
    return vouched and image.problem is None and not image.needs_nothing


def _price_known(
    image: PlannedImage,
    closure: Closure,
    present: set[str],
    embedded: set[str],
    records: Mapping[str, ManifestRecord],
) -> None:
    """The documents and blobs that are not here, less those that need no request.

    What a lost index names may stand in it.
    """
    image.lacks = frozenset(closure.documents) - present - embedded
    lost = image.lacks.intersection(closure.manifests)
    named = {child.digest for digest in lost for child in records[digest].children}
    image.pulls_min, image.pulls_max = len(image.lacks - named), len(image.lacks)
    if any(child.kind == "index" and child.digest in image.lacks for child in closure.unknown):
        image.pulls_max = None
    missing = [blob.size for blob in closure.blobs if blob.digest not in present]
    image.bytes = None if closure.unknown else sum(missing)
    image.whole = not closure.unknown and present.issuperset(closure.digests)
    image.bytes_present = sum(b.size for b in closure.blobs) - sum(missing)
