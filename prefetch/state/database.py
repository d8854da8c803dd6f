"""The database: one connection on one thread, one transaction a call.

SQLite in WAL mode, shared by every process that uses the data directory. `State.run` is
`BEGIN IMMEDIATE … COMMIT`, so that what a transaction reads is still true when it writes;
`State.read` takes no write lock. Neither spans an await.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from prefetch.clock import Clock
from prefetch.errors import StateError
from prefetch.filelock import FileLock
from prefetch.state.blobs import Blobs
from prefetch.state.freezes import Freezes
from prefetch.state.generation import read_generation
from prefetch.state.links import Links
from prefetch.state.manifests import Manifests
from prefetch.state.models import SCHEMA_REVISION, create
from prefetch.state.outbox import Outbox
from prefetch.state.references import References
from prefetch.state.runs import Runs
from prefetch.state.sqlite import BUSY_SECONDS, database_path, sqlite_engine, translate

LOCKS_DIRECTORY = "locks"

T = TypeVar("T")


class State:
    """An open database; made by `State.open`.

    `path` is the database file, `locks` the directory of the lock files that belong to it.
    """

    def __init__(self, path: Path, locks: Path, clock: Clock, busy_seconds: float) -> None:
        self.path = path
        self.locks = locks
        self.clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch-state")
        self._engine = sqlite_engine(path, busy_seconds)
        self._busy_seconds = busy_seconds
        self._connection: Connection | None = None
        self.references = References(self)
        self.manifests = Manifests(self)
        self.blobs = Blobs(self)
        self.links = Links(self)
        self.freezes = Freezes(self)
        self.runs = Runs(self)
        self.outbox = Outbox(self)

    @classmethod
    async def open(
        cls, url: str, *, data_dir: Path, clock: Clock, busy_seconds: float = BUSY_SECONDS
    ) -> Self:
        """Open the database, making a new one where there is none.

        `url` is `sqlite:///relative.db` or `sqlite:////absolute.db`. Raises StateError when the
        database cannot be opened or has another schema, StateLocked, StateDamaged.
        """
        path = database_path(url)
        state = cls(path, data_dir / LOCKS_DIRECTORY, clock, busy_seconds)
        try:
            await state._call(state._open)
        except BaseException:
            await state.close()
            raise
        return state

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in one immediate transaction, rolled back when it raises."""
        return await self._call(lambda: self._transaction(work, "BEGIN IMMEDIATE"))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do `work`, which only reads, on one snapshot of the database."""
        return await self._call(lambda: self._transaction(work, "BEGIN"))

    async def generation(self) -> int:
        """A number that has moved if anything that is served has changed, in any process."""
        return await self.read(read_generation)

    async def close(self) -> None:
        """Close the connection and end the thread; what is under way is finished first."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    async def _call(self, work: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except DBAPIError as error:
            raise translate(error.orig or error, self.path, self._busy_seconds) from error
        except OSError as error:
            raise StateError(f"cannot use the state in {self.path.parent}: {error}") from error

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists() or self.path.stat().st_size == 0:
            self._create()
        self._connection = self._engine.connect()
        if self._transaction(_is_empty, "BEGIN"):
            # Killed while it was made: the file is there, the tables are not.
            self._create()
        self._transaction(lambda connection: check_revision(connection, self.path), "BEGIN")

    def _create(self) -> None:
        # Two processes may start at once: the second finds what the first has made.
        with (
            FileLock(self.path.with_name(f"{self.path.name}.lock")),
            self._engine.begin() as connection,
        ):
            if _is_empty(connection):
                create(connection)

    def _transaction(self, work: Callable[[Connection], T], begin: str) -> T:
        if self._connection is None:
            raise StateError(f"the database {self.path} is closed")
        self._connection.info["begin"] = begin
        with self._connection.begin():
            return work(self._connection)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._engine.dispose()


def check_revision(connection: Connection, path: Path) -> None:
    """Raise StateError unless the schema is the one that this version of prefetch knows."""
    cursor = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
    found = str(cursor.scalar() or "none")
    if found == SCHEMA_REVISION:
        return
    if found < SCHEMA_REVISION:
        raise StateError(
            f"the database {path} has schema {found}, this prefetch needs {SCHEMA_REVISION}",
            hint="run `prefetch db upgrade`",
        )
    raise StateError(
        f"the database {path} has schema {found}, newer than this prefetch ({SCHEMA_REVISION})",
        hint="use the prefetch that made it, or a newer one",
    )


def _is_empty(connection: Connection) -> bool:
    cursor = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    return cursor.scalar() == 0
