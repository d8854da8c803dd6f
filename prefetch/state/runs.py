"""Runs and what became of each reference in them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, update

from prefetch.state.models import run_images, runs
from prefetch.state.records import EntryHistory, EntryTotal, Pace, RunImageRecord, RunRecord
from prefetch.state.rows import Session, columns, upsert_into, values

_RUN = columns(runs, RunRecord)
_IMAGE = columns(run_images, RunImageRecord)
# What has fetched less tells of the way there and back, not of how wide it is.
_TELLING_BYTES = 1_000_000


class Runs:
    """The history of runs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def start(
        self, command: str, at: datetime, *, entry: str | None = None, cause: str | None = None
    ) -> str:
        """Begin a run; returns its id, which sorts by time: `20260102T030405.678Z-1a2b3c4d`.

        `entry` and `cause`: of which entry of the schedule, and why.
        """
        stamp = f"{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03d}Z"
        run_id = f"{stamp}-{uuid.uuid4().hex[:8]}"
        row = {
            "id": run_id,
            "command": command,
            "started_at": at,
            "images": 0,
            "pulls": 0,
            "bytes_fetched": 0,
            "entry": entry,
            "cause": cause,
        }
        await self._session.run(lambda connection: connection.execute(insert(runs), row))
        return run_id

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
        """The latest runs of an entry of the schedule, and what the newest has put off."""

        def work(connection: Connection) -> EntryHistory:
            rows = connection.execute(
                select(*_RUN).where(runs.c.entry == entry).order_by(runs.c.id.desc()).limit(limit)
            )
            found = tuple(RunRecord(*row) for row in rows)
            if not found:
                return EntryHistory()
            waiting = select(func.count(), func.min(run_images.c.retry_at)).where(
                run_images.c.run_id == found[0].id, run_images.c.outcome == "deferred"
            )
            count, retry_at = connection.execute(waiting).one()
            return EntryHistory(found, count, retry_at)

        return await self._session.read(work)

    async def entry_totals(self) -> Sequence[EntryTotal]:
        """All ended runs of entries of the schedule, by entry and outcome."""
        statement = (
            select(runs.c.entry, runs.c.outcome, func.count(), func.max(runs.c.finished_at))
            .where(runs.c.entry.is_not(None), runs.c.finished_at.is_not(None))
            .group_by(runs.c.entry, runs.c.outcome)
            .order_by(runs.c.entry, runs.c.outcome)
        )

        def work(connection: Connection) -> Sequence[EntryTotal]:
            return [EntryTotal(*row) for row in connection.execute(statement)]

        return await self._session.read(work)

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
