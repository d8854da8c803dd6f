"""One blob under way: the file, its lock and its running digest.

The file is only ever appended to, by its writer, since others may follow it: bytes that must be
forgotten go with the file itself, and a new one takes its place.

Methods block and raise StoreError. They may be called from any thread: a mutex serialises them,
so `close` waits for a write that a cancelled task has left behind, and no descriptor is closed
under a running system call.
"""

from __future__ import annotations

import contextlib
import enum
import os
import threading
from pathlib import Path

from prefetch.errors import DigestMismatch, SizeMismatch, StoreError
from prefetch.filelock import FileLock
from prefetch.oci.reference import Digest
from prefetch.store import blobs
from prefetch.store.content import Status
from prefetch.store.datadir import DataDirectory
from prefetch.store.disk import disk_errors, require_space, sync_directory

_READ_SIZE = 1 << 20
# How much is written before the kernel is told to begin with it.
_WRITEBACK = 8 << 20


class Ingest:
    """The file at `path`, to become the content `digest` of `total` bytes (None: unknown).

    `offset` bytes are on disk and hashed; `rehash` brings it level with what a writer before
    us has left.
    """

    def __init__(self, path: Path, digest: Digest, total: int | None) -> None:
        self.digest = digest
        self.total = total
        self.offset = 0
        self._flushed = 0
        self._path = path
        # Where a new file is made that is to replace the ingest. While the lock is held nobody
        # else touches the name; what a kill left there goes before the ingest does, so that it
        # never lies here alone.
        self._scratch = path.with_name(f"{path.name}.new")
        self._lock = FileLock(path)
        self._hasher = digest.hasher()
        self._mutex = threading.Lock()
        self._closed = False

    def try_lock(self) -> bool:
        """Become the one writer; False while there is another, or after `close`."""
        with self._mutex, disk_errors("open", self._path):
            if self._closed or not self._lock.try_acquire():
                return False
            self._scratch.unlink(missing_ok=True)
            return True

    def prepare(self) -> None:
        """Drop bytes that cannot be right; raise NoSpace when what lacks does not fit."""
        with self._mutex:
            with disk_errors("examine", self._path):
                size = os.fstat(self._lock.fileno()).st_size
            if self.total is not None and size > self.total:
                size = 0
                self._forget()
            require_space(self._path.parent, (self.total or 0) - size)

    def rehash(self, limit: int) -> bool:
        """Hash up to `limit` bytes more of what is there; False when there is no more."""
        buffer = memoryview(bytearray(min(limit, _READ_SIZE)))
        with self._mutex, disk_errors("read", self._path):
            stop = self.offset + limit
            while self.offset < stop:
                count = os.preadv(self._lock.fileno(), [buffer], self.offset)
                if not count:
                    return False
                self._hasher.update(buffer[:count])
                self.offset += count
                self._flushed = self.offset
        return True

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Write and hash. On a fault, `offset` tells how many bytes made it; they stay."""
        rest = memoryview(data).cast("B")
        with self._mutex:
            if self.total is not None and self.offset + len(rest) > self.total:
                raise SizeMismatch(f"{self.digest} goes on past its {self.total} bytes")
            with disk_errors("write", self._path):
                while rest:
                    count = os.pwrite(self._lock.fileno(), rest, self.offset)
                    self._hasher.update(rest[:count])
                    self.offset += count
                    rest = rest[count:]
                self._begin_writeback()

    def restart(self) -> None:
        """Back to offset 0; raises NoSpace when not even an empty file can be made."""
        with self._mutex:
            self._forget()

    def commit(self, destination: Path) -> None:
        """Verify, fsync and rename to `destination`; release the lock.

        Raises SizeMismatch when bytes lack (they stay), and DigestMismatch (the file is gone).
        After a failed fsync nobody knows what is on disk (fsync(2)), so the file goes too. Raises
        StoreError when the file was removed meanwhile: another may bear its name already.
        """
        with self._mutex:
            if self.total is not None and self.offset < self.total:
                raise SizeMismatch(f"{self.digest} has {self.offset} bytes of {self.total}")
            if self._hasher.hexdigest() != self.digest.hex:
                self._drop()
                raise DigestMismatch(f"what came as {self.digest} has another digest")
            with disk_errors("write", self._path):
                self._sync()
            self._require_intact()
            with disk_errors("write", destination):
                self._path.rename(destination)
                # The old name needs no sync: should it come back, it is an ingest that is whole.
                sync_directory(destination.parent)
            self._release()

    def drop(self) -> None:
        """Remove the file and release the lock."""
        with self._mutex:
            self._drop()

    def close(self) -> None:
        """Release the lock and keep the bytes; a file without any goes."""
        with self._mutex:
            if not self._lock.held:
                self._closed = True
            elif os.fstat(self._lock.fileno()).st_size:
                self._release()
            else:
                self._drop()

    def _begin_writeback(self) -> None:
        """Have the disk work while the network does, so that commit's fsync finds little to do.

        On Linux the advice starts writing what is dirty and waits for nothing; pages that are
        still dirty stay cached.
        """
        pending = self.offset - self._flushed
        if pending >= _WRITEBACK:
            os.posix_fadvise(self._lock.fileno(), self._flushed, pending, os.POSIX_FADV_DONTNEED)
            self._flushed = self.offset

    def _forget(self) -> None:
        """Have no bytes. To truncate them would make followers take what comes for a sequel."""
        with disk_errors("replace", self._path):
            if os.fstat(self._lock.fileno()).st_size:
                self._lock.renew(self._scratch)
        self.offset = self._flushed = 0
        self._hasher = self.digest.hasher()

    def _sync(self) -> None:
        """Put exactly what was hashed on the disk."""
        fd = self._lock.fileno()
        try:
            os.ftruncate(fd, self.offset)
            os.fchmod(fd, 0o644)
            os.fsync(fd)
        except OSError:
            with contextlib.suppress(StoreError):
                self._drop()
            raise

    def _require_intact(self) -> None:
        with disk_errors("examine", self._path):
            intact = self._lock.intact()
        if not intact:
            self._release()
            raise StoreError(
                f"{self._path} was removed while it was being written",
                hint="remove nothing from there while prefetch runs",
            )

    def _drop(self) -> None:
        try:
            with disk_errors("remove", self._path):
                if self._lock.intact():
                    self._path.unlink(missing_ok=True)
        finally:
            self._release()

    def _release(self) -> None:
        self._closed = True
        self._lock.release()


class Claim(enum.Enum):
    """What came of asking for an ingest's lock."""

    PRESENT = enum.auto()
    HELD = enum.auto()
    OURS = enum.auto()


