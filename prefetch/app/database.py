"""The database's upkeep: its schema, and making it anew from the layout."""

from __future__ import annotations

import shutil
from pathlib import Path

from prefetch.app.requests import Place
from prefetch.app.runtime import settings_at
from prefetch.app.signals import run
from prefetch.clock import SystemClock
from prefetch.config.settings import Settings
from prefetch.filelock import FileLock
from prefetch.state.database import State
from prefetch.state.sqlite import database_path
from prefetch.store.filesystem import FilesystemStore
from prefetch.sync.rebuild import Rebuilder, Rebuilt


def upgrade_database(place: Place) -> Path:
    """Bring the schema up to this version; returns the database's path. Raises StateError."""
    from prefetch.state.schema import upgrade

    settings = settings_at(place)
    path = database_path(settings.database_url)
    path.parent.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database_url)
    return path


def rebuild_database(place: Place) -> tuple[Rebuilt, Path | None]:
    """Make the database anew; returns what was found, and where the old one was put."""
    settings = settings_at(place)
    result, _ = run(lambda _: _rebuild(settings))
    return result


async def _rebuild(settings: Settings) -> tuple[Rebuilt, Path | None]:
    clock = SystemClock()
    store = await FilesystemStore.open(settings.data_dir)
    try:
        kept = set_aside(database_path(settings.database_url), clock)
        state = await State.open(settings.database_url, data_dir=settings.data_dir, clock=clock)
        try:
            return await Rebuilder(state, store, clock).run(settings.data_dir), kept
        finally:
            await state.close()
    finally:
        await store.close()


def set_aside(path: Path, clock: SystemClock) -> Path | None:
    """Move a database and its journals away, under a name that tells when; None: there was none."""
    if not path.exists():
        return None
    kept = path.with_name(f"{path.name}.{clock.now():%Y%m%dT%H%M%SZ}")
    with FileLock(path.with_name(f"{path.name}.lock")):
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                shutil.move(part, kept.with_name(kept.name + suffix))
    return kept
