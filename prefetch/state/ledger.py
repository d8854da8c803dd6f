"""The pull ledger: no pull leaves that the budget does not allow, in whichever process.

A pull is journaled before its request leaves (`spend`), and settled by the answer (`settle`).
Answers' headers come in by `observe`. All of it is transactions on the shared database, ordered
by the ledger's own sequence and never by a clock: a request's stamp is the highest number known
when it left, so an answer is known to show the spends that had ended with that number or before.

    hold ──► spend ──► settle        an image's pulls, set aside; one of them journaled; answered
             │ Observe: send a free HEAD, `observe` it, ask again
             │ Busy: wait a little, ask again
             └ Refused: nothing left until `retry_at`
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from prefetch.clock import Clock
from prefetch.ratelimit.budget import UNKNOWN_WINDOW, check_interval
from prefetch.ratelimit.headers import Observation
from prefetch.ratelimit.supply import Outlook
from prefetch.ratelimit.threat import Pressure
from prefetch.state.account import (
    Account,
    Verdict,
    judge_hold,
    judge_spend,
)
from prefetch.state.books import Books, read_sequence
from prefetch.state.database import State
from prefetch.state.journal import Journal, end_unheard
from prefetch.state.meters import (
    Budget,
    Busy,
    Granted,
    Hold,
    MeterKey,
    MeterPolicy,
    Observe,
    Refused,
    Spend,
    Stamp,
)
from prefetch.state.readings import Arrived, record_observation
from prefetch.state.throttles import Throttles

__all__ = [
    "Budget",
    "Busy",
    "Granted",
    "Hold",
    "Ledger",
    "MeterKey",
    "MeterPolicy",
    "Observe",
    "Refused",
    "Spend",
    "Stamp",
]


class Ledger:
    """One process's view of the ledger; made by `Ledger.open`. All methods may raise StateError."""

    def __init__(self, journal: Journal, throttles: Throttles, run_id: str | None) -> None:
        self._journal = journal
        self._throttles = throttles
        self._run_id = run_id
        self._random = random.SystemRandom()

    @classmethod
    async def open(
        cls, state: State, *, directory: Path, clock: Clock, run_id: str | None = None
    ) -> Self:
        """A ledger on `state`; lock files go to `directory`, once something is held or spent."""
        sequence = await state.read(read_sequence)
        journal = Journal(state, directory, clock, sequence)
        return cls(journal, Throttles(state, clock), run_id)

    async def close(self) -> None:
        """Write what has come, drop this process's holds and end its spends."""
        await self._journal.close()

    # ── observations ────────────────────────────────────────────────────────────────────────────

    async def stamp(self, meter: MeterKey) -> Stamp:  # noqa: ARG002 - one sequence serves all
        """Taken just before a free request leaves; its answer is observed with it."""
        return await self._journal.fresh_stamp()

    async def head_stamp(self, meter: MeterKey, repository: str) -> Stamp:
        """Taken just before a HEAD leaves: its answer is observed with it, or it is `unheard`.

        Where HEADs are known to cost pulls, it is charged from now on.
        """
        return await self._journal.head_stamp(meter, repository)

    async def unheard(self, stamp: Stamp) -> None:
        """A HEAD has ended without an answer that tells anything."""
        if stamp.spend is not None:
            await self._journal.transact(lambda books: end_unheard(books, stamp))

    async def observe(
        self,
        meter: MeterKey,
        stamp: Stamp,
        observation: Observation | None,
        *,
        repository: str,
        method: Literal["HEAD", "GET"],
    ) -> None:
        """Take in the headers of an answer: None says that it carried none at all.

        Absent headers make the repository exempt and leave the meter as it is. Written within a
        tenth of a second, or when somebody asks.
        """
        self._journal.post(meter, stamp, observation, repository=repository, method=method)

    async def exempt(self, meter: MeterKey, repository: str) -> bool:
        """Whether the repository's answers carry no rate-limit headers, as far as is known."""
        return await self._journal.transact(
            lambda books: self._journal.is_exempt(books, meter, repository)
        )

    async def exempt_among(
        self, meter: MeterKey, policy: MeterPolicy, repositories: Iterable[str]
    ) -> set[str]:
        """Those of many repositories whose pulls nobody counts; a configured limit counts all."""
        if policy.limit is not None:
            return set()
        asked = set(repositories)
        return await self._journal.transact(
            lambda books: {each for each in asked if self._journal.is_exempt(books, meter, each)}
        )

    # ── holds ───────────────────────────────────────────────────────────────────────────────────

    async def hold(
        self,
        meter: MeterKey,
        pulls: int,
        policy: MeterPolicy,
        *,
        label: str,
        exempt: bool = False,
    ) -> Hold | Refused:
        """Set `pulls` aside for `label`, all or none; a meter without a reading grants them."""
        await self._journal.take_lease()

        def work(books: Books) -> Hold | Refused:
            meter_id, account = books.account(meter, policy)
            if exempt:
                account = account.exempted()
            verdict = judge_hold(account, pulls)
            if verdict.answer == "refuse":
                return _refused(account, verdict, pulls)
            return Hold(books.open_hold(meter_id, label, pulls), meter, policy, label, exempt)

        def undo(books: Books, answer: Hold | Refused) -> None:
            if isinstance(answer, Hold):
                books.close_hold(answer.id)

        return await self._journal.transact(work, undo)

    async def hold_named(self, meter: MeterKey, label: str, policy: MeterPolicy) -> Hold | None:
        """A hold for exactly `label` that has pulls left, whichever living process set it aside.

        Anyone may spend from it or release it; it still dies with the process that set it aside,
        and what is then spent from it is judged like a spend without a hold.
        """
        found = await self._journal.transact(lambda books: books.find_hold(meter, label))
        return None if found is None else Hold(found, meter, policy, label)

    async def grow(self, hold: Hold, pulls: int) -> bool:
        """Add `pulls` to a hold.

        False (and nothing added) when the budget does not have them, or the hold is gone.
        """

        def work(books: Books) -> bool:
            _, account = books.account(hold.meter, hold.policy)
            if hold.exempt:
                account = account.exempted()
            if judge_hold(account, pulls).answer == "refuse":
                return False
            return books.grow_hold(hold.id, pulls)

        return await self._journal.transact(work)

    async def release(self, hold: Hold) -> int:
        """Give a hold up, whoever's it is; returns the pulls that were left of it."""
        return await self._journal.transact(lambda books: books.close_hold(hold.id))

    # ── spends ──────────────────────────────────────────────────────────────────────────────────

    async def spend(
        self,
        hold: Hold | None,
        meter: MeterKey,
        policy: MeterPolicy,
        *,
        repository: str,
        digest: str | None,
    ) -> Granted | Observe | Busy | Refused:
        """Journal one pull that is about to leave, out of `hold` while it lasts."""
        await self._journal.take_lease()

        def work(books: Books) -> Granted | Observe | Busy | Refused:
            meter_id, account = books.account(meter, policy)
            held = hold is not None and books.held_by(hold.id) > 0
            if self._journal.is_exempt(books, meter, repository):
                account = account.exempted()
            verdict = judge_spend(account, held=held)
            match verdict.answer:
                case "observe":
                    return Observe()
                case "busy":
                    return Busy()
                case "refuse":
                    return _refused(account, verdict, 1)
            if hold is not None and held:
                books.take_from(hold.id)
            spend = books.open_spend(
                meter_id, repository=repository, digest=digest, run_id=self._run_id
            )
            return Granted(Spend(spend, meter, repository, self._journal.stamp(books.sequence)))

        def undo(books: Books, answer: Granted | Observe | Busy | Refused) -> None:
            if isinstance(answer, Granted):
                books.end_spend(answer.spend.id, None)

        return await self._journal.transact(work, undo)

    async def settle(
        self,
        spend: Spend,
        observation: Observation | None,
        *,
        answered: bool = False,
        ended: bool = True,
    ) -> None:
        """The pull's answer: its headers, and (unless `ended` is False) the end of its request.

        `answered` says that the manifest came: then absent headers make the repository exempt.
        """
        if observation is not None or answered:
            self._journal.post(
                spend.meter, spend.stamp, observation, repository=spend.repository, method="GET"
            )
        source = observation.source if observation is not None else None
        if ended:
            await self._journal.transact(lambda books: books.end_spend(spend.id, source))

    async def pull_limit_reached(
        self,
        meter: MeterKey,
        sent: Spend | Stamp,
        observation: Observation | None,
        retry_after: float | None,
    ) -> None:
        """A 429 by the pull limit: the meter is empty until an answer sent later says otherwise.

        Without any headers ever it is until `retry_after`, else the known window, else an hour,
        has passed. Ends the spend, if it was one.
        """
        stamp = sent.stamp if isinstance(sent, Spend) else sent

        def work(books: Books) -> None:
            if observation is not None:
                record_observation(books, meter, Arrived(stamp, observation, books.now))
            if isinstance(sent, Spend):
                books.end_spend(sent.id, observation.source if observation else None)
            row = books.meter(meter)
            window = max((r.window for r in books.readings(row.id)), default=UNKNOWN_WINDOW)
            books.change_meter(
                row,
                empty_sequence=books.sequence,
                empty_at=books.now,
                empty_seconds=window if retry_after is None else retry_after,
            )

        await self._journal.transact(work)

    # ── throttling ──────────────────────────────────────────────────────────────────────────────

    async def throttled(self, registry: str, seconds: float | None) -> datetime:
        """A 429 that is not the pull limit; returns when the registry may be asked again."""
        return await self._throttles.add(registry, seconds)

    async def throttled_until(self, registry: str) -> datetime | None:
        """Until when every request to the registry waits; None: it need not."""
        return await self._throttles.until(registry)

    # ── what people ask ─────────────────────────────────────────────────────────────────────────

    async def meters(self) -> list[MeterKey]:
        """Every meter that has ever been read or spent from, by name."""
        return await self._journal.transact(lambda books: books.meters())

    async def budget(self, meter: MeterKey, policy: MeterPolicy) -> Budget:
        """The meter by its tightest view, holds of the living taken off."""
        account = await self._account(meter, policy)
        position = account.governing()
        if position is None:
            return Budget(meter, None, None, None, policy.reserve.of(None), None, None, None, 0.0)
        reading = position.reading
        available = 0 if account.empty_until() else position.available - account.held
        back = position.back_at(account.now)
        if back is None and policy.limit is not None:
            back = account.now + policy.limit[1]
        return Budget(
            meter=meter,
            source=(reading.source or None) if reading else None,
            limit=position.limit,
            remaining=position.remaining,
            reserve=position.reserve,
            available=max(available, 0),
            window_seconds=reading.window_seconds if reading else position.window,
            observed_at=_moment(reading.observed_at) if reading else None,
            foreign_burn_per_hour=round(reading.burn_rate * 3600, 3) if reading else 0.0,
            back_at=None if back is None else _moment(back),
        )

    async def pressure(self, meter: MeterKey, policy: MeterPolicy) -> Pressure | None:
        """What others' burn is judged by; None where there is no recent reading."""
        return await self._journal.transact(
            lambda books: books.account(meter, policy)[1].pressure()
        )

    async def forecast(self, meter: MeterKey, policy: MeterPolicy, pulls: int) -> datetime:
        """When `pulls` will be available: never before now."""
        return _moment((await self._account(meter, policy)).forecast(pulls))

    async def outlook(self, meter: MeterKey, policy: MeterPolicy) -> Outlook:
        """What the meter will give, and what that rests on."""
        return await self._journal.transact(lambda books: books.account(meter, policy)[1].outlook())

    async def next_check(
        self, meter: MeterKey, policy: MeterPolicy | None = None, pulls: int = 1
    ) -> float:
        """Seconds until a free HEAD should next ask an empty meter, with jitter."""
        account = await self._account(meter, policy or MeterPolicy())
        position = account.governing()
        seconds = check_interval(
            account.forecast(pulls) - account.now,
            position.window if position else None,
            costly=account.costly,
        )
        return seconds * self._random.uniform(0.85, 1.0)

    async def head_cost(self, meter: MeterKey) -> int:
        """1 once HEADs alone were seen to cost pulls, else 0."""
        return int((await self._account(meter, MeterPolicy())).costly)

    async def _account(self, meter: MeterKey, policy: MeterPolicy) -> Account:
        return await self._journal.transact(lambda books: books.account(meter, policy)[1])


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _refused(account: Account, verdict: Verdict, pulls: int) -> Refused:
    position = account.governing()
    busy = stale = False
    if position is not None and account.empty_until() is None:
        busy = position.available + position.in_flight >= pulls
        stale = not account.latest_word(position)
    return Refused(
        retry_at=_moment(account.forecast(pulls)),
        available=verdict.available,
        reason=verdict.reason,
        busy=busy,
        stale=stale,
    )
