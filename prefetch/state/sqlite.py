"""SQLite itself: which file, how it is opened, and what its errors mean to people."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import StaticPool

from prefetch.errors import StateDamaged, StateError, StateLocked

BUSY_SECONDS = 15.0


def database_path(url: str) -> Path:
    """The file that a `sqlite:` URL names. Raises StateError for any other."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StateError(
            "the state URL cannot be parsed", hint="it looks like sqlite:////var/lib/prefetch.db"
        ) from None
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise StateError(
            f"the state URL must name an SQLite file, not {parsed.render_as_string()}",
            hint="sqlite:////absolute/path.db",
        )
    return Path(str(parsed.database))


def sqlite_engine(path: Path, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """An engine with one connection, whose transactions begin as `connection.info` says."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=StaticPool,
        connect_args={"timeout": busy_seconds, "check_same_thread": False},
    )

    def connected(connection: sqlite3.Connection, _: Any) -> None:
        # The driver must not begin transactions of its own: the "begin" event does.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(connection.info.get("begin", "BEGIN IMMEDIATE"))

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine


def translate(error: BaseException, path: Path, busy_seconds: float = BUSY_SECONDS) -> StateError:
    """The driver's error as one of ours, in one line."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StateLocked(
                f"the database {path} has been locked by another process for {busy_seconds:g} s",
                hint="end that process, or try again",
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StateDamaged(
                f"the database {path} is damaged: {error}", hint="run `prefetch db rebuild`"
            )
        case sqlite3.SQLITE_FULL:
            return StateError(f"no space left for the database {path}", hint="free some space")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StateError(
                f"cannot write the database {path}: {error}",
                hint="check its permissions, its directory's, and that the disk is not read-only",
            )
    if "no such table" in str(error):
        return StateDamaged(
            f"the database {path} lacks tables: {error}", hint="run `prefetch db rebuild`"
        )
    return StateError(f"the database {path} failed: {error}")
