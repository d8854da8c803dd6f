"""The ledger's transactions: each begins with what has come in, and none is lost half-way."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

from prefetch.clock import Clock
from prefetch.errors import StateError
from prefetch.filelock import Lease
from prefetch.ratelimit.headers import Observation
from prefetch.state.books import Books, read_costly, read_sequence
from prefetch.state.database import State
from prefetch.state.inbox import Inbox
from prefetch.state.meters import MeterKey, Stamp
from prefetch.state.readings import exemptions
from prefetch.state.samples import KEPT_SECONDS, forget_samples

_FLUSH_SECONDS = 0.1
_KEEP_SPENDS_SECONDS = 32 * 86400.0

T = TypeVar("T")


def end_unheard(books: Books, stamp: Stamp) -> None:
    """A HEAD has come to nothing; should it have been journaled, it counts as spent."""
    if stamp.spend is not None:
        books.end_spend(stamp.spend, None)


class Journal:
    """One process's transactions on the ledger's books.

    `sequence` is the highest number that this process knows to be committed. Another process's
    may be higher.
    """

    def __init__(self, state: State, directory: Path, clock: Clock, sequence: int) -> None:
        self.sequence = sequence
        self._state = state
        self._directory = directory
        self._clock = clock
        self._id = uuid.uuid4().hex
        self._counter = 0
        self._lease: Lease | None = None
        self._inbox = Inbox()
        self._flusher: asyncio.Task[None] | None = None
        self._reading: asyncio.Future[int] | None = None
        self._abandoned: set[asyncio.Task[None]] = set()
        self._exempt: dict[tuple[MeterKey, str], bool] = {}
        self._costly: set[MeterKey] = set()

    def stamp(self, sequence: int | None = None) -> Stamp:
        """A stamp for a request that leaves now, or in the transaction `sequence`."""
        self._counter += 1
        return Stamp(self.sequence if sequence is None else sequence, self._counter)

    async def fresh_stamp(self) -> Stamp:
        """A stamp for a request that leaves now, as the newest transaction of any process has it.

        What is known here may be old, in a process that has done nothing for a while: its reading
        would count as earlier than another's, and be dropped. Requests of one moment share a read;
        one that has begun may have seen too little for whoever comes later.
        """
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_sequence())
        self.sequence = max(self.sequence, await asyncio.shield(self._reading))
        return self.stamp()

    async def _read_sequence(self) -> int:
        await asyncio.sleep(0)
        self._reading = None
        self._costly, sequence = await self._state.read(
            lambda c: (read_costly(c), read_sequence(c))
        )
        return sequence

    async def head_stamp(self, meter: MeterKey, repository: str) -> Stamp:
        """A stamp for a HEAD that leaves now; where HEADs cost pulls it is journaled before."""
        stamp = await self.fresh_stamp()
        if meter not in self._costly:
            return stamp
        await self.take_lease()

        def work(books: Books) -> Stamp:
            spend = books.open_spend(
                books.meter(meter).id,
                repository=repository,
                digest=None,
                run_id=None,
                method="HEAD",
            )
            return replace(self.stamp(books.sequence), spend=spend)

        return await self.transact(work, end_unheard)

    def post(
        self,
        meter: MeterKey,
        stamp: Stamp,
        observation: Observation | None,
        *,
        repository: str,
        method: str,
    ) -> None:
        """Take in an answer's headers; they are written soon, or with the next transaction."""
        at = self._clock.now().timestamp()
        self._inbox.add(meter, stamp, observation, repository=repository, method=method, at=at)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_soon())

    async def transact(
        self, work: Callable[[Books], T], undo: Callable[[Books, T], object] | None = None
    ) -> T:
        """One transaction: first what has come, then `work`.

        It goes on when the caller is cancelled; `undo` then takes back what `work` gave.
        """
        task = asyncio.ensure_future(self._commit(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            cleanup = asyncio.create_task(self._clean_up(task, undo))
            self._abandoned.add(cleanup)
            cleanup.add_done_callback(self._abandoned.discard)
            raise

    def is_exempt(self, books: Books, meter: MeterKey, repository: str) -> bool:
        """Whether the repository's answers carry no headers, as far as is known."""
        key = (meter, repository)
        if key not in self._exempt:
            known = exemptions(books, meter, [repository])
            self._exempt[key] = known.get(repository, (False, ""))[0]
        return self._exempt[key]

    async def take_lease(self) -> None:
        """Show that this process lives, before it owns anything."""
        if self._lease is None:
            await self._state.run(self._lease_once)

    async def close(self) -> None:
        """Write what has come, drop this process's holds and end its spends."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        while self._abandoned:
            await asyncio.gather(*self._abandoned, return_exceptions=True)
        if self._inbox or self._lease:
            await self.transact(lambda books: books.close_owner(books.owner))
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    async def _commit(self, work: Callable[[Books], T]) -> T:
        mail = self._inbox.take()

        def transaction(connection: Connection) -> tuple[T, int]:
            books = Books(connection, self._id, self._clock.now().timestamp(), self._is_alive)
            for meter, repository, exempt in mail.deliver(books):
                self._exempt[meter, repository] = exempt
            return work(books), books.sequence

        try:
            result, sequence = await self._state.run(transaction)
        except BaseException:
            self._inbox.put_back(mail)
            raise
        self.sequence = max(self.sequence, sequence)
        return result

    async def _clean_up(
        self, task: asyncio.Future[T], undo: Callable[[Books, T], Any] | None
    ) -> None:
        with contextlib.suppress(StateError):
            result = await task
            if undo is not None:
                await self.transact(lambda books: undo(books, result))

    async def _flush_soon(self) -> None:
        await self._clock.sleep(_FLUSH_SECONDS)
        # What cannot be written now comes again with the next transaction.
        with contextlib.suppress(StateError):
            if self._inbox:
                await self.transact(lambda _: None)

    def _lease_once(self, connection: Connection) -> None:
        # On the state thread, one at a time: the first caller takes it for all.
        if self._lease is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lease = Lease.acquire(self._directory, self._id)
            now = self._clock.now().timestamp()
            Books(connection, self._id, now, self._is_alive).forget_spends(
                now - _KEEP_SPENDS_SECONDS
            )
            forget_samples(connection, now - KEPT_SECONDS)

    def _is_alive(self, owner: str) -> bool:
        return Lease.alive(self._directory, owner)
