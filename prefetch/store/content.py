"""The content store's protocols: narrow interfaces and the life of a blob.

A blob is *absent*, then an *ingest* (a growing, unverified file that one writer holds a kernel
lock on), then *content* (whole, verified, named by its digest, never written again):

    open_writer ──► write … write ──► commit ──► content
         ▲               │               └─ DigestMismatch / SizeMismatch: the ingest is dropped
         │               └─ close, crash or kill: the bytes stay
         └── open_writer resumes at status.offset (what is there is hashed again)

Modelled on containerd's core/content; all methods are coroutines so that an object store can
implement them, and all blocking work happens off the event loop.
"""

from __future__ import annotations

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


class Writer(Protocol):
    """The one writer of an ingest; it holds the ingest's lock until closed or committed."""

    @property
    def status(self) -> Status: ...

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. Raises SizeMismatch past the total, NoSpace on a full disk (bytes stay)."""
        ...

    async def restart(self) -> None:
        """Back to offset 0, for an upstream that ignores Range."""
        ...

    async def commit(self) -> Info:
        """Verify size and digest, fsync, rename into place, release the lock.

        Raises SizeMismatch (short: the bytes stay, to be resumed) or DigestMismatch
        (the ingest is dropped).
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


class ContentStore(Provider, Ingester, Manager, Protocol):
    """All of it: what the conformance suite in tests/store asks of every implementation."""
