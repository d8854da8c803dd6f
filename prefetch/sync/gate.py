"""The proof that a set of images is warm: all that their clients will ask for is there, and whole.

Documents are read from where clients would get them, not from the database, and each layer is
looked for. What is lacking is named; nothing is fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol, TypeAlias

from prefetch.errors import PrefetchError, StoreError
from prefetch.oci.model import MAX_MANIFEST_SIZE, Document, parse_document
from prefetch.oci.reference import Digest, Repository
from prefetch.state.records import ChildRecord, ManifestRecord, ReferenceRecord, Visibility
from prefetch.store.content import ContentStore
from prefetch.sync.closure import Closure
from prefetch.sync.documents import platform_of_image, record_of
from prefetch.sync.wanted import PlannedImage, Problem, Wanted

Kind: TypeAlias = Literal["reference", "index", "manifest", "config", "layer"]

_AT_ONCE = 16
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Missing:
    """A piece that is not there, or not whole; `size` None where nothing tells it."""

    kind: Kind
    digest: str | None
    size: int | None = None
    platform: str | None = None


@dataclass(slots=True)
class GateImage:
    """One reference before the gate.

    `stale` says that it may no longer be what the registry has: it was not looked at lately
    enough, or is known to have moved. `absent` says that nobody asks for it by name, and that its
    upstream does not have it any more. `problem` is why nothing can be said of it.
    """

    wanted: Wanted
    digest: str | None = None
    missing: list[Missing] = field(default_factory=list)
    stale: bool = False
    absent: bool = False
    visibility: Visibility = "unknown"
    problem: Problem | None = None

    @property
    def warm(self) -> bool:
        """Whether everything is there."""
        return not self.missing and self.problem is None

    @property
    def passes(self) -> bool:
        """Whether it does not stand in the way of a rollout."""
        return self.absent or (self.warm and not self.stale)


class Shelf(Protocol):
    """Where content is looked for. Raises PrefetchError where nothing can be said."""

    async def digest(self, wanted: Wanted) -> str | None:
        """What a reference is there; None when it is not there at all."""
        ...

    async def document(self, repository: Repository, digest: Digest) -> Document | None:
        """A manifest or index, verified; None when it is not there or damaged."""
        ...

    async def platform(self, repository: Repository, document: Document) -> str | None:
        """The platform that an image's own config names."""
        ...

    async def holds(self, repository: Repository, blob: ChildRecord) -> bool:
        """Whether a blob is there with the size that its manifest says."""
        ...


class StoreShelf:
    """The content store of this data directory, with its references' `records` by name.

    With `verify` every blob's digest is computed.
    """

    def __init__(
        self, records: Mapping[str, ReferenceRecord], store: ContentStore, *, verify: bool
    ) -> None:
        self._records = records
        self._store = store
        self._verify = verify

    async def digest(self, wanted: Wanted) -> str | None:
        """The reference's own digest, or the one that was last complete."""
        if wanted.reference.digest is not None:
            return str(wanted.reference.digest)
        record = self._records.get(wanted.name)
        return None if record is None else record.digest

    async def document(self, _: Repository, digest: Digest) -> Document | None:
        """Read and verified anew."""
        try:
            raw = await self._store.read(digest, limit=MAX_MANIFEST_SIZE)
        except StoreError:
            return None
        return parse_document(raw, None, algorithm=digest.algorithm)

    async def platform(self, _: Repository, document: Document) -> str | None:
        """From the config, if it is there."""
        try:
            return await platform_of_image(self._store, document)
        except StoreError:
            return None

    async def holds(self, _: Repository, blob: ChildRecord) -> bool:
        """Its file has the right size, and the right bytes where that is asked for."""
        digest = Digest.parse(blob.digest)
        info = await self._store.info(digest)
        if info is None or info.size != blob.size:
            return False
        return not self._verify or await self._is_sound(digest)

    async def _is_sound(self, digest: Digest) -> bool:
        reader = await self._store.open_reader(digest)
        if reader is None:
            return False
        try:
            hasher, offset = digest.hasher(), 0
            while piece := await reader.read(offset, _PIECE):
                await asyncio.to_thread(hasher.update, piece)
                offset += len(piece)
        except StoreError:
            return False
        finally:
            reader.close()
        return hasher.hexdigest() == digest.hex


