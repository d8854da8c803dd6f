"""Finds the files of a directory that are to be read, and says what cannot be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prefetch.errors import SourceError

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
"""In small letters; capitals are as good."""
MAX_FILES: Final = 20_000
"""Files and directories that are looked at, at most."""


def files(root: Path) -> Iterator[Path | SourceError]:
    """Every file in it and below that is to be read, in order of name; or why one cannot be.

    What is hidden is left out. Links are followed; a directory that several lead to is read once.
    """
    seen: set[tuple[int, int]] = set()
    # What is still to be looked at, the next one last.
    todo = [root]
    for _ in range(MAX_FILES):
        if not todo:
            return
        path = todo.pop()
        wanted = path.suffix.lower() in SUFFIXES
        try:
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                todo += _inside(path, found, seen)
            elif wanted and stat.S_ISREG(found.st_mode):
                yield path
            elif wanted:
                yield SourceError(str(path), None, "not a regular file")
        except FileNotFoundError:
            # What a link without a suffix should have led to may have been a directory.
            if wanted or not path.suffix:
                yield SourceError(str(path), None, "a link that leads nowhere")
        except OSError as error:
            yield SourceError(str(path), None, f"cannot be read: {error.strerror}")
    if todo:
        message = f"more than {MAX_FILES:,} files: the rest is not read"
        yield SourceError(str(root), None, message)


def _inside(path: Path, found: os.stat_result, seen: set[tuple[int, int]]) -> list[Path]:
    """What is in a directory, the last name first; nothing, if it has been seen."""
    if (found.st_dev, found.st_ino) in seen:
        return []
    seen.add((found.st_dev, found.st_ino))
    return sorted((each for each in path.iterdir() if not each.name.startswith(".")), reverse=True)
