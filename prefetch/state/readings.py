"""Observations into the books: what replaces what, foreign burn, usage, and what a HEAD costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import bindparam, select

from prefetch.ratelimit.budget import Burn, follow_usage
from prefetch.ratelimit.headers import Observation
from prefetch.ratelimit.learning import Sample
from prefetch.state.account import Reading
from prefetch.state.books import Books
from prefetch.state.meters import MeterKey, Stamp
from prefetch.state.models import repository_facts
from prefetch.state.rows import chunks, upsert_into
from prefetch.state.samples import add_sample

_SHORTEST_SAMPLE = 0.05
_HEADS_IN_SAMPLE = 5
_HEAD_SAMPLES = 8
_QUICK_SECONDS = 10.0
_QUICK_WEIGHT = 4
_COUNTED_SHARE = 0.9
_SAVE_FACTS = upsert_into(repository_facts)
_FACTS = select(
    repository_facts.c.repository, repository_facts.c.exempt, repository_facts.c.exempt_by
).where(
    repository_facts.c.registry == bindparam("registry"),
    repository_facts.c.identity == bindparam("identity"),
    repository_facts.c.repository.in_(bindparam("repositories", expanding=True)),
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """An observation and the moment at which it came."""

    stamp: Stamp
    observation: Observation
    at: float


def record_observation(books: Books, key: MeterKey, arrived: Arrived, *, heads: int = 0) -> None:
    """Keep an observation unless a later one is there; `heads` HEADs have been answered by now."""
    meter = books.meter(key)
    stamp, seen = arrived.stamp, arrived.observation
    changes: dict[str, int | float | None] = {"heads": meter.heads + heads}
    learned = _record_reading(books, meter.id, arrived, meter.heads + heads, meter.head_samples)
    if learned is not None:
        changes |= learned
        if meter.asked_sequence is None or stamp.sequence >= meter.asked_sequence:
            changes |= {"asked_sequence": stamp.sequence, "asked_at": arrived.at}
        overrules = meter.empty_sequence is not None and stamp.sequence >= meter.empty_sequence
        if overrules and seen.remaining is not None:
            changes["empty_sequence"] = None
    books.change_meter(meter, **changes)


def end_heads(
    books: Books,
    meter: int,
    answered: Sequence[tuple[Stamp, str | None]],
    arrived: Iterable[Arrived],
) -> None:
    """End HEADs that cost pulls: each with its stamp and the source that its answer named.

    A HEAD's own answer shows it. Where another that was asked for later takes that one's place, it
    may have been counted before: the next reading shows this HEAD.
    """
    if not answered:
        return
    newest = {reading.source: reading.sequence for reading in books.readings(meter)}
    for each in arrived:
        if each.observation.remaining is not None:
            source = each.observation.source or ""
            newest[source] = max(newest.get(source, 0), each.stamp.sequence)
    for stamp, payer in answered:
        stands = stamp.sequence >= newest.get(payer or "", 0)
        if stamp.spend is not None:
            books.end_spend(stamp.spend, payer, stamp.sequence if stands else None)


def record_silence(books: Books, key: MeterKey, stamp: Stamp, at: float) -> None:
    """A counted repository answered without a reading: asking again would tell nothing more."""
    meter = books.meter(key)
    if meter.asked_sequence is None or stamp.sequence >= meter.asked_sequence:
        books.change_meter(meter, asked_sequence=stamp.sequence, asked_at=at)


def _record_reading(
    books: Books, meter: int, arrived: Arrived, heads: int, samples: int
) -> dict[str, int | float | None] | None:
    """Write the source's new reading; returns what the meter learned about the cost of HEADs.

    None: a later reading is there, and this one has been dropped.
    """
    stamp, seen = arrived.stamp, arrived.observation
    source = seen.source or ""
    before = next((r for r in books.readings(meter) if r.source == source), None)
    if seen.remaining is None:
        if before is not None:
            books.save_reading(meter, _with_terms(before, seen))
        return {}
    if before is not None and not before.is_older_than(
        stamp.sequence, books.owner, stamp.counter, seen.remaining
    ):
        return None
    reading = _with_terms(before or _first(source), seen)
    used = max(0, (reading.limit or 0) - seen.remaining)
    reading = replace(
        reading,
        sequence=stamp.sequence,
        owner=books.owner,
        counter=stamp.counter,
        observed_at=arrived.at,
        remaining=seen.remaining,
        reset_at=None if seen.reset_seconds is None else arrived.at + seen.reset_seconds,
        falls=follow_usage(reading.falls, used, arrived.at, reading.window_seconds),
    )
    reading, learned = _measure(books, meter, reading, heads, samples)
    books.save_reading(meter, reading)
    return learned


def _first(source: str) -> Reading:
    return Reading(source, sequence=0, owner="", counter=0, observed_at=0.0, remaining=0)


def _with_terms(reading: Reading, seen: Observation) -> Reading:
    """The reading with the limit and window that the answer told, if it told them."""
    return replace(
        reading,
        limit=reading.limit if seen.limit is None else seen.limit,
        window_seconds=seen.window_seconds or reading.window_seconds,
    )


def _measure(
    books: Books, meter: int, reading: Reading, heads: int, samples: int
) -> tuple[Reading, dict[str, int | float | None]]:
    """Compare a clean reading (no spend of ours unseen by it) with the last clean one."""
    if books.unseen(meter, reading.source, reading.sequence):
        return replace(reading, head_remaining=None, head_count=None, head_at=None), {}
    clean = replace(
        reading,
        clean_sequence=reading.sequence,
        clean_at=reading.observed_at,
        clean_remaining=reading.remaining,
    )
    if (
        reading.clean_sequence is None
        or reading.clean_at is None
        or reading.clean_remaining is None
    ):
        return _from_here(clean, heads), {}
    seconds = reading.observed_at - reading.clean_at
    if 0 <= seconds < _SHORTEST_SAMPLE:
        return reading, {}
    gets, charged = books.absorbed(
        meter, reading.source, after=reading.clean_sequence, upto=reading.sequence
    )
    fall = reading.clean_remaining - reading.remaining
    foreign = fall - gets - charged
    if seconds > 0:
        since, at = reading.clean_at, reading.observed_at
        sample = Sample(since, at, fall, gets, charged, reading.remaining)
        add_sample(books.connection, meter, reading.source, sample)
    if seconds > 0 and foreign >= 0:
        burn = Burn(reading.burn_rate).sampled(foreign, seconds, reading.window_seconds)
        clean = replace(clean, burn_rate=burn.rate)
    refilled = reading.remaining > reading.clean_remaining
    return _compare_heads(clean, heads, samples, restart=bool(gets) or refilled)


def _from_here(reading: Reading, heads: int) -> Reading:
    """The reading as the one from which the cost of HEADs is measured next."""
    at = reading.observed_at
    return replace(reading, head_remaining=reading.remaining, head_count=heads, head_at=at)


def _compare_heads(
    reading: Reading, heads: int, samples: int, *, restart: bool
) -> tuple[Reading, dict[str, int | float | None]]:
    """Whether the meter falls with HEADs alone, as with proxies that turn them into GETs.

    Others who pull once for each of our looks would look the same: of HEADs that are far apart
    far more must have been seen, and the meter must have fallen by as many, not by more.
    """
    anew = _from_here(reading, heads)
    if restart or None in (reading.head_remaining, reading.head_count, reading.head_at):
        return anew, {}
    sent = heads - (reading.head_count or 0)
    if sent < _HEADS_IN_SAMPLE:
        return reading, {}
    fall = (reading.head_remaining or 0) - reading.remaining
    quick = reading.observed_at - (reading.head_at or 0.0) <= _QUICK_SECONDS * sent
    like_heads = fall >= _COUNTED_SHARE * sent and (quick or fall <= sent / _COUNTED_SHARE)
    samples = samples + (_QUICK_WEIGHT if quick else 1) if like_heads else 0
    return anew, {"head_samples": samples, "head_cost": int(samples >= _HEAD_SAMPLES)}


@dataclass(frozen=True, slots=True)
class Word:
    """What an answer told of a repository: whether it carried rate-limit headers."""

    repository: str
    method: str
    absent: bool
    stamp: Stamp
    at: float


def record_words(books: Books, key: MeterKey, words: Sequence[Word]) -> dict[str, bool]:
    """Keep which repositories are exempt; returns what is now known of each of them.

    A HEAD without headers does not outweigh a GET that had them: some proxies report on GET
    alone. Then the silence is the best that the registry gives, and counts as asked.
    """
    repositories = list({word.repository for word in words})
    known = exemptions(books, key, repositories)
    changed: set[str] = set()
    silent: Word | None = None
    for word in words:
        exempt, by = known.get(word.repository, (False, ""))
        if word.absent and word.method == "HEAD" and (exempt, by) == (False, "GET"):
            silent = word
        elif _is_news(word, exempt, by):
            known[word.repository] = (word.absent, word.method)
            changed.add(word.repository)
    if silent is not None:
        record_silence(books, key, silent.stamp, silent.at)
    if changed:
        rows = [
            {
                "registry": key.registry,
                "repository": repository,
                "identity": key.identity,
                "exempt": known[repository][0],
                "exempt_by": known[repository][1],
            }
            for repository in changed
        ]
        books.connection.execute(_SAVE_FACTS, rows)
    return {repository: known.get(repository, (False, ""))[0] for repository in repositories}


def _is_news(word: Word, exempt: bool, by: str) -> bool:
    """Whether the word changes what is known; a HEAD with headers, first heard, is the rule."""
    if not by:
        return word.absent or word.method == "GET"
    return word.absent != exempt or (word.method, by) == ("GET", "HEAD")


def exemptions(
    books: Books, key: MeterKey, repositories: Sequence[str]
) -> dict[str, tuple[bool, str]]:
    """For each known repository, whether it is exempt, and the method that told."""
    found: dict[str, tuple[bool, str]] = {}
    whose = {"registry": key.registry, "identity": key.identity}
    for chunk in chunks(repositories):
        rows = books.connection.execute(_FACTS, {**whose, "repositories": chunk})
        found |= {row.repository: (row.exempt, row.exempt_by) for row in rows}
    return found