@dataclass(frozen=True, slots=True)
class Freshness:
    """Which answers are too old: looked at more than `max_age` seconds ago, or known to have moved.

    While the cache is `frozen`, a tag is what it was: that it has moved since does not matter.
    """

    now: datetime
    max_age: float | None = None
    frozen: bool = False

    def is_stale(self, wanted: Wanted, record: ReferenceRecord | None) -> bool:
        """Whether a reference has to be looked at again first; one by digest never."""
        if wanted.reference.digest is not None or record is None:
            return False
        if record.deferred_since is not None and not self.frozen:
            return True
        if self.max_age is None:
            return False
        limit = timedelta(seconds=self.max_age)
        return record.resolved_at is None or self.now - record.resolved_at > limit


class Gate:
    """Checks references against a shelf, many at once, each piece of content once."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._blobs: dict[tuple[Repository, str], asyncio.Future[bool]] = {}

    async def check(self, wanted: Iterable[Wanted]) -> list[GateImage]:
        """Each reference, in the same order."""
        images = [GateImage(each) for each in wanted]
        async with asyncio.TaskGroup() as group:
            for image in images:
                group.create_task(self._check(image))
        return images

    async def _check(self, image: GateImage) -> None:
        try:
            async with self._turn:
                image.digest = await self._shelf.digest(image.wanted)
                if image.digest is None:
                    image.missing.append(Missing("reference", None))
                    return
                closure, records = await self._closure(image, image.digest)
            if closure is not None:
                await self._content(image, closure, records)
        except PrefetchError as error:
            image.problem = Problem.of(error)

    async def _closure(
        self, image: GateImage, root: str
    ) -> tuple[Closure | None, dict[str, ManifestRecord]]:
        """What the wanted platforms need, as far down as documents are there."""
        planned = PlannedImage(image.wanted, digest=root)
        records: dict[str, ManifestRecord] = {}
        todo = {root}
        absent: set[str] = set()
        while todo:
            for digest in todo:
                record = await self._record(image.wanted, digest)
                if record is None:
                    absent.add(digest)
                else:
                    records[digest] = record
            if root in absent:
                image.missing.append(Missing("reference", root))
                return None, records
            closure = planned.enclose(root, records)
            todo = {child.digest for child in closure.unknown} - absent
        return closure, records

    async def _record(self, wanted: Wanted, digest: str) -> ManifestRecord | None:
        repository = wanted.reference.repository
        document = await self._shelf.document(repository, Digest.parse(digest))
        if document is None:
            return None
        return record_of(document, platform=await self._shelf.platform(repository, document))

    async def _content(
        self, image: GateImage, closure: Closure, records: dict[str, ManifestRecord]
    ) -> None:
        """Take down what lacks, with the platforms that lack it."""
        repository = image.wanted.reference.repository
        platforms = _platforms(records)
        image.missing += [
            Missing("index" if child.kind == "index" else "manifest", child.digest, child.size,
                    child.platform)
            for child in closure.unknown
        ]  # fmt: skip
        held = await asyncio.gather(*(self._holds(repository, blob) for blob in closure.blobs))
        image.missing += [
            Missing("config" if blob.kind == "config" else "layer", blob.digest, blob.size,
                    platforms.get(blob.digest))
            for blob, here in zip(closure.blobs, held, strict=True)
            if not here
        ]  # fmt: skip

    async def _holds(self, repository: Repository, blob: ChildRecord) -> bool:
        key = (repository, blob.digest)
        if key not in self._blobs:
            self._blobs[key] = asyncio.ensure_future(self._ask(repository, blob))
        return await self._blobs[key]

    async def _ask(self, repository: Repository, blob: ChildRecord) -> bool:
        async with self._turn:
            return await self._shelf.holds(repository, blob)


def _platforms(records: dict[str, ManifestRecord]) -> dict[str, str]:
    """By blob, a platform whose manifest names it."""
    named = {
        child.digest: child.platform
        for record in records.values()
        for child in record.children
        if child.kind in ("manifest", "index") and child.platform
    }
    return {
        child.digest: named[digest]
        for digest, record in records.items()
        if digest in named
        for child in record.children
    }
