"""The content store on a local disk: an OCI image layout that many processes may share.

Every method hands its work to a small thread pool of the store's own. Hashing and the system
calls around it release the interpreter's lock, so as many blobs are written at once as there are
processors. What `write` has returned from is in the kernel: killing the process loses none of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from prefetch.oci.reference import Digest
from prefetch.store import blobs
from prefetch.store import ingest as ingests
from prefetch.store.content import ContentStore, Info, Status, Writer
from prefetch.store.datadir import ALGORITHMS, DataDirectory
from prefetch.store.ingest import Claim, Ingest

_THREADS = 6
_REHASH_SLICE = 64 << 20
_WALK_BATCH = 1024
_FIRST_POLL = 0.005
_LAST_POLL = 0.05

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Threads:
    """Runs blocking calls off the event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")

    def submit(
        self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> asyncio.Future[_T]:
        work = functools.partial(call, *args, **kwargs)
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def shutdown(self) -> None:
        self._pool.shutdown()


class FilesystemWriter(Writer):
    """A Writer over an ingest file.

    A write costs a hop to a thread, which is as dear as hashing some 200 KiB: callers do well to
    gather 256 KiB or more. What is handed over must not change until `write` has returned.
    """

    def __init__(self, ingest: Ingest, destination: Path, threads: _Threads) -> None:
        self._ingest = ingest
        self._destination = destination
        self._threads = threads

    @property
    def status(self) -> Status:
        return Status(self._ingest.digest, self._ingest.offset, self._ingest.total)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        await self._threads.submit(self._ingest.append, data)

    async def restart(self) -> None:
        await self._threads.submit(self._ingest.restart)

    async def commit(self) -> Info:
        await self._threads.submit(self._ingest.commit, self._destination)
        return Info(self._ingest.digest, self._ingest.offset)

    async def close(self) -> None:
        # A cancelled task must still let go of the lock.
        await asyncio.shield(self._threads.submit(self._ingest.close))


class FilesystemStore(ContentStore):
    """A ContentStore under a data directory; any number of processes may open the same one."""

    def __init__(self, directory: DataDirectory, threads: _Threads) -> None:
        self._directory = directory
        self._threads = threads

    @classmethod
    async def open(cls, data_dir: Path) -> Self:
        """Make or check the layout under `data_dir`.

        Raises StoreError when it is no local, writable directory, or holds something else.
        """
        directory = DataDirectory(data_dir)
        threads = _Threads()
        try:
            await threads.submit(directory.prepare)
        except BaseException:
            threads.shutdown()
            raise
        return cls(directory, threads)

    async def close(self) -> None:
        """Wait for work under way and end the threads; writers are closed before."""
        await asyncio.to_thread(self._threads.shutdown)

    # Provider

    async def info(self, digest: Digest) -> Info | None:
        return await self._threads.submit(blobs.info, self._directory, digest)

    async def present(self, digests: Iterable[Digest]) -> set[Digest]:
        return await self._threads.submit(blobs.present, self._directory, set(digests))

    async def read(self, digest: Digest, *, limit: int) -> bytes:
        return await self._threads.submit(blobs.read, self._directory, digest, limit)

    # Ingester

    async def open_writer(self, digest: Digest, total: int | None) -> FilesystemWriter | None:
        ingest = Ingest(self._directory.ingest_path(digest), digest, total)
        destination = self._directory.blob_path(digest)
        writer = FilesystemWriter(ingest, destination, self._threads)
        try:
            if not await self._claim(ingest):
                return None
            await self._threads.submit(ingest.prepare)
            while await self._threads.submit(ingest.rehash, _REHASH_SLICE):
                pass
        except BaseException:
            await writer.close()
            raise
        return writer

    async def _claim(self, ingest: Ingest) -> bool:
        """Wait for the ingest's lock; False when the content is there instead."""
        for delay in _polls():
            claim = await self._threads.submit(ingests.claim, self._directory, ingest)
            if claim is not Claim.HELD:
                break
            await asyncio.sleep(delay)
        return claim is Claim.OURS

    async def put(self, digest: Digest, data: bytes) -> Info:
        for delay in _polls():
            if await self._threads.submit(ingests.put, self._directory, digest, data):
                break
            await asyncio.sleep(delay)
        return Info(digest, len(data))

    # Manager

    async def walk(self) -> AsyncIterator[Info]:
        for algorithm in ALGORITHMS:
            with contextlib.closing(blobs.contents(self._directory, algorithm)) as contents:
                while batch := await self._threads.submit(_take, contents, _WALK_BATCH):
                    for info in batch:
                        yield info

    async def delete(self, digest: Digest) -> bool:
        return await self._threads.submit(blobs.delete, self._directory, digest)

    async def ingests(self) -> list[Status]:
        return await self._threads.submit(ingests.statuses, self._directory)

    async def abort(self, digest: Digest) -> bool:
        return await self._threads.submit(ingests.abort, self._directory, digest)


def _take(contents: Iterator[Info], count: int) -> list[Info]:
    return list(itertools.islice(contents, count))


def _polls() -> Iterator[float]:
    """How long to wait between looks at a lock: the kernel tells nobody when one is free."""
    delay = _FIRST_POLL
    while True:
        yield delay
        delay = min(delay * 1.5, _LAST_POLL)
