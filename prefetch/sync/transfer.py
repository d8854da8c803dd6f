"""One descriptor copied: coalesced, resumed, verified. The CLI and the server share it.

Alternates are tried first, one attempt each, then the registry itself; each goes on from the last
byte that any of them has sent.

In this process concurrent wishes for one digest become one task; across processes the ingest's
kernel lock does the same: whoever comes second waits, and finds the content in the store.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from prefetch.clock import Clock
from prefetch.errors import DigestMismatch, PrefetchError, SizeMismatch
from prefetch.events import BlobFinished, BlobProgress, BlobStarted, Emit
from prefetch.oci.model import Descriptor
from prefetch.oci.reference import Repository
from prefetch.remote.registry import RegistryClient
from prefetch.store.content import ContentStore, Writer
from prefetch.sync.alternates import Alternates
from prefetch.sync.conduct import Source

# What a kill may cost of a blob under way is what has arrived and is not yet written.
_BATCH = 512 * 1024
_ATTEMPTS_WITHOUT_PROGRESS = 5
_FIRST_WAIT_SECONDS = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes that one call has fetched, and the registry that sent the last of them.

    `registry` is None where the blob was here, or came for somebody else.
    """

    size: int = 0
    registry: str | None = None


class Coalescer:
    """Runs one task a key; later callers join the one that is under way.

    A caller that is cancelled leaves; the task itself is cancelled when the last one has left.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, _Shared] = {}

    async def run(
        self, key: str, work: Callable[[], Coroutine[Any, Any, T]], *, source: str = ""
    ) -> tuple[T, bool]:
        """The work's result, and whether it is this call's own.

        What comes of one `source` is anybody's; that it has failed says nothing of another one,
        so a caller that had joined does its own work then.
        """
        while True:
            shared = self._tasks.get(key)
            first = shared is None
            if shared is None:
                shared = self._tasks[key] = _Shared(source, asyncio.create_task(work()))
                shared.task.add_done_callback(lambda _: self._tasks.pop(key, None))
            try:
                return await shared.join(), first
            except PrefetchError:
                if first or shared.source == source:
                    raise


@dataclass(slots=True)
class _Shared:
    """A task, and how many wait for it."""

    source: str
    task: asyncio.Task[Any]
    waiting: int = 0

    async def join(self) -> Any:
        self.waiting += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self.waiting -= 1
            if self.waiting == 0 and not self.task.done():
                self.task.cancel()
                await asyncio.wait([self.task])


@dataclass(slots=True)
class _Attempts:
    """Counts failures since the last byte that came; progress starts the count anew.

    `resumed`: the last one went on from bytes that were here before.
    """

    offset: int = 0
    failures: int = 0
    corrupt: int = 0
    fetched: int = 0
    resumed: bool = False

    def failed(self, offset: int) -> None:
        self.failures = 1 if offset > self.offset else self.failures + 1
        self.offset = max(self.offset, offset)

    def wait(self, _: RetryCallState) -> float:
        """Twice as long with each failure since the last progress, with jitter."""
        doubled = _FIRST_WAIT_SECONDS * 2.0 ** max(0, self.failures - 1)
        return doubled + random.uniform(0, _FIRST_WAIT_SECONDS)  # noqa: S311

    def spent(self, _: RetryCallState) -> bool:
        return self.failures >= _ATTEMPTS_WITHOUT_PROGRESS or self.corrupt > 1


def _fetched(attempts: _Attempts, registry: str) -> Fetched:
    return Fetched(attempts.fetched, registry if attempts.fetched else None)


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, PrefetchError) and error.retryable


class Transfer:
    """Copies blobs from registries into the store."""

    def __init__(
        self, store: ContentStore, alternates: Alternates, clock: Clock, emit: Emit
    ) -> None:
        self._store = store
        self._alternates = alternates
        self._clock = clock
        self._emit = emit
        self._coalescer = Coalescer()

    async def blob(
        self, client: RegistryClient, repository: Repository, descriptor: Descriptor
    ) -> Fetched:
        """Have the blob in the store; says what this call fetched for it.

        Raises what the last attempt raised: NetworkError, RegistryError, ContentError, StoreError.
        """
        fetched, first = await self._coalescer.run(
            str(descriptor.digest),
            lambda: self._fetch(client, repository, descriptor),
            source=str(repository),
        )
        return fetched if first else Fetched()

    async def _fetch(
        self, client: RegistryClient, repository: Repository, descriptor: Descriptor
    ) -> Fetched:
        if descriptor.data is not None:
            await self._store.put(descriptor.digest, descriptor.data)
            return Fetched()
        attempts = _Attempts()
        for source in await self._alternates.sources(repository):
            if await self._from_alternate(source, descriptor, attempts):
                return _fetched(attempts, source.registry)
        attempts.failures = attempts.corrupt = 0
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(_is_retryable),
            stop=attempts.spent,
            wait=attempts.wait,
            sleep=self._clock.sleep,
            reraise=True,
        ):
            with attempt:
                await self._attempt(client, repository, descriptor, attempts)
        return _fetched(attempts, repository.registry)

    async def _from_alternate(
        self, source: Source, descriptor: Descriptor, attempts: _Attempts
    ) -> bool:
        """Whether the blob is whole now."""
        # Where its `urls` lead is for the registry itself to be asked about.
        wanted = replace(descriptor, urls=())

        async def receive() -> None:
            try:
                await self._attempt(source.client, source.there, wanted, attempts)
            except DigestMismatch:
                if not attempts.resumed:
                    raise
                # Whoever sent the first part may have lied; nobody is blamed for another's bytes.
                await self._attempt(source.client, source.there, wanted, attempts)

        return await self._alternates.blob(source, descriptor.digest, receive)

    async def _attempt(
        self,
        client: RegistryClient,
        repository: Repository,
        descriptor: Descriptor,
        attempts: _Attempts,
    ) -> None:
        writer = await self._store.open_writer(descriptor.digest, descriptor.size)
        if writer is None:
            return
        digest, start = str(descriptor.digest), writer.status.offset
        attempts.offset = max(attempts.offset, start)
        attempts.resumed = start > 0
        self._emit(BlobStarted(digest, descriptor.size, start))
        done = False
        try:
            if start < descriptor.size or descriptor.size == 0:
                await self._receive(client, repository, descriptor, writer)
            await writer.commit()
            done = True
        except DigestMismatch as error:
            attempts.corrupt += 1
            raise DigestMismatch(
                f"{repository}@{digest}: what came has another digest",
                hint="the registry, or a proxy on the way, alters what it sends",
            ) from error
        finally:
            got = max(0, writer.status.offset - start)
            if not done:
                attempts.failed(writer.status.offset)
            attempts.fetched += got
            await writer.close()
            self._emit(BlobFinished(digest, got, ok=done))

    async def _receive(
        self,
        client: RegistryClient,
        repository: Repository,
        descriptor: Descriptor,
        writer: Writer,
    ) -> None:
        digest = str(descriptor.digest)
        async with client.open_blob(repository, descriptor, writer.status.offset) as stream:
            if stream.offset != writer.status.offset:
                await writer.restart()
            batch: list[bytes] = []
            size = 0
            try:
                async for chunk in stream.chunks:
                    batch.append(chunk)
                    size += len(chunk)
                    if size >= _BATCH:
                        full, batch, size = b"".join(batch), [], 0
                        await writer.write(full)
                        self._emit(BlobProgress(digest, writer.status.offset))
            finally:
                # A broken connection does not take with it what had come.
                if batch:
                    await writer.write(b"".join(batch))
        if writer.status.offset < descriptor.size:
            raise SizeMismatch(
                f"{repository}@{digest}: the registry sent {writer.status.offset} "
                f"of {descriptor.size} bytes"
            )
