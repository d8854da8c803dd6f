"""The content store's protocols: narrow interfaces and the life of a blob.

A blob is *absent*, then an *ingest* (a growing, unverified file that one writer holds a kernel
lock on), then *content* (whole, verified, named by its digest, never written again):

    open_writer ──► write … write ──► commit ──► content ──► open_reader
         ▲               │               ├─ DigestMismatch: the ingest is dropped
         │               │               └─ SizeMismatch: the bytes stay
         │               ├─ restart: the ingest is dropped, an empty one is in its place
         │               └─ close, crash or kill: the bytes stay (without any, it is dropped)
         └── open_writer resumes at status.offset (what is there is hashed again; more bytes
             than the total: as restart)

An ingest only ever grows, from one writer to the next. What must be forgotten is dropped with it,
never written over, and so whoever reads an ingest while it grows learns for certain what became
of the bytes:

    follow ──► GROWING … GROWING ──┬──► WHOLE: they are the content, verified
                                   └──► LOST: dropped; they are worth nothing

Modelled on containerd's core/content; all methods that may block are coroutines so that an object
store can implement them, and all blocking work happens off the event loop.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Protocol

from prefetch.oci.reference import Digest


@dataclass(frozen=True, slots=True)
class Info:
    """One piece of content: its digest and its size in bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Status:
    """An ingest: `offset` bytes are here, of `total` (None while the size is unknown)."""

    digest: Digest
    offset: int
    total: int | None


class FollowState(enum.Enum):
    """What has become of an ingest that is followed; WHOLE and LOST are final."""

    GROWING = enum.auto()
    WHOLE = enum.auto()
    LOST = enum.auto()


@dataclass(frozen=True, slots=True)
class Progress:
    """`offset` bytes can be read from an ingest; when it is WHOLE that is the content's size."""

    offset: int
    state: FollowState


class Reader(Protocol):
    """One piece of content, open. It can be read to its end even when it is deleted meanwhile.

    What it gives is not verified again: that was done when it was committed.
    """

    @property
    def size(self) -> int:
        """The content's size in bytes."""
        ...

    def fileno(self) -> int | None:
        """A descriptor for zero-copy sends, valid until `close`; None in a store without files.

        Give offsets to what reads it (pread(2), sendfile(2)), and do not close it. Raises
        ValueError when the reader is closed.
        """
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer at the end, none past it.

        Raises StoreError when the disk does, ValueError when the reader is closed.
        """
        ...

    def close(self) -> None:
        """Give the content back; does nothing the second time."""
        ...


class Follower(Protocol):
    """An ingest, read while it grows, whoever writes it and in whatever process.

    Nothing that it gives is verified before WHOLE. Who passes bytes on earlier keeps back the
    last one, waits for the verdict (`wait` beyond the blob's size returns for nothing else), and
    after LOST never lets the receiver believe that it has all. Whoever has passed on nothing
    may simply begin anew. An ingest whose writer is dead does not grow: have it resumed.
    """

    def fileno(self) -> int | None:
        """As `Reader.fileno`. Only the bytes that `wait` has told of count; after LOST there may
        be fewer."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer where no more are known of: `wait` tells of them.

        Raises StoreError when the disk does, ValueError when the follower is closed.
        """
        ...

    async def wait(self, beyond: int, timeout: float | None = None) -> Progress:
        """Wait until there are more than `beyond` bytes, or the ingest is WHOLE or LOST.

        After `timeout` seconds (None: never) it returns what is known then, which is also how
        to find out without waiting: `timeout=0`. Raises StoreError when the disk does, and
        ValueError when the follower is closed.
        """
        ...

    def close(self) -> None:
        """Give the ingest back; does nothing the second time."""
        ...


class Provider(Protocol):
    """Reads content."""

    async def info(self, digest: Digest) -> Info | None:
        """The content's size, or None when it is absent."""
        ...

    async def present(self, digests: Iterable[Digest]) -> set[Digest]:
        """Which of `digests` are here; one pass, for many at once."""
        ...

    async def read(self, digest: Digest, *, limit: int) -> bytes:
        """The whole content, verified against its digest.

        Raises StoreError when it is absent, damaged or larger than `limit` bytes.
        """
        ...

    async def open_reader(self, digest: Digest) -> Reader | None:
        """Open the content to read it in pieces; None when it is absent."""
        ...


class IngestProvider(Protocol):
    """Reads what is on its way to become content."""

    async def follow(self, digest: Digest) -> Follower | None:
        """Follow the ingest that somebody, in this or another process, writes or has left behind.

        None when there is none, be it that there never was one or that it is content by now.
        """
        ...


class Writer(Protocol):
    """The one writer of an ingest; it holds the ingest's lock until closed or committed."""

    @property
    def status(self) -> Status: ...

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. Raises SizeMismatch past the total, NoSpace on a full disk (bytes stay)."""
        ...

    async def restart(self) -> None:
        """Back to offset 0, for an upstream that ignores Range; followers see LOST.

        Raises StoreError or NoSpace, and then the bytes stay.
        """
        ...

    async def commit(self) -> Info:
        """Verify size and digest, fsync, rename into place, release the lock.

        Raises SizeMismatch (short: the bytes stay, to be resumed), DigestMismatch (the ingest
        is dropped), or StoreError when an outsider has removed the ingest.
        """
        ...

    async def close(self) -> None:
        """Release the lock and keep the bytes; nothing happens after commit."""
        ...


class Ingester(Protocol):
    """Writes content."""

    async def open_writer(self, digest: Digest, total: int | None) -> Writer | None:
        """Take the ingest's lock, waiting for a writer in this or another process.

        Returns None when the content is (or has meanwhile become) present. Raises NoSpace when
        `total` does not fit on the disk.
        """
        ...

    async def put(self, digest: Digest, data: bytes) -> Info:
        """Store a small document whole: open, write, commit in one step."""
        ...


class Manager(Protocol):
    """Looks after content."""

    def walk(self) -> AsyncIterator[Info]:
        """All content, in no order."""
        ...

    async def delete(self, digest: Digest) -> bool:
        """Remove content; False when it was absent."""
        ...

    async def ingests(self) -> list[Status]:
        """All ingests, also those that nobody is writing."""
        ...

    async def abort(self, digest: Digest) -> bool:
        """Drop an ingest that nobody is writing; False when there is none or it is held."""
        ...


class ContentStore(Provider, IngestProvider, Ingester, Manager, Protocol):
    """All of it: what the conformance suite in tests/store asks of every implementation."""
