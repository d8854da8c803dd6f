"""The ledger's rows within one transaction.

Opening the books draws a number from the ledger's sequence: everything written in the transaction
carries it, and a request sent after it has been committed knows that it lies before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    union,
    union_all,
    update,
)

from prefetch.ratelimit.budget import Fall
from prefetch.state.account import Account, Reading, Usage
from prefetch.state.meters import MeterKey, MeterPolicy
from prefetch.state.models import holds, ledger_sequence, meters, observations, spends
from prefetch.state.rows import upsert_into, values
from prefetch.state.samples import read_samples

_READING = [column for column in observations.c if column.name not in ("meter", "falls")]
_SAVE_READING = upsert_into(observations)
_BUMP = (
    update(ledger_sequence)
    .where(ledger_sequence.c.id == 1)
    .values(value=ledger_sequence.c.value + 1)
    .returning(ledger_sequence.c.value)
)
_SEQUENCE = select(ledger_sequence.c.value).where(ledger_sequence.c.id == 1)
_METER = select(meters).where(
    meters.c.registry == bindparam("registry"), meters.c.identity == bindparam("identity")
)
_COSTLY = select(meters.c.registry, meters.c.identity).where(meters.c.head_cost > 0)
_CHANGING = [c.name for c in meters.c if c.name not in ("id", "registry", "identity")]
# All of them each time: one statement, compiled once.
_CHANGE = (
    update(meters)
    .where(meters.c.id == bindparam("meter"))
    .values({name: bindparam(f"new_{name}") for name in _CHANGING})
)
_READINGS = select(*_READING, observations.c.falls).where(
    observations.c.meter == bindparam("meter")
)
_IN_FLIGHT = (spends.c.meter == bindparam("meter"), spends.c.ended_sequence.is_(None))
_ENDED_SINCE = (
    spends.c.meter == bindparam("meter"),
    spends.c.ended_sequence > bindparam("after"),
)
# Two short ranges of the index: for their OR SQLite reads all that the meter has ever spent.
_UNABSORBED = union_all(
    select(spends.c.source, spends.c.ended_sequence).where(*_IN_FLIGHT),
    select(spends.c.source, spends.c.ended_sequence).where(*_ENDED_SINCE),
)
_OWN = (
    select(spends.c.ended_at)
    .where(
        spends.c.meter == bindparam("meter"),
        or_(spends.c.ended_at.is_(None), spends.c.ended_at > bindparam("since")),
    )
    .order_by(spends.c.ended_at)
)
_HELD = select(func.coalesce(func.sum(holds.c.pulls), 0)).where(holds.c.meter == bindparam("meter"))
_OWNERS = union(
    select(holds.c.owner).where(
        holds.c.meter == bindparam("meter"), holds.c.owner != bindparam("self")
    ),
    select(spends.c.owner).where(
        spends.c.meter == bindparam("meter"),
        spends.c.ended_sequence.is_(None),
        spends.c.owner != bindparam("self"),
    ),
)
_NAMED = (
    select(holds.c.id)
    .where(
        holds.c.meter == bindparam("meter"), holds.c.label == bindparam("label"), holds.c.pulls > 0
    )
    .order_by(holds.c.id)
    .limit(1)
)
_LEFT = select(holds.c.pulls).where(holds.c.id == bindparam("hold"))
_END = (
    update(spends)
    .where(spends.c.id == bindparam("spend"), spends.c.ended_sequence.is_(None))
    .values(
        ended_sequence=bindparam("at_sequence"),
        ended_at=bindparam("at"),
        source=bindparam("payer"),
    )
)
_SPEND, _HOLD = insert(spends), insert(holds)
_TAKE = (
    update(holds)
    .where(holds.c.id == bindparam("hold"), holds.c.pulls > 0)
    .values(pulls=holds.c.pulls - 1)
)


def absorbed_statement(method: str) -> Select[Any]:
    """How many spends of a method ended after `after` and up to `upto`, for a source."""
    return select(func.count()).where(
        spends.c.meter == bindparam("meter"),
        spends.c.method == method,
        spends.c.ended_sequence > bindparam("after"),
        spends.c.ended_sequence <= bindparam("upto"),
        or_(spends.c.source.is_(None), spends.c.source == bindparam("source")),
    )


_ABSORBED = {method: absorbed_statement(method) for method in ("GET", "HEAD")}
_UNSEEN = select(func.count()).select_from(
    union_all(
        select(spends.c.id).where(*_IN_FLIGHT),
        select(spends.c.id).where(
            *_ENDED_SINCE,
            or_(spends.c.source.is_(None), spends.c.source == bindparam("source")),
        ),
    ).subquery()
)


def read_costly(connection: Connection) -> set[MeterKey]:
    """The meters whose HEADs cost pulls, as far as is known."""
    return {MeterKey(*row) for row in connection.execute(_COSTLY)}


def read_sequence(connection: Connection) -> int:
    """The ledger's sequence, as the last transaction of any process has left it."""
    return int(connection.execute(_SEQUENCE).scalar_one())