def claim(directory: DataDirectory, ingest: Ingest) -> Claim:
    """Try to become the writer of content that is not there yet."""
    if blobs.info(directory, ingest.digest):
        return Claim.PRESENT
    if not ingest.try_lock():
        return Claim.HELD
    if blobs.info(directory, ingest.digest):
        # Committed between the two looks; what we locked is a new and needless file.
        ingest.drop()
        return Claim.PRESENT
    return Claim.OURS


def put(directory: DataDirectory, digest: Digest, data: bytes) -> bool:
    """Store `data` whole; False, to be tried again, while another writer holds the ingest.

    Raises DigestMismatch before anything is written.
    """
    if Digest.of(data, digest.algorithm) != digest:
        raise DigestMismatch(f"what came as {digest} has another digest")
    ingest = Ingest(directory.ingest_path(digest), digest, len(data))
    try:
        state = claim(directory, ingest)
        if state is Claim.OURS:
            ingest.restart()
            ingest.append(data)
            ingest.commit(directory.blob_path(digest))
    finally:
        ingest.close()
    return state is not Claim.HELD


def statuses(directory: DataDirectory) -> list[Status]:
    """All ingests; their totals are known to their writers only."""
    found = []
    for entry in blobs.files(directory.ingest):
        digest = blobs.parse_name(*entry.name.partition("-")[::2])
        if digest is not None:
            with contextlib.suppress(FileNotFoundError):
                found.append(Status(digest, entry.stat().st_size, None))
    return found


def abort(directory: DataDirectory, digest: Digest) -> bool:
    """Remove an ingest; False when there is none or somebody is writing it."""
    path = directory.ingest_path(digest)
    ingest = Ingest(path, digest, None)
    if not path.is_file() or not ingest.try_lock():
        return False
    ingest.drop()
    return True
