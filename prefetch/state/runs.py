"""Runs and what became of each reference in them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, func, insert, select, update

from prefetch.state.models import run_images, runs
from prefetch.state.pruning import prune, totals
from prefetch.state.records import EntryHistory, EntryTotal, Pace, RunImageRecord, RunRecord
from prefetch.state.rows import Session, columns, upsert_into, values

RETRY: Final = "retry"
"""The cause of a run that asks only for what the one before has not brought to a good end."""

_RUN = columns(runs, RunRecord)
_IMAGE = columns(run_images, RunImageRecord)
# What has fetched less tells of the way there and back, not of how wide it is.
_TELLING_BYTES = 1_000_000
# Characters of an id that tell the hour, and the moment.
_HOUR, _STAMP = len("20260102T03"), len("20260102T030405.678")
_TICK = timedelta(milliseconds=1)


class Runs:
    """The history of runs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def start(
        self, command: str, at: datetime, *, entry: str | None = None, cause: str | None = None
    ) -> str:
        """Begin a run; returns its id, `20260102T030405.678Z-1a2b3c4d`.

        Ids sort in the order in which runs began. They tell the time, too, unless the clock has
        been set back: then they go on from the last one. `entry` and `cause`: of which entry of the
        schedule, and why. The first run of an hour drops what is no longer kept.
        """
        row = {
            "command": command,
            "started_at": at,
            "images": 0,
            "pulls": 0,
            "bytes_fetched": 0,
            "entry": entry,
            "cause": cause,
        }

        def work(connection: Connection) -> str:
            newest = connection.execute(select(func.max(runs.c.id))).scalar() or ""
            run_id = _id_after(newest, at)
            connection.execute(insert(runs), {"id": run_id, **row})
            if newest[:_HOUR] != run_id[:_HOUR]:
                prune(connection, at)
            return run_id

        return await self._session.run(work)

    async def record(self, run_id: str, images: Iterable[RunImageRecord]) -> None:
        """Keep what became of references; a later word on one replaces the earlier."""
        rows = [{"run_id": run_id, **row} for row in values(images)]
        if rows:
            statement = upsert_into(run_images)
            await self._session.run(lambda connection: connection.execute(statement, rows))

    async def finish(
        self,
        run_id: str,
        outcome: str,
        at: datetime,
        *,
        images: int = 0,
        pulls: int = 0,
        bytes_fetched: int = 0,
    ) -> None:
        """End a run with its outcome and totals."""
        statement = (
            update(runs)
            .where(runs.c.id == run_id)
            .values(
                outcome=outcome,
                finished_at=at,
                images=images,
                pulls=pulls,
                bytes_fetched=bytes_fetched,
            )
        )
        await self._session.run(lambda connection: connection.execute(statement))

    async def get(self, run_id: str) -> tuple[RunRecord, list[RunImageRecord]] | None:
        """A run and its references by name; None when there is no such run."""

        def work(connection: Connection) -> tuple[RunRecord, list[RunImageRecord]] | None:
            run = connection.execute(select(*_RUN).where(runs.c.id == run_id)).first()
            if run is None:
                return None
            images = connection.execute(
                select(*_IMAGE)
                .where(run_images.c.run_id == run_id)
                .order_by(run_images.c.reference)
            )
            return RunRecord(*run), [RunImageRecord(*row) for row in images]

        return await self._session.read(work)

    async def of_entry(self, entry: str, limit: int = 20) -> EntryHistory:
        """The latest runs of an entry of the schedule, and what is put off."""

        def work(connection: Connection) -> EntryHistory:
            found = _latest(connection, entry, limit)
            looked = _that_looked(found)
            whole = select(*_RUN).where(runs.c.entry == entry, runs.c.cause.is_distinct_from(RETRY))
            rows = connection.execute(whole.order_by(runs.c.id.desc()).limit(1))
            last_whole = next((RunRecord(*row) for row in rows), None)
            waiting = select(func.count(), func.min(run_images.c.retry_at)).where(
                run_images.c.run_id == (looked and looked.id), run_images.c.outcome == "deferred"
            )
            count, retry_at = connection.execute(waiting).one()
            return EntryHistory(tuple(found), count, retry_at, last_whole)

        return await self._session.read(work)

    async def unsettled(self, entry: str, limit: int = 20) -> frozenset[str]:
        """The references that an entry's latest runs have put off or have failed to fetch."""

        def work(connection: Connection) -> frozenset[str]:
            looked = _that_looked(_latest(connection, entry, limit))
            names = select(run_images.c.reference).where(
                run_images.c.run_id == (looked and looked.id),
                run_images.c.outcome.in_(("deferred", "failed")),
            )
            return frozenset(connection.execute(names).scalars())

        return await self._session.read(work)

    async def entry_totals(self) -> Sequence[EntryTotal]:
        """All ended runs of entries of the schedule, by entry and outcome."""
        return await self._session.read(totals)

    async def list(self, limit: int = 20) -> list[RunRecord]:
        """The latest runs, newest first."""

        def work(connection: Connection) -> list[RunRecord]:
            rows = connection.execute(select(*_RUN).order_by(runs.c.id.desc()).limit(limit))
            return [RunRecord(*row) for row in rows]

        return await self._session.read(work)

    async def pace(self, limit: int = 20) -> Pace:
        """How fast the latest runs have fetched, those that fetched next to nothing apart.

        A run that waited for budget looks slow: the fastest one is told.
        """

        def work(connection: Connection) -> Pace:
            telling = select(runs.c.id, runs.c.started_at, runs.c.finished_at, runs.c.bytes_fetched)
            telling = telling.where(
                runs.c.finished_at.is_not(None), runs.c.bytes_fetched >= _TELLING_BYTES
            )
            found = connection.execute(telling.order_by(runs.c.id.desc()).limit(limit)).all()
            if not found:
                return Pace()
            mean = select(func.avg(run_images.c.bytes_fetched)).where(
                run_images.c.run_id.in_([run.id for run in found]),
                run_images.c.bytes_fetched > 0,
            )
            rates = [
                run.bytes_fetched / max((run.finished_at - run.started_at).total_seconds(), 1.0)
                for run in found
            ]
            image = connection.execute(mean).scalar()
            return Pace(max(rates), None if image is None else int(image))

        return await self._session.read(work)


def _id_after(newest: str, at: datetime) -> str:
    """An id for a run that begins at that moment, greater than the newest one."""
    stamp = _stamp(at)
    if newest[:_STAMP] >= stamp:
        last = datetime.strptime(newest[:_STAMP], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
        stamp = _stamp(last + _TICK)
    return f"{stamp}Z-{uuid.uuid4().hex[:8]}"


def _stamp(at: datetime) -> str:
    return f"{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03d}"


def _latest(connection: Connection, entry: str, limit: int) -> Sequence[RunRecord]:
    statement = select(*_RUN).where(runs.c.entry == entry).order_by(runs.c.id.desc()).limit(limit)
    return [RunRecord(*row) for row in connection.execute(statement)]


def _that_looked(found: Sequence[RunRecord]) -> RunRecord | None:
    """The newest run that got so far as to look at images, or found that there were none: what it
    says of them stands, whatever has kept later ones from looking."""
    return next((run for run in found if run.images or run.outcome == "complete"), None)
