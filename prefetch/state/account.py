"""A meter's account and the rules of spending from it. Pure: the books fill it in.

*Estimate* = last reading - spends that it has not absorbed - what others have probably spent
since; *available* = estimate - reserve. A reading absorbs the spends that had ended before its
request was sent, as the ledger's sequence tells. Of several sources (a pool of addresses) the
lowest active one governs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from prefetch.ratelimit.budget import (
    FRESH_SECONDS,
    NEAR_RESERVE,
    UNKNOWN_WINDOW,
    Burn,
    Fall,
    refill_at,
)
from prefetch.ratelimit.learning import MeterModel, Refill, Sample, configured, learn
from prefetch.ratelimit.supply import Outlook, Stock
from prefetch.ratelimit.threat import Pressure
from prefetch.state.meters import MeterPolicy

_ACTIVE_SECONDS = 600.0
# How others burn is told by readings that come one after the other; an old one says nothing of now.
_RECENT_SECONDS = 300.0
_COSTLY_FACTOR = 10


@dataclass(slots=True)
class Reading:
    """The last word of one source (empty: the registry names none); a row of `observations`."""

    source: str
    sequence: int
    owner: str
    counter: int
    observed_at: float
    remaining: int
    limit: int | None = None
    window_seconds: float | None = None
    reset_at: float | None = None
    clean_sequence: int | None = None
    clean_at: float | None = None
    clean_remaining: int | None = None
    burn_rate: float = 0.0
    head_remaining: int | None = None
    head_count: int | None = None
    head_at: float | None = None
    falls: tuple[Fall, ...] = ()

    @property
    def window(self) -> float:
        return self.window_seconds or UNKNOWN_WINDOW

    def is_older_than(self, sequence: int, owner: str, counter: int, remaining: int) -> bool:
        """Whether an observation with that stamp replaces this one."""
        if sequence != self.sequence:
            return sequence > self.sequence
        if owner == self.owner:
            return counter > self.counter
        return remaining < self.remaining


@dataclass(frozen=True, slots=True)
class Usage:
    """A spend that some active reading has not absorbed; `ended` None: in flight."""

    source: str | None
    ended: int | None

    def burdens(self, reading: Reading) -> bool:
        """Whether the reading does not yet show this spend."""
        if self.ended is None:
            return True
        return self.ended > reading.sequence and self.source in (None, reading.source)


@dataclass(frozen=True, slots=True)
class Position:
    """One view of a meter: a source's reading, or (`reading` None) a configured limit."""

    available: int
    in_flight: int
    reserve: int
    limit: int | None
    remaining: int
    window: float
    falls: tuple[Fall, ...]
    reading: Reading | None = None

    def refill_at(self, price: int, now: float) -> float:
        """When `price` pulls (at most what a whole window gives) will be available."""
        if self.limit is not None:
            price = max(min(price, self.limit - self.reserve), 1)
        return refill_at(
            self.falls,
            available=self.available,
            price=price,
            now=now,
            window=self.window,
            burn=Burn(self.reading.burn_rate if self.reading else 0.0),
            reset_at=self.reading.reset_at if self.reading else None,
        )

    def back_at(self, now: float) -> float | None:
        """When all that the meter gives is back, one window from now at the latest.

        None where neither a window nor a moment is known.
        """
        reading = self.reading
        if reading is not None and reading.reset_at is not None and reading.reset_at > now:
            return reading.reset_at
        if reading is not None and reading.window_seconds is None:
            return None
        moment = self.refill_at(self.limit or 1, now)
        return moment if moment > now else now + self.window

    def stock(self, held: int, now: float, empty_until: float | None) -> Stock:
        """What a forecast starts from; of an empty meter, the moment at which it opens again."""
        used = sum(fall.pulls for fall in self.falls)
        limit = self.remaining + used if self.limit is None else self.limit
        available = self.available
        if empty_until is not None:
            now = max(now, empty_until)
            out = sum(f.pulls for f in self.falls if f.seen_at + self.window > now)
            available = limit - self.reserve - out
        reset_at = self.reading.reset_at if self.reading else None
        return Stock(now, available - held, limit, self.reserve, self.falls, reset_at)


