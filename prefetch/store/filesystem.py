"""The content store on a local disk: an OCI image layout that many processes may share.

Every method hands its work to a small thread pool of the store's own. Hashing and the system
calls around it release the interpreter's lock, so as many blobs are written at once as there are
processors. Reads have a pool to themselves, so that none waits behind the fsync of another blob.
What `write` has returned from is in the kernel: killing the process loses none of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from prefetch.errors import StoreError
from prefetch.oci.reference import Digest
from prefetch.store import blobs
from prefetch.store import ingest as ingests
from prefetch.store.content import (
    ContentStore,
    Follower,
    FollowState,
    Info,
    Progress,
    Reader,
    Status,
    Writer,
)
from prefetch.store.datadir import ALGORITHMS, DataDirectory
from prefetch.store.follow import Growth, Growths
from prefetch.store.ingest import Claim, Ingest
from prefetch.store.read import OpenFile

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

    def dispose(self, fd: int) -> None:
        """Close a descriptor. Freeing a removed file takes 0.2 s a GiB, so a thread does it."""
        if os.fstat(fd).st_nlink:
            os.close(fd)
            return
        try:
            self._pool.submit(os.close, fd)
        except RuntimeError:
            # The pool has been shut down: whoever still reads now has no haste.
            os.close(fd)

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


class FilesystemReader(Reader):
    """A Reader over a content's file, `size` bytes long."""

    def __init__(self, file: OpenFile, size: int, threads: _Threads) -> None:
        self._file = file
        self._size = size
        self._threads = threads

    @property
    def size(self) -> int:
        return self._size

    def fileno(self) -> int:
        return self._file.fileno()

    async def read(self, offset: int, length: int) -> bytes:
        self._file.fileno()
        length = min(length, self._size - offset)
        return await self._threads.submit(self._file.read, offset, length) if length > 0 else b""

    def close(self) -> None:
        self._file.close()


class FilesystemFollower(Follower):
    """A Follower over an ingest's file, which it shares with others of the same one."""

    def __init__(self, growth: Growth, leave: Callable[[], None], threads: _Threads) -> None:
        self._growth = growth
        self._leave = leave
        self._threads = threads
        self._closed = False

    def fileno(self) -> int:
        return self._open().file.fileno()

    async def read(self, offset: int, length: int) -> bytes:
        growth = self._open()
        length = min(length, growth.progress.offset - offset)
        return await self._threads.submit(growth.file.read, offset, length) if length > 0 else b""

    async def wait(self, beyond: int, timeout: float | None = None) -> Progress:
        growth = self._open()
        try:
            async with asyncio.timeout(timeout):
                await growth.wait(beyond)
        except TimeoutError:
            growth.look()
        return growth.progress

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._leave()

    def _open(self) -> Growth:
        if self._closed:
            raise ValueError(f"{self._growth.file.path} is not followed any more")
        return self._growth


class FilesystemStore(ContentStore):
    """A ContentStore under a data directory; any number of processes may open the same one."""

    def __init__(self, directory: DataDirectory, threads: _Threads) -> None:
        self._directory = directory
        self._threads = threads
        self._reading = _Threads()
        self._growths = Growths()

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
        """Wait for work under way and end the threads; what was opened here is closed before."""
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._reading.shutdown)

    # Provider

    async def info(self, digest: Digest) -> Info | None:
        return await self._reading.submit(blobs.info, self._directory, digest)

    async def present(self, digests: Iterable[Digest]) -> set[Digest]:
        return await self._reading.submit(blobs.present, self._directory, set(digests))

    async def read(self, digest: Digest, *, limit: int) -> bytes:
        return await self._reading.submit(blobs.read, self._directory, digest, limit)

    async def open_reader(self, digest: Digest) -> FilesystemReader | None:
        file = OpenFile(self._directory.blob_path(digest), self._reading.dispose)
        status = await self._opened(file)
        return None if status is None else FilesystemReader(file, status.st_size, self._reading)

    # IngestProvider

    async def follow(self, digest: Digest) -> FilesystemFollower | None:
        ingest, content = self._directory.ingest_path(digest), self._directory.blob_path(digest)
        file = OpenFile(ingest, self._reading.dispose)
        status = await self._opened(file)
        if status is None:
            return None
        growth = self._growths.join(digest, Growth(file, status, ingest=ingest, content=content))
        leave = functools.partial(self._growths.leave, digest, growth)
        follower = FilesystemFollower(growth, leave, self._reading)
        try:
            growth.look()
        except StoreError:
            follower.close()
            raise
        if growth.progress.state is FollowState.LOST:
            follower.close()
            return None
        return follower

    async def _opened(self, file: OpenFile) -> os.stat_result | None:
        try:
            return await self._reading.submit(file.open)
        except BaseException:
            # The thread may be opening it still: cancelled, the file closes when it has done so.
            file.close()
            raise

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