class Books:
    """The ledger's tables, in one transaction of process `owner` at the time `now`.

    `alive` tells whether another owner's process still lives.
    """

    def __init__(
        self, connection: Connection, owner: str, now: float, alive: Callable[[str], bool]
    ) -> None:
        self._connection = connection
        self._alive = alive
        self.owner = owner
        self.now = now
        self.sequence: int = connection.execute(_BUMP).scalar_one()

    @property
    def connection(self) -> Connection:
        return self._connection

    def meter(self, key: MeterKey) -> Row[Any]:
        """The meter's row, made when it is not there."""
        parameters = {"registry": key.registry, "identity": key.identity}
        row = self._connection.execute(_METER, parameters).first()
        if row is None:
            new = {**parameters, "heads": 0, "head_samples": 0, "head_cost": 0}
            self._connection.execute(insert(meters), new)
            row = self._connection.execute(_METER, parameters).one()
        return row

    def meters(self) -> list[MeterKey]:
        """All of them, by name."""
        found = self._connection.execute(select(meters.c.registry, meters.c.identity))
        return sorted((MeterKey(*row) for row in found), key=lambda k: (k.registry, k.identity))

    def change_meter(self, row: Row[Any], **changes: Any) -> None:
        """Write some columns of the meter's row."""
        new = {name: changes.get(name, row._mapping[name]) for name in _CHANGING}
        self._connection.execute(
            _CHANGE, {"meter": row.id} | {f"new_{name}": value for name, value in new.items()}
        )

    def readings(self, meter: int) -> list[Reading]:
        """What each source last reported."""
        rows = self._connection.execute(_READINGS, {"meter": meter})
        return [
            Reading(**{**row._mapping, "falls": tuple(Fall(*f) for f in json.loads(row.falls))})
            for row in rows
        ]

    def save_reading(self, meter: int, reading: Reading) -> None:
        """Insert or replace what a source last reported."""
        row = values([reading])[0]
        row["falls"] = json.dumps([[fall.seen_at, fall.pulls] for fall in reading.falls])
        self._connection.execute(_SAVE_READING, {"meter": meter, **row})

    def account(self, key: MeterKey, policy: MeterPolicy) -> tuple[int, Account]:
        """The meter's id and its account, the dead having been buried first."""
        row = self.meter(key)
        self._bury(row.id)
        account = Account(
            now=self.now,
            policy=policy,
            asked_sequence=row.asked_sequence,
            asked_at=row.asked_at,
            empty_sequence=row.empty_sequence,
            empty_at=row.empty_at or 0.0,
            empty_seconds=row.empty_seconds or 0.0,
            costly=bool(row.head_cost),
            readings=self.readings(row.id),
            held=self._connection.execute(_HELD, {"meter": row.id}).scalar_one(),
            history=partial(read_samples, self._connection, row.id),
        )
        active = account.active()
        if active:
            after = min(reading.sequence for reading in active)
            rows = self._connection.execute(_UNABSORBED, {"meter": row.id, "after": after})
            account.usage = [Usage(source, ended) for source, ended in rows]
        if policy.limit is not None:
            since = self.now - policy.limit[1]
            ended = self._connection.execute(_OWN, {"meter": row.id, "since": since}).scalars()
            # What is in flight leaves the window one window from now.
            account.own = tuple(Fall(self.now if at is None else at, 1) for at in ended)
        return row.id, account

    def unseen(self, meter: int, source: str, after: int) -> int:
        """Spends that a reading of `source` with stamp `after` does not show."""
        parameters = {"meter": meter, "source": source, "after": after}
        return int(self._connection.execute(_UNSEEN, parameters).scalar_one())

    def absorbed(self, meter: int, source: str, *, after: int, upto: int) -> tuple[int, int]:
        """The (GET, HEAD) spends that ended after one clean reading and by the next."""
        parameters = {"meter": meter, "source": source, "after": after, "upto": upto}
        gets, heads = (
            int(self._connection.execute(statement, parameters).scalar_one())
            for statement in _ABSORBED.values()
        )
        return gets, heads

    def open_spend(
        self,
        meter: int,
        *,
        repository: str,
        digest: str | None,
        run_id: str | None,
        method: str = "GET",
    ) -> int:
        """Journal a pull that is about to leave, or a HEAD that costs one; returns its id."""
        row = {
            "meter": meter,
            "owner": self.owner,
            "run_id": run_id,
            "repository": repository,
            "digest": digest,
            "method": method,
            "sequence": self.sequence,
            "begun_at": self.now,
        }
        key = self._connection.execute(_SPEND, row).inserted_primary_key
        return int(key[0]) if key else 0

    def journal_heads(self, meter: int, stamps: Sequence[tuple[int, str]]) -> None:
        """Charge HEADs (stamp, repository) that left before they were known to cost: their answers
        show them."""
        rows = [
            {
                "meter": meter,
                "owner": self.owner,
                "repository": repository,
                "method": "HEAD",
                "sequence": sequence,
                "begun_at": self.now,
                "ended_sequence": sequence,
                "ended_at": self.now,
            }
            for sequence, repository in stamps
        ]
        self._connection.execute(_SPEND, rows)

    def end_spend(self, spend: int, source: str | None, sequence: int | None = None) -> None:
        """The pull's request is over; `source` is who the answer said pays.

        Readings that were asked for with `sequence` (None: this transaction's) or later show it.
        """
        ended = self.sequence if sequence is None else sequence
        self._connection.execute(
            _END, {"spend": spend, "at_sequence": ended, "at": self.now, "payer": source}
        )

    def open_hold(self, meter: int, label: str, pulls: int) -> int:
        """Set pulls aside, once a transaction; returns the hold's id.

        The id is the transaction's number, so that none is ever used twice: whoever still has a
        hold that is gone must not spend from, or release, another that came by its id.
        """
        row = {"meter": meter, "owner": self.owner, "label": label, "pulls": pulls}
        self._connection.execute(_HOLD, {"id": self.sequence, **row})
        return self.sequence

    def find_hold(self, key: MeterKey, label: str) -> int | None:
        """The oldest hold of a living process with that label and pulls left, if there is one."""
        meter = self.meter(key).id
        self._bury(meter)
        row = self._connection.execute(_NAMED, {"meter": meter, "label": label}).first()
        return None if row is None else int(row.id)

    def held_by(self, hold: int) -> int:
        """What is left of a hold; 0 when it is gone."""
        row = self._connection.execute(_LEFT, {"hold": hold}).first()
        return row.pulls if row is not None else 0

    def take_from(self, hold: int) -> None:
        """Turn one pull of a hold into a spend."""
        self._connection.execute(_TAKE, {"hold": hold})

    def grow_hold(self, hold: int, pulls: int) -> bool:
        """Add pulls to a hold; False when it is gone."""
        statement = update(holds).where(holds.c.id == hold).values(pulls=holds.c.pulls + pulls)
        return self._connection.execute(statement).rowcount > 0

    def close_hold(self, hold: int) -> int:
        """Give a hold up; returns what was left of it."""
        left = self.held_by(hold)
        self._connection.execute(delete(holds).where(holds.c.id == hold))
        return left

    def close_owner(self, owner: str) -> None:
        """End all that a process had under way: its pulls stay spent, its holds are dropped."""
        self._connection.execute(delete(holds).where(holds.c.owner == owner))
        self._connection.execute(
            update(spends)
            .where(spends.c.owner == owner, spends.c.ended_sequence.is_(None))
            .values(ended_sequence=self.sequence, ended_at=self.now)
        )

    def forget_spends(self, before: float) -> None:
        """Drop spends that ended long ago."""
        self._connection.execute(delete(spends).where(spends.c.ended_at < before))

    def _bury(self, meter: int) -> None:
        owners = self._connection.execute(_OWNERS, {"meter": meter, "self": self.owner}).scalars()
        for owner in owners.all():
            if not self._alive(owner):
                self.close_owner(owner)
