"""What every module that writes to the disk needs: faults in plain words, and durable writes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from prefetch.errors import NoSpace, StoreError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_HINTS = {
    errno.ENOSPC: "free some space or choose another data directory",
    errno.EDQUOT: "raise the quota or choose another data directory",
    errno.EROFS: "mount it read-write or choose another data directory",
    errno.EACCES: "give this user read and write permission there",
    errno.EPERM: "give this user read and write permission there",
    errno.EIO: "the disk is failing: look into the kernel's log",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOTDIR: "remove the file that stands where a directory should be",
    errno.EISDIR: "remove the directory that stands where a file should be",
}

_LARGE = 1 << 20
_MARGIN = 4 << 20


@contextlib.contextmanager
def disk_errors(action: str, path: Path) -> Iterator[None]:
    """Turn OSError into one line: `cannot <action> <path>: <the system's words> (<what to do>)`.

    A full disk or quota becomes NoSpace, everything else StoreError.
    """
    try:
        yield
    except OSError as error:
        kind = NoSpace if error.errno in _FULL else StoreError
        number = error.errno or 0
        words = os.strerror(number) if number else str(error)
        raise kind(f"cannot {action} {path}: {words}", hint=_HINTS.get(number)) from error


def require_space(directory: Path, needed: int) -> None:
    """Raise NoSpace unless `needed` bytes, if they are many, fit with a small margin.

    The margin is what the database needs to say what became of them.
    """
    with disk_errors("examine", directory):
        stats = os.statvfs(directory)
    free = stats.f_bavail * stats.f_frsize
    if needed >= _LARGE and needed + _MARGIN > free:
        raise NoSpace(
            f"{directory} has {free} bytes free, {needed} and a margin of {_MARGIN} are needed",
            hint=_HINTS[errno.ENOSPC],
        )


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes) -> None:
    """Write `path` durably, whole or not at all. One writer at a time; raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    sync_directory(path.parent)
