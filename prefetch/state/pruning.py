"""How long runs are kept, and what is left of those that are not.

For each entry of the schedule, and each command, the latest runs stay, however old they are. Of
the others, a run that has fetched nothing goes after two days: a cron job of every minute leaves
thousands of those, with a row for each image. Every other one goes after 90 days.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, and_, delete, func, or_, select, union_all
from sqlalchemy.dialects.sqlite import insert

from prefetch.state.models import dropped_runs, runs
from prefetch.state.records import EntryTotal

_LATEST = 50
_KEPT = timedelta(days=90)
_KEPT_OF_LITTLE_USE = timedelta(days=2)
# At most so many at once: whoever else wants to write has to wait for it.
_BATCH = 500


def prune(connection: Connection, now: datetime) -> None:
    """Drop runs that are no longer kept, and what became of references in them."""
    place = func.row_number().over(
        partition_by=(runs.c.entry, runs.c.command), order_by=runs.c.id.desc()
    )
    ranked = select(runs, place.label("place")).subquery()
    idle = and_(ranked.c.outcome.is_not(None), ranked.c.pulls == 0, ranked.c.bytes_fetched == 0)
    old = or_(
        ranked.c.started_at < now - _KEPT,
        and_(ranked.c.started_at < now - _KEPT_OF_LITTLE_USE, idle),
    )
    chosen = select(ranked.c.id).where(ranked.c.place > _LATEST, old)
    doomed = connection.execute(chosen.order_by(ranked.c.id).limit(_BATCH)).scalars().all()
    if doomed:
        _add_up(connection, _ended().where(runs.c.id.in_(doomed)))
        connection.execute(delete(runs).where(runs.c.id.in_(doomed)))


def totals(connection: Connection) -> Sequence[EntryTotal]:
    """All ended runs of entries of the schedule, by entry and outcome, dropped ones too."""
    every = union_all(_ended(), select(dropped_runs)).subquery()
    entry, outcome, number, last = every.c
    statement = (
        select(entry, outcome, func.sum(number), func.max(last))
        .group_by(entry, outcome)
        .order_by(entry, outcome)
    )
    return [EntryTotal(*row) for row in connection.execute(statement)]


def _ended() -> Select[tuple[str, str, int, datetime]]:
    return (
        select(
            runs.c.entry,
            runs.c.outcome,
            func.count().label("runs"),
            func.max(runs.c.finished_at).label("last_at"),
        )
        .where(runs.c.entry.is_not(None), runs.c.finished_at.is_not(None))
        .group_by(runs.c.entry, runs.c.outcome)
    )


def _add_up(connection: Connection, ended: Select[tuple[str, str, int, datetime]]) -> None:
    rows = [dict(row) for row in connection.execute(ended).mappings()]
    if not rows:
        return
    statement = insert(dropped_runs)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["entry", "outcome"],
            set_={
                "runs": dropped_runs.c.runs + statement.excluded.runs,
                "last_at": func.max(dropped_runs.c.last_at, statement.excluded.last_at),
            },
        ),
        rows,
    )
