"""Observations that wait to be written: only the latest of each source matters.

Ten thousand HEADs in a burst become a handful of rows: a tenth of a second's answers are written
in one transaction, or with the next one that needs the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from prefetch.ratelimit.headers import Observation
from prefetch.state.books import Books
from prefetch.state.meters import MeterKey, Stamp
from prefetch.state.readings import (
    Arrived,
    Word,
    end_heads,
    record_observation,
    record_words,
)


@dataclass(slots=True)
class _Mail:
    """What came for one meter."""

    latest: dict[tuple[str, bool], Arrived] = field(default_factory=dict)
    words: dict[tuple[str, str], Word] = field(default_factory=dict)
    heads: list[tuple[int, str]] = field(default_factory=list)
    answered: list[tuple[Stamp, str | None]] = field(default_factory=list)

    def add(self, arrived: Arrived) -> None:
        source = arrived.observation.source or ""
        key = (source, arrived.observation.remaining is None)
        held = self.latest.get(key)
        if held is None or held.stamp < arrived.stamp:
            self.latest[key] = arrived


class Inbox:
    """Collects answers in memory; `deliver` writes them."""

    def __init__(self) -> None:
        self._mail: dict[MeterKey, _Mail] = {}
        # Words of headers that were there: taken in once, they would only be repeated.
        self._told: set[tuple[MeterKey, str, str]] = set()

    def __bool__(self) -> bool:
        return bool(self._mail)

    def add(
        self,
        key: MeterKey,
        stamp: Stamp,
        observation: Observation | None,
        *,
        repository: str,
        method: str,
        at: float,
    ) -> None:
        """Take in what an answer's headers said; None: they were absent."""
        mail = self._mail.setdefault(key, _Mail())
        word = Word(repository, method, observation is None, stamp, at)
        if word.absent:
            self._told -= {(key, repository, "HEAD"), (key, repository, "GET")}
        if (key, repository, method) not in self._told:
            mail.words[repository, method] = word
            if not word.absent:
                self._told.add((key, repository, method))
        if observation is not None:
            mail.add(Arrived(stamp, observation, at))
        if stamp.spend is not None:
            mail.answered.append((stamp, observation.source if observation else None))
        elif method == "HEAD" and observation is not None:
            mail.heads.append((stamp.sequence, repository))

    def take(self) -> Inbox:
        """All that has come so far, leaving this inbox empty."""
        taken = Inbox()
        taken._mail, self._mail = self._mail, {}
        return taken

    def put_back(self, undelivered: Inbox) -> None:
        """Keep what could not be written, unless something later has come."""
        for key, old in undelivered._mail.items():
            mail = self._mail.setdefault(key, _Mail())
            for arrived in old.latest.values():
                mail.add(arrived)
            mail.words = old.words | mail.words
            mail.heads = old.heads + mail.heads
            mail.answered = old.answered + mail.answered

    def deliver(self, books: Books) -> Iterator[tuple[MeterKey, str, bool]]:
        """Write everything; yields (meter, repository, exempt) for each repository heard of."""
        for key, mail in self._mail.items():
            meter = books.meter(key)
            if mail.heads and meter.head_cost:
                books.journal_heads(meter.id, mail.heads)
            end_heads(books, meter.id, mail.answered, mail.latest.values())
            heads = len(mail.heads) + len(mail.answered)
            for arrived in sorted(mail.latest.values(), key=lambda a: a.stamp):
                record_observation(books, key, arrived, heads=heads)
                heads = 0
            for repository, exempt in record_words(books, key, list(mail.words.values())).items():
                yield key, repository, exempt