@dataclass(slots=True)
class Account:
    """A meter within one transaction.

    `asked_*` tell of the last answer from which a reading could be expected, whatever it said;
    `empty_*` of the last 429 by the pull limit that no later reading has overruled; `held` are
    the pulls held by the living; `own` are our spends within the configured limit's window.
    """

    now: float
    policy: MeterPolicy
    asked_sequence: int | None = None
    asked_at: float | None = None
    empty_sequence: int | None = None
    empty_at: float = 0.0
    empty_seconds: float = 0.0
    costly: bool = False
    readings: list[Reading] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    held: int = 0
    own: tuple[Fall, ...] = ()
    history: Callable[[str], Sequence[Sample]] = lambda _: ()

    @property
    def in_flight(self) -> int:
        return sum(usage.ended is None for usage in self.usage)

    def exempted(self) -> Account:
        """The account as pulls from an exempt repository meet it: a configured limit alone counts,
        and there is nothing to ask."""
        return replace(
            self, readings=[], usage=[], empty_sequence=None, asked_sequence=None, asked_at=self.now
        )

    def active(self) -> list[Reading]:
        """Readings that count: near the newest in time, and not older than their window."""
        if not self.readings:
            return []
        newest = max(self.readings, key=lambda r: (r.sequence, r.observed_at))
        near = min(newest.window, _ACTIVE_SECONDS)
        return [
            reading
            for reading in self.readings
            if abs(reading.observed_at - newest.observed_at) <= near
            and abs(self.now - reading.observed_at) <= reading.window
        ]

    def positions(self) -> Iterator[Position]:
        """Every view of the meter that limits it."""
        for reading in self.active():
            reserve = self.policy.reserve.of(reading.limit)
            burden = sum(usage.burdens(reading) for usage in self.usage)
            burn = Burn(reading.burn_rate).expected(
                self.now - reading.observed_at, reading.window_seconds
            )
            yield Position(
                available=reading.remaining - burden - burn - reserve,
                in_flight=self.in_flight,
                reserve=reserve,
                limit=reading.limit,
                remaining=reading.remaining,
                window=reading.window,
                falls=reading.falls,
                reading=reading,
            )
        if self.policy.limit is not None:
            pulls, window = self.policy.limit
            used = sum(fall.pulls for fall in self.own)
            reserve = self.policy.reserve.of(pulls)
            yield Position(
                available=pulls - used - reserve,
                in_flight=0,
                reserve=reserve,
                limit=pulls,
                remaining=max(pulls - used, 0),
                window=window,
                falls=self.own,
            )

    def governing(self) -> Position | None:
        """The tightest view; None when nothing limits the meter."""
        return min(self.positions(), key=lambda position: position.available, default=None)

    def pressure(self) -> Pressure | None:
        """What others' burn is judged by; None without a limit, or a recent reading of it."""
        position = self.governing()
        if position is None or position.limit is None or position.reading is None:
            return None
        reading = position.reading
        if not 0 <= self.now - reading.observed_at <= _RECENT_SECONDS:
            return None
        reset_at = reading.reset_at
        if reset_at is None and self._model(position).refill is Refill.AT_ONCE:
            reset_at = min((f.seen_at for f in reading.falls), default=self.now) + position.window
        return Pressure(
            now=self.now,
            above=0 if self.empty_until() else position.available - self.held,
            capacity=max(position.limit - position.reserve, 1),
            window=position.window,
            burn=Burn(reading.burn_rate),
            falls=reading.falls,
            reset_at=reset_at,
        )

    def asked_within(self, seconds: float) -> bool:
        """Whether the registry was asked at most `seconds` ago; a time to come is no answer."""
        return self.asked_at is not None and 0 <= self.now - self.asked_at <= seconds

    def fresh(self) -> bool:
        """Whether the last word may be spent on."""
        return self.asked_within(FRESH_SECONDS * (_COSTLY_FACTOR if self.costly else 1))

    def outdated(self) -> bool:
        """Whether the last word was a reading that its own window has outlived."""
        if not self.readings or self.active():
            return False
        return max(reading.sequence for reading in self.readings) >= (self.asked_sequence or 0)

    def asked_after_spends(self) -> bool:
        """Whether the last word was asked for after every spend that has ended."""
        last = max((usage.ended or 0 for usage in self.usage), default=0)
        return self.asked_sequence is not None and self.asked_sequence >= last

    def latest_word(self, position: Position) -> bool:
        """Whether a refusal may rest on this position: a HEAD now would tell nothing new."""
        if position.reading is None:
            return True
        soon = min(max(position.window / 20, 1.0), FRESH_SECONDS)
        if self.costly:
            soon *= _COSTLY_FACTOR
        return self.asked_within(soon) and self.asked_after_spends()

    def empty_until(self) -> float | None:
        """Until when a 429 that no reading has overruled keeps the meter empty."""
        if self.empty_sequence is None or not self.empty_at <= self.now:
            return None
        until = self.empty_at + self.empty_seconds
        return until if self.now < until else None

    def must_ask_about_empty(self) -> bool:
        """Whether a 429 stands that the registry has not been asked about since."""
        if self.empty_sequence is None:
            return False
        return (self.asked_sequence or 0) < self.empty_sequence or not self.fresh()

    def forecast(self, price: int) -> float:
        """When `price` pulls will be available beyond the holds: never before now."""
        moments = [position.refill_at(price + self.held, self.now) for position in self.positions()]
        return max([self.now, self.empty_until() or self.now, *moments])

    def outlook(self) -> Outlook:
        """What the meter will give, by all that is known of it."""
        closed = self.empty_until()
        positions = sorted(self.positions(), key=lambda position: position.available)
        limits = [(p.stock(self.held, self.now, closed), self._model(p)) for p in positions]
        return Outlook(self.now, tuple(limits))

    def _model(self, position: Position) -> MeterModel:
        reading = position.reading
        if reading is None:
            return configured(position.limit or 0, position.window)
        return learn(
            self.history(reading.source),
            limit=reading.limit,
            window=reading.window_seconds,
            burn_rate=reading.burn_rate,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say: `grant`, `observe`, `busy` or `refuse` with the reason."""

    answer: str
    available: int = 0
    reason: str = ""


GRANT, OBSERVE, BUSY = Verdict("grant"), Verdict("observe"), Verdict("busy")


def judge_spend(account: Account, *, held: bool) -> Verdict:
    """Whether one pull may leave now; `held` says that it converts a hold, which others' cannot
    block.
    """
    if account.must_ask_about_empty():
        return OBSERVE
    if account.empty_until() is not None:
        return Verdict("refuse", 0, "the registry said that its pull limit is reached")
    if not account.fresh() or account.outdated():
        return OBSERVE
    position = account.governing()
    if position is None:
        return GRANT
    free = position.available - (0 if held else account.held)
    if position.available <= 0 or free <= 0:
        return _why_not(account, position)
    return _near_reserve(account)


def _near_reserve(account: Account) -> Verdict:
    """Within five pulls of the reserve, pulls go one at a time, each after a HEAD."""
    reported = [p.available for p in account.positions() if p.reading is not None]
    if not reported or min(reported) > NEAR_RESERVE:
        return GRANT
    if account.in_flight:
        return BUSY
    return GRANT if account.asked_after_spends() else OBSERVE


def _why_not(account: Account, position: Position) -> Verdict:
    if position.available + position.in_flight > 0 and (
        position.in_flight or account.latest_word(position)
    ):
        return BUSY
    if not account.latest_word(position):
        return OBSERVE
    return refusal(position)


def refusal(position: Position) -> Verdict:
    """A refusal in words."""
    whose = "the configured limit" if position.reading is None else "the registry"
    return Verdict(
        "refuse",
        max(position.available, 0),
        f"{position.remaining} pulls left by {whose}, {position.reserve} of them reserved",
    )


def judge_hold(account: Account, pulls: int) -> Verdict:
    """Whether `pulls` may be set aside beyond what is held already."""
    if account.empty_until() is not None:
        return Verdict("refuse", 0, "the registry said that its pull limit is reached")
    position = account.governing()
    if position is None or position.available - account.held >= pulls:
        return GRANT
    return refusal(position)
