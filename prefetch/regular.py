"""Where bytes come from; and files that others lead to, which must not be pipes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, Protocol


class Reader(Protocol):
    """Gives at most so many bytes, as soon as there are some; none: the end."""

    def read(self, size: int, /) -> bytes | None: ...


def check_regular(*paths: Path | None) -> None:
    """Look whether these may be given to a library that would wait for a pipe. Raises OSError."""
    for path in paths:
        if path is not None:
            open_regular(path).close()


def open_regular(path: Path) -> BinaryIO:
    """A regular file, for reading. Raises OSError for whatever else stands there, at once."""
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes to it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "not a regular file")
    return os.fdopen(handle, "rb")
