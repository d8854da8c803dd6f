"""Kernel file locks: who is writing, who is alive.

A lock is `flock(2)`: it belongs to an open file description, so it keeps out other processes and
other holders in this process alike, and the kernel releases it when its process ends, however it
ends. It is advisory and holds on local filesystems only.

A lock file may be unlinked, renamed or replaced by whoever holds its lock. A lock taken on a path
that no longer names the locked file is worth nothing; `FileLock` never reports one as taken.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_LEASE_FILE = re.compile(r"[0-9a-f]{32}\.lock")


class FileLock:
    """An exclusive lock on `path`, which is created (empty, mode 0644) when it is missing.

    Raises OSError when the file cannot be opened. As a context manager it waits for the lock,
    blocking the thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def fileno(self) -> int:
        """The locked file's descriptor, open for reading and writing while the lock is held."""
        if self._fd is None:
            raise ValueError(f"{self.path} is not locked")
        return self._fd

    def try_acquire(self) -> bool:
        """Take the lock if it is free; never waits. True when it is held now."""
        return self._acquire(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def acquire(self) -> None:
        """Take the lock, blocking the thread until it is free."""
        self._acquire(fcntl.LOCK_EX)

    def _acquire(self, operation: int) -> bool:
        while self._fd is None:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(fd, operation)
                if _names(self.path, fd):
                    self._fd, fd = fd, -1
            except BlockingIOError:
                return False
            finally:
                if fd >= 0:
                    os.close(fd)
        return True

    def intact(self) -> bool:
        """Whether `path` still names the locked file; False once an outsider has removed it."""
        return _names(self.path, self.fileno())

    def renew(self, scratch: Path) -> None:
        """Put a new, empty file in the locked one's place, and hold the new one's lock instead.

        The new file is locked before it gets its name, so that nobody slips in between. It is made
        as `scratch`, a name on the same filesystem that only the holder of this lock uses; a kill
        may leave an empty file there. Raises OSError, FileNotFoundError also when the lock is no
        longer intact: then the old file is locked as before.
        """
        if not self.intact():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        scratch.unlink(missing_ok=True)
        fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            scratch.rename(self.path)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                scratch.unlink()
            raise
        self.release()
        self._fd = fd

    def release(self) -> None:
        """Let go of the lock; the file stays. Does nothing when it is not held."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class Lease:
    """A sign of life: `<directory>/<id>.lock`, locked for as long as its process lives.

    Others that have the id ask `Lease.alive`; no PID or time to live is involved, so a reused
    PID, a stopped process or a clock that jumps deceives nobody.
    """

    def __init__(self, lock: FileLock, name: str) -> None:
        self._lock = lock
        self.id = name

    @classmethod
    def acquire(cls, directory: Path, name: str | None = None) -> Self:
        """Hold `<directory>/<name>.lock`; without a name, a new UUID's 32 hex digits.

        Clears away what dead processes left. Raises BlockingIOError when `name` is held already
        and OSError when the directory cannot be written.
        """
        _sweep(directory)
        while True:
            chosen = name or uuid.uuid4().hex
            lock = FileLock(directory / f"{chosen}.lock")
            if lock.try_acquire():
                return cls(lock, chosen)
            if name is not None and cls.alive(directory, name):
                raise BlockingIOError(f"{lock.path} is held already")

    def release(self) -> None:
        """Give the lease up and remove its file; does nothing the second time."""
        if self._lock.held:
            self._lock.path.unlink(missing_ok=True)
            self._lock.release()

    @staticmethod
    def alive(directory: Path, lease_id: str) -> bool:
        """Whether somebody holds the lease; a missing file or a free lock means dead."""
        with _asking(directory / f"{lease_id}.lock") as held:
            return held


@contextlib.contextmanager
def _asking(path: Path) -> Iterator[bool]:
    """Whether somebody holds `path` exclusively; while asking, nobody can take it.

    Those who ask share the lock, so that they never mistake each other for a holder.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        held = True
    else:
        held = False
    try:
        yield held
    finally:
        os.close(fd)


def _sweep(directory: Path) -> None:
    """Remove unnamed leases of the dead: their UUIDs are never used again."""
    for path in directory.iterdir():
        if _LEASE_FILE.fullmatch(path.name):
            with _asking(path) as held:
                if not held:
                    path.unlink(missing_ok=True)


def _names(path: Path, fd: int) -> bool:
    """Whether `path` still is the file open as `fd`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
