"""Blobs for clients: from the store, or while they arrive.

A miss is fetched by the same transfer that a sync uses: one upstream request for all who want the
blob, in whichever worker, resumed where an earlier one broke off. Clients read the growing ingest
behind it. Its last bytes are held back until the digest has been verified; after a corrupt body
the connection is broken, never completed (distribution-spec, "Pulling blobs").
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from prefetch.clock import Clock
from prefetch.errors import NotFound, PrefetchError
from prefetch.oci.distribution import EndpointKind
from prefetch.oci.model import Descriptor
from prefetch.oci.reference import Digest, Repository
from prefetch.remote.upstreams import Upstreams
from prefetch.server.belonging import Belonging
from prefetch.server.gate import Caller, Gate
from prefetch.server.library import Library
from prefetch.server.refusals import unavailable, unknown
from prefetch.server.settling import Settling
from prefetch.server.shared import Shared
from prefetch.state.records import BlobRecord, LinkRecord
from prefetch.store.content import Follower, FollowState, Reader
from prefetch.sync.transfer import Transfer

_KIND = EndpointKind.BLOB
_ANY_TYPE = "application/octet-stream"
_POLL_SECONDS = 0.01
_LOOK_SECONDS = 0.5
# Nothing has arrived for so long: whoever fetches it has tried several times by then.
_STALL_SECONDS = 180.0


class Lost(Exception):
    """What was arriving, `source`, is worth nothing; what comes instead may be something."""

    def __init__(self, source: Arriving) -> None:
        super().__init__(str(source.digest))
        self.source = source


class Broken(Exception):
    """What was being streamed cannot be completed: the connection has to be broken.

    `cause` is the word that metrics count it under.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Whole:
    """A blob in the store."""

    reader: Reader

    @property
    def size(self) -> int:
        return self.reader.size

    def close(self) -> None:
        """Done with it."""
        self.reader.close()


@dataclass(frozen=True, slots=True)
class Arriving:
    """A blob under way: `follower` reads what is here, `task` is this worker's part in it."""

    digest: Digest
    follower: Follower
    size: int
    task: asyncio.Task[int]

    def close(self) -> None:
        """Done with it; it goes on arriving."""
        self.follower.close()

    async def ready(self, position: int, end: int) -> int:
        """Up to where bytes from `position` on may go out now: `end` only once it is verified.

        Waits for some. Raises Lost when what is here turned out worthless, Refusal when there
        will be no more.
        """
        # When only the byte is left that waits for the digest, nothing but the end is news.
        beyond = position if position < end - 1 else self.size
        offset, still = -1, 0.0
        while still < _STALL_SECONDS:
            progress = await self.follower.wait(beyond, _LOOK_SECONDS)
            if progress.state is FollowState.WHOLE and progress.offset == self.size:
                return end
            check(self.task)
            if progress.state is not FollowState.GROWING:
                raise Lost(self)
            limit = min(progress.offset, end - 1)
            if limit > position:
                return limit
            still = 0.0 if progress.offset > offset else still + _LOOK_SECONDS
            offset = progress.offset
        raise unavailable("the registry takes its time", "upstream_down")


def check(task: asyncio.Task[int]) -> None:
    """Raise what a fetch has failed with, if it has."""
    if task.cancelled():
        raise unavailable("the cache is about to stop", "upstream_error")
    if task.done():
        task.result()


