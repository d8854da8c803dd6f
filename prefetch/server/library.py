"""What a worker knows of the cache, in memory: references, links, documents, and what is whole.

It is all read from the state and the store, and dropped when the state's generation has moved,
which is looked at twice a second: what any process has synced, every worker serves within one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from prefetch.clock import Clock
from prefetch.errors import InvalidManifest, PrefetchError, StateError
from prefetch.oci.model import Document
from prefetch.oci.platform import ALL, PlatformSet
from prefetch.oci.reference import Digest, Repository
from prefetch.state.database import State
from prefetch.state.freezes import FreezeRecord
from prefetch.state.records import ChildRecord, ManifestRecord, ReferenceRecord, Visibility
from prefetch.store.content import ContentStore
from prefetch.sync.closure import closure_of
from prefetch.sync.documents import Documents

_POLL_SECONDS = 0.5
# Answers about things that do not exist are remembered too, and clients choose their names.
_MOST_ANSWERS = 50_000
_MOST_BYTES = 64 << 20
_MOST_ANCESTORS = 1000
_ATTESTATION = "unknown/unknown"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """A document that is in the store: its bytes, and the media type that it was served as."""

    document: Document
    media_type: str

    @property
    def raw(self) -> bytes:
        return self.document.raw


class Library:
    """Answers from memory. All methods may raise StateError and StoreError.

    `reading` is another connection to the database that `state` is: what is read is not held up
    by a write that waits for somebody's lock. `epoch` moves when something is dropped: what was
    made of answers before that may be wrong.
    """

    def __init__(
        self, state: State, reading: State, store: ContentStore, documents: Documents, clock: Clock
    ) -> None:
        self.state = state
        self._reading = reading
        self.store = store
        self._stored = documents
        self._clock = clock
        self.epoch = 0
        self._generation = -1
        self._freeze: FreezeRecord | None = None
        self._answers: dict[tuple[str, ...], asyncio.Future[Any]] = {}
        self._documents: OrderedDict[Digest, Held] = OrderedDict()
        self._bytes = 0

    def freeze(self) -> FreezeRecord | None:
        """The freeze that holds now, if one does."""
        freeze = self._freeze
        return None if freeze is None or freeze.is_over(self._clock.now()) else freeze

    async def refresh(self) -> None:
        """Drop what is remembered if the state has changed since."""
        generation = await self._reading.generation()
        if generation != self._generation:
            self._freeze = await self._reading.freezes.get(self._clock.now())
            self._generation = generation
            self._answers.clear()
            self.epoch += 1

    async def watch(self) -> None:
        """Refresh for ever; a state that cannot be read for a while is asked again."""
        while True:
            await self._clock.sleep(_POLL_SECONDS)
            try:
                await self.refresh()
            except StateError:
                continue

    # References and links

    async def references(self, repository: Repository) -> Mapping[str, ReferenceRecord]:
        """The repository's references by name, those without content too."""

        async def load() -> Mapping[str, ReferenceRecord]:
            records = await self._reading.references.of_repository(
                repository.registry, repository.path
            )
            return {record.name: record for record in records}

        return await self.remember(("references", str(repository)), load)

    async def forget_references(self, repository: Repository) -> None:
        """Read them anew, after a change that is none to others, or to be seen at once."""
        self._answers.pop(("references", str(repository)), None)
        self.epoch += 1
        await self.refresh()

    async def linked(self, repository: Repository, digest: Digest) -> bool:
        """Whether the repository has shown that it has the content, or a sync has said so."""

        async def load() -> bool:
            found = await self._reading.links.linked(
                repository.registry, repository.path, [str(digest)]
            )
            return bool(found)

        return await self.remember(("linked", str(repository), str(digest)), load)

    async def linked_among(
        self, repository: Repository, digests: Collection[str]
    ) -> Collection[str]:
        """Those of `digests` that are linked to the repository; not remembered."""
        return await self._reading.links.linked(repository.registry, repository.path, digests)

    async def holders(self, digest: Digest) -> Collection[Repository] | None:
        """All repositories that have the content, or something above it; None for very many."""

        async def load() -> Collection[Repository] | None:
            found: set[Repository] = set()
            seen, waiting = {str(digest)}, [str(digest)]
            while waiting:
                each = waiting.pop()
                links = await self._reading.links.repositories_of(each)
                found |= {Repository(link.registry, link.repository) for link in links}
                above = set(await self._reading.manifests.parents(each)) - seen
                seen |= above
                waiting += above
                if len(seen) > _MOST_ANCESTORS:
                    return None
            return found

        return await self.remember(("holders", str(digest)), load)

    async def repositories(self) -> Sequence[Repository]:
        """Every repository that has a reference with content, sorted."""

        async def load() -> Sequence[Repository]:
            return [Repository(*found) for found in await self._reading.links.repositories()]

        return await self.remember(("repositories",), load)

    async def visibility(self, repository: Repository) -> Visibility:
        """`public`, `private`, or `unknown` where nobody has asked."""
        known = (await self.visibilities()).get((repository.registry, repository.path))
        return "unknown" if known is None else known[0]

    async def visibilities(self) -> Mapping[tuple[str, str], tuple[Visibility, datetime]]:
        """What is known of each (registry, path), and when it was found out, or earlier."""
        return await self.remember(("visibilities",), self._reading.links.visibilities)

    async def parents(self, digest: Digest) -> Sequence[str]:
        """The known documents that name the digest."""
        return await self.remember(
            ("parents", str(digest)), lambda: self._reading.manifests.parents(str(digest))
        )

    async def referrers(self, subject: Digest) -> Sequence[str]:
        """The known documents whose subject is the digest."""
        return await self.remember(
            ("referrers", str(subject)), lambda: self._reading.manifests.referrers(str(subject))
        )

    # Content

    async def document(self, digest: Digest) -> Held | None:
        """A manifest or index from the store; None when it is not there, or damaged."""
        held = self._documents.get(digest)
        if held is not None:
            self._documents.move_to_end(digest)
            return held
        if await self.store.info(digest) is None:
            return None
        record = await self.record(digest)
        try:
            document = await self._stored.stored(digest, record.media_type if record else None)
        except PrefetchError:
            return None
        held = Held(document, document.media_type)
        self._keep(digest, held)
        return held

    async def record(self, digest: Digest) -> ManifestRecord | None:
        """What the database has of a document."""
        return (await self._reading.manifests.get_many([str(digest)])).get(str(digest))

    async def whole(self, digest: Digest, wanted: PlatformSet) -> bool:
        """Whether a client can have all of an image: a manifest's blobs, or, of an index, one of
        the wanted platforms (any, where it has none of them)."""
        key = ("whole", str(digest), str(wanted))
        found = self._answers.get(key)
        if found is not None and found.done() and not found.cancelled():
            return True
        if not await self._is_whole(digest, wanted):
            return False
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        answer.set_result(True)
        self._answers[key] = answer
        return True

    async def _is_whole(self, digest: Digest, wanted: PlatformSet) -> bool:
        root = str(digest)
        records = await self._reading.manifests.trees([root])
        if root not in records:
            return False
        try:
            images = _images_of(root, records, wanted)
        except InvalidManifest:
            return False
        for needed in images:
            if needed is not None:
                digests = {Digest.parse(each) for each in needed}
                if await self.store.present(digests) == digests:
                    return True
        return not images

    def _keep(self, digest: Digest, held: Held) -> None:
        self._documents[digest] = held
        self._bytes += len(held.raw)
        while self._bytes > _MOST_BYTES:
            _, dropped = self._documents.popitem(last=False)
            self._bytes -= len(dropped.raw)

    async def remember(self, key: tuple[str, ...], load: Callable[[], Awaitable[T]]) -> T:
        """What `load` gives, asked once, until the generation moves."""
        found = self._answers.get(key)
        if found is None:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            found = asyncio.ensure_future(load())
            self._answers[key] = found
            found.add_done_callback(lambda done: self._forget_failure(key, done))
        elif found.done():
            answer: T = found.result()
            return answer
        # Whoever goes away does not take the answer from the others.
        return await asyncio.shield(found)

    def _forget_failure(self, key: tuple[str, ...], done: asyncio.Future[Any]) -> None:
        if (done.cancelled() or done.exception()) and self._answers.get(key) is done:
            del self._answers[key]


def _images_of(
    root: str, records: Mapping[str, ManifestRecord], wanted: PlatformSet
) -> list[tuple[str, ...] | None]:
    """For each image that would do, all the digests of it; None where not all are known.

    Raises InvalidManifest for an index that nests too deep or holds too much.
    """
    children = [c for c in records[root].children if c.kind in ("manifest", "index")]
    if not children:
        return [closure_of(root, records, ALL).digests]
    if wanted is not ALL:
        closures = [closure_of(root, records, (platform,)) for platform in wanted]
        named = [closure for closure in closures if not closure.missing]
        if named:
            return [None if closure.unknown else closure.digests for closure in named]
    return [
        _all_below(root, child, records) for child in children if child.platform != _ATTESTATION
    ]


def _all_below(
    root: str, child: ChildRecord, records: Mapping[str, ManifestRecord]
) -> tuple[str, ...] | None:
    if child.digest not in records:
        return None
    closure = closure_of(child.digest, records, ALL)
    return None if closure.unknown else (root, *closure.digests)
