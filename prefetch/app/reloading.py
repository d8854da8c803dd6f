"""The configuration's file, watched: when there is another one to read."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from prefetch.app.offloop import off_loop
from prefetch.app.requests import Place
from prefetch.app.runtime import settings_at
from prefetch.config.load import find
from prefetch.config.settings import Settings
from prefetch.errors import ConfigError

_LOOK_SECONDS = 2.0


class Watch:
    """Looks at the file every two seconds.

    Whatever makes another file of it is a change: bytes written, a rename over it, a symbolic link
    on its path that leads elsewhere (so Kubernetes replaces what a ConfigMap has mounted), its
    coming and its going.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._told = asyncio.Event()
        self._taken: object = None

    def tell(self) -> None:
        """Have it read, whether it has changed or not."""
        self._told.set()

    async def take(self) -> None:
        """What there is now is what is read next: only what comes later is a change."""
        self._taken = await self._look()

    async def wait(self) -> bool:
        """Wait until it is to be read, and take it; returns whether it was told to.

        A change counts when it has lasted from one look to the next: what is being written is
        seldom read before it is whole.
        """
        before = self._taken
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _LOOK_SECONDS)
            told = self._told.is_set()
            self._told.clear()
            now = await self._look()
            if told or (now != self._taken and now == before):
                self._taken = now
                return told
            before = now

    async def _look(self) -> object:
        return await off_loop(lambda: _identity(self._place))


def reloaded(old: Settings, place: Place) -> Settings:
    """The configuration as it is now, for a process that has begun with `old`; may block.

    Raises ConfigError; also when the data would be elsewhere, since what is open stays open.
    """
    new = settings_at(place)
    if new.path is None and old.path is not None:
        raise ConfigError(f"{old.path}: the file is gone")
    for key, before, after in (
        ("data_dir", old.data_dir, new.data_dir),
        ("state_url", old.database_url, new.database_url),
    ):
        if before != after:
            raise ConfigError(f"{new.path}: {key}: a change of it takes a restart")
    return new


def _identity(place: Place) -> object:
    """What tells one file from another without reading it."""
    path = place.config if place.config is not None else find(os.environ)
    try:
        found = None if path is None else path.stat()
    except OSError as error:
        return path, error.errno
    if found is None:
        return None
    times = found.st_mtime_ns, found.st_ctime_ns
    return path, found.st_dev, found.st_ino, found.st_size, *times