class BlobService:
    """Gives blobs. Raises Refusal, StateError and StoreError."""

    def __init__(
        self,
        *,
        library: Library,
        gate: Gate,
        upstreams: Upstreams,
        belonging: Belonging,
        transfer: Transfer,
        settling: Settling,
        shared: Shared,
        clock: Clock,
    ) -> None:
        self._library = library
        self._gate = gate
        self._upstreams = upstreams
        self._belonging = belonging
        self._transfer = transfer
        self._settling = settling
        self._shared = shared
        self._clock = clock

    async def size(
        self, repository: Repository, digest: Digest, caller: Caller
    ) -> tuple[int, bool]:
        """A blob's size in bytes, and whether it is here; nothing is fetched."""
        info = await self._library.store.info(digest)
        linked = await self._belonging.holds(repository, digest, caller.user)
        if info is not None and linked:
            return info.size, True
        await self._gate.check(repository, caller, _KIND, str(digest))
        return (await self._descriptor(repository, digest, linked, caller)).size, False

    async def open(
        self, repository: Repository, digest: Digest, caller: Caller
    ) -> Whole | Arriving:
        """The blob, to be closed by whoever has it; a miss is fetched."""
        linked = await self._belonging.holds(repository, digest, caller.user)
        reader = await self._library.store.open_reader(digest)
        if reader is not None and linked:
            return Whole(reader)
        try:
            await self._gate.check(repository, caller, _KIND, str(digest))
            descriptor = await self._descriptor(repository, digest, linked, caller)
        except BaseException:
            if reader is not None:
                reader.close()
            raise
        if reader is not None:
            return Whole(reader)
        task = self._shared.start(
            ("blob", repository, digest), lambda: self._fetch(repository, descriptor)
        )
        return await self._begun(digest, descriptor.size, task)

    async def again(self, source: Arriving) -> Whole | Arriving:
        """The blob once more, from the same fetch, when what `source` has is lost; closes it."""
        source.close()
        return await self._begun(source.digest, source.size, source.task)

    async def _descriptor(
        self, repository: Repository, digest: Digest, linked: bool, caller: Caller
    ) -> Descriptor:
        """The blob's descriptor, from a document of the repository or by asking the registry."""
        if linked:
            for parent in await self._library.parents(digest):
                held = await self._library.document(Digest.parse(parent))
                children = held.document.descriptors() if held is not None else ()
                for child in children:
                    if child.digest == digest:
                        return child
        return await self._gate.miss(
            self._shared,
            caller,
            ("blob head", repository, digest),
            lambda: self._look(repository, digest),
        )

    async def _look(self, repository: Repository, digest: Digest) -> Descriptor:
        """Confirm by HEAD that the repository has the blob, and remember it."""
        try:
            client = await self._upstreams.client_for(repository)
            size = await client.blob_size(repository, digest)
            self._gate.answered(repository)
            if size is None:
                raise NotFound(f"{repository}@{digest}: no such blob")
            await self._link(repository, digest)
        except PrefetchError as error:
            raise self._gate.failed(repository, _KIND, error, str(digest)) from error
        return Descriptor(_ANY_TYPE, digest, size)

    async def _link(self, repository: Repository, digest: Digest) -> None:
        record = LinkRecord(repository.registry, repository.path, str(digest))
        await self._library.state.links.add_many([record])
        await self._library.refresh()

    async def _begun(self, digest: Digest, size: int, task: asyncio.Task[int]) -> Whole | Arriving:
        """The blob as soon as something of it has come."""
        follower: Follower | None = None
        known = -1
        try:
            while not task.done():
                follower = follower or await self._library.store.follow(digest)
                if follower is None:
                    await asyncio.wait([task], timeout=_POLL_SECONDS)
                    continue
                progress = await follower.wait(known, _POLL_SECONDS)
                if progress.state is not FollowState.GROWING:
                    follower.close()
                    follower, known = None, -1
                elif known < 0:
                    # What a dead writer has left tells nothing; what is added to it does.
                    known = progress.offset
                elif progress.offset > known:
                    arriving, follower = Arriving(digest, follower, size, task), None
                    return arriving
        finally:
            if follower is not None:
                follower.close()
        check(task)
        reader = await self._library.store.open_reader(digest)
        if reader is None:
            raise unknown(_KIND)
        return Whole(reader)

    async def _fetch(self, repository: Repository, descriptor: Descriptor) -> int:
        """Have the blob in the store; returns the bytes fetched. The database hears of it soon."""
        target = str(descriptor.digest)
        try:
            client = await self._upstreams.client_for(repository)
            fetched = await self._transfer.blob(client, repository, descriptor)
        except PrefetchError as error:
            raise self._gate.failed(repository, _KIND, error, target) from error
        self._gate.answered(repository)
        now = self._clock.now()
        self._settling.settle(
            repository,
            BlobRecord(target, descriptor.size, fetched.registry or repository.registry, now),
            shown=fetched.registry == repository.registry,
        )
        return fetched.size
