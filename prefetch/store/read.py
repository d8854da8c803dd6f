"""Files open for reading, by several tasks and threads at once."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from prefetch.store.disk import disk_errors


class OpenFile:
    """A file that is opened and read in threads, and closed anywhere at any time.

    The descriptor goes when `close` has been called and no read is under way any more, so that
    no read ever meets a descriptor that has become another file's. `dispose` then closes it.
    """

    def __init__(self, path: Path, dispose: Callable[[int], None]) -> None:
        self.path = path
        self._dispose = dispose
        self._fd: int | None = None
        self._reads = 0
        self._closed = False
        self._mutex = threading.Lock()

    def open(self) -> os.stat_result | None:
        """Open it, once; None when no file is there. Blocks; raises StoreError.

        After `close`, which a cancelled task may have called meanwhile, nothing stays open.
        """
        with disk_errors("open", self.path):
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            status = os.fstat(fd)
        with self._mutex:
            self._fd = fd
            self._closed = self._closed or not stat.S_ISREG(status.st_mode)
        self._settle(0)
        return None if self._closed else status

    def fileno(self) -> int:
        """The descriptor; raises ValueError when the file is not open."""
        if self._fd is None or self._closed:
            raise ValueError(f"{self.path} is not open")
        return self._fd

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only where the file ends.

        Blocks. Raises StoreError, and ValueError when the file is not open.
        """
        with self._in_use() as fd, disk_errors("read", self.path):
            return os.pread(fd, length, offset)

    def close(self) -> None:
        """Let go of the file; does nothing the second time."""
        with self._mutex:
            self._closed = True
        self._settle(0)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[int]:
        with self._mutex:
            fd = self.fileno()
            self._reads += 1
        try:
            yield fd
        finally:
            self._settle(1)

    def _settle(self, reads: int) -> None:
        """Count `reads` as ended; close what nobody needs any more."""
        with self._mutex:
            self._reads -= reads
            if not self._closed or self._reads or self._fd is None:
                return
            fd, self._fd = self._fd, None
        self._dispose(fd)
