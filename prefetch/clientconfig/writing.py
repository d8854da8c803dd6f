"""Puts files in their places below a directory, each at once or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from prefetch.clientconfig.files import ConfigFile
from prefetch.errors import UsageError


def write_tree(files: Iterable[ConfigFile], root: Path, *, force: bool) -> list[Path]:
    """Write each file at its path below `root`; returns where they are now.

    A file that is there with other content is overwritten only with `force`; without it nothing is
    written. Raises UsageError.
    """
    places = [(root / file.path.lstrip("/"), file) for file in files]
    if not force:
        there = [str(place) for place, file in places if _differs(place, file.text())]
        if there:
            raise UsageError(
                f"{', '.join(there)}: there already, with other content", hint="--force overwrites"
            )
    for place, _ in places:
        _check_place(place)
    for place, file in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            replace(place, file.text(), file.mode)
        except OSError as error:
            raise UsageError(f"{place}: cannot be written: {error.strerror}") from None
    return [place for place, _ in places]


def _check_place(place: Path) -> None:
    """Raise UsageError, before anything is written, where something else is in the way."""
    for parent in place.parents:
        if os.path.lexists(parent):
            if not parent.is_dir():
                raise UsageError(f"{parent}: this is no directory")
            break
    if place.is_dir():
        raise UsageError(f"{place}: this is a directory")


def replace(path: Path, text: str, mode: int, owner: os.stat_result | None = None) -> None:
    """Give a file this content and these permissions, at once; `owner` is whose it shall be.

    Raises OSError.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _differs(place: Path, text: str) -> bool:
    if not os.path.lexists(place):
        return False
    try:
        return place.read_text(encoding="utf-8") != text
    except (OSError, ValueError):
        return True
