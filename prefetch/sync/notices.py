"""Events of a run into notices: what people should hear of who are not looking.

A notice is one JSON document, whose shape is the contract in docs/contract.md: `id`, `event`,
`at`, `run_id`, `entry`, `registry`, `text` (one plain sentence) and `facts`, by event. What lasts
is told once, and again when it has ended and come back, or after a while.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from prefetch.clock import Clock, rfc3339, rfc3339_due
from prefetch.events import (
    DeadlineMissed,
    Event,
    ImageFinished,
    ImmutableTagMoved,
    ReserveThreatened,
    RunFinished,
    RunStarted,
    ThrottleEvent,
)
from prefetch.oci.reference import Reference
from prefetch.remote.faults import sanitise
from prefetch.state.outbox import Condition
from prefetch.sync.hooks import TEST_EVENT
from prefetch.sync.wanted import Outcome

JSON = dict[str, Any]

_MOST_NAMED: Final = 20
_LONGEST_TEXT: Final = 500
# The same again, if it lasts: a failure or a deferral, a registry that throttles.
_REMIND: Final = timedelta(hours=6)
_THROTTLE_PAUSE: Final = timedelta(minutes=15)
_REMEMBERED: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Notice:
    """One document, and the condition that it is about, which is told once while it lasts."""

    event: str
    at: datetime
    text: str
    facts: Mapping[str, Any]
    run_id: str | None = None
    entry: str | None = None
    registry: str | None = None
    condition: Condition | None = None
    # No point: the id is signed in `id.timestamp.body`.
    id: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")

    def body(self) -> str:
        """The document as it goes out."""
        document = {
            "id": self.id,
            "event": self.event,
            "at": rfc3339(self.at),
            "run_id": self.run_id,
            "entry": self.entry,
            "registry": self.registry,
            "text": sanitise(self.text, _LONGEST_TEXT),
            "facts": self.facts,
        }
        return json.dumps(document, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Ended:
    """These events, if they were told of, are over for a subject."""

    subject: str
    events: tuple[str, ...]


def test_notice(at: datetime) -> Notice:
    """What `prefetch notify --test` sends."""
    return Notice(TEST_EVENT, at, "This is a test notice of prefetch.", {})


class Composer:
    """A listener that makes notices out of events, and hands them to `send`.

    `entry` is the entry of the schedule whose run it listens to, None for any other run.
    """

    def __init__(
        self, send: Callable[[Notice | Ended], None], clock: Clock, entry: str | None = None
    ) -> None:
        self._send = send
        self._clock = clock
        self._entry = entry
        self._run_id: str | None = None
        self._images: dict[str, ImageFinished] = {}

    def listen(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted(run_id):
                self._run_id = run_id
                self._images = {}
            case ImageFinished() if self._run_id is not None:
                self._images[event.reference] = event
            case RunFinished():
                self._run(event)
            case ThrottleEvent():
                self._throttle(event)
            case ReserveThreatened():
                self._threat(event)
            case ImmutableTagMoved():
                self._moved(event)
            case DeadlineMissed():
                self._missed(event)

    def _tell(
        self,
        event: str,
        text: str,
        facts: Mapping[str, Any],
        condition: Condition,
        registry: str | None = None,
    ) -> None:
        self._send(
            Notice(
                event,
                self._clock.now(),
                text,
                facts,
                self._run_id,
                self._entry,
                registry,
                condition,
            )
        )

    def _run(self, run: RunFinished) -> None:
        self._run_id = run.run_id
        subject = f"entry {self._entry}" if self._entry else f"images {_short_hash(self._images)}"
        match run.outcome:
            case "failed":
                self._failed(run, subject)
            case "deferred":
                self._send(Ended(subject, ("run_failed",)))
                self._deferred(run, subject)
            case "complete":
                self._send(Ended(subject, ("run_failed", "run_deferred")))

    def _failed(self, run: RunFinished, subject: str) -> None:
        failed = self._of(Outcome.FAILED)
        detail = _short_hash([*(image.reference for image in failed), run.message or ""])
        until = self._clock.now() + _REMIND
        self._tell(
            "run_failed",
            f"{self._whose()} failed: {_why_failed(run, failed, len(self._images))}.",
            self._run_facts(run, failed),
            Condition("run_failed", subject, detail, until),
        )

    def _deferred(self, run: RunFinished, subject: str) -> None:
        waiting = self._of(Outcome.DEFERRED)
        facts = self._run_facts(run, waiting)
        until = f", the first until about {facts['retry_at']}" if facts["retry_at"] else ""
        count = f"{len(waiting)} of {_plural(len(self._images), 'image')}"
        self._tell(
            "run_deferred",
            f"{self._whose()} has put off {count} for want of budget{until}.",
            facts,
            Condition("run_deferred", subject, "", self._clock.now() + _REMIND),
        )

    def _whose(self) -> str:
        return f"The scheduled sync {self._entry}" if self._entry else "A sync"

    def _of(self, outcome: Outcome) -> list[ImageFinished]:
        return [image for image in self._images.values() if image.outcome == str(outcome)]

    def _run_facts(self, run: RunFinished, named: Sequence[ImageFinished]) -> JSON:
        everything = self._images.values()
        counts = Counter(image.outcome for image in everything)
        retries = [image.retry_at for image in everything if image.retry_at is not None]
        return {
            "outcome": run.outcome,
            "totals": {
                "images": len(self._images),
                **{str(outcome): counts[str(outcome)] for outcome in Outcome},
                "pulls": sum(image.pulls for image in everything),
                "bytes_fetched": sum(image.bytes_fetched for image in everything),
            },
            "images": [
                {"reference": image.reference, "message": sanitise(image.message or "") or None}
                for image in named[:_MOST_NAMED]
            ],
            "errors": run.errors,
            "message": sanitise(run.message or "") or None,
            "retry_at": rfc3339_due(min(retries)) if retries else None,
        }

    def _throttle(self, event: ThrottleEvent) -> None:
        until = rfc3339_due(event.until)
        self._tell(
            "registry_throttled",
            f"{event.registry} throttles: no request is sent to it before {until}.",
            {"until": until},
            Condition(
                "registry_throttled",
                event.registry,
                until=self._clock.now() + _THROTTLE_PAUSE,
            ),
            event.registry,
        )

    def _threat(self, event: ReserveThreatened) -> None:
        used_up_at = rfc3339(event.used_up_at)
        self._tell(
            "reserve_threatened",
            f"Others pull from {event.registry} as {event.identity} at "
            f"{event.foreign_burn_per_hour:.0f} an hour: the {event.available} pulls above the "
            f"reserve of {event.reserve} will be used up at about {used_up_at}.",
            {
                "identity": event.identity,
                "limit": event.limit,
                "remaining": event.remaining,
                "reserve": event.reserve,
                "available": event.available,
                "foreign_burn_per_hour": event.foreign_burn_per_hour,
                "window_seconds": event.window_seconds,
                "used_up_at": used_up_at,
            },
            threat_of(event.registry, event.identity),
            event.registry,
        )

    def _moved(self, event: ImmutableTagMoved) -> None:
        then = "the cache stays at the first" if event.kept else "the cache follows"
        self._tell(
            "immutable_tag_moved",
            f"The immutable tag {event.reference} has moved from {event.recorded} to "
            f"{event.found}; {then}.",
            {
                "reference": event.reference,
                "recorded": event.recorded,
                "found": event.found,
                "kept": event.kept,
            },
            Condition(
                "immutable_tag_moved",
                event.reference,
                event.found,
                self._clock.now() + _REMEMBERED,
            ),
            Reference.parse(event.reference).repository.registry,
        )

    def _missed(self, event: DeadlineMissed) -> None:
        by, count = rfc3339(event.by), len(event.images)
        what = _plural(count, "image") if count else f"The scheduled sync {self._entry}"
        self._tell(
            "deadline_missed",
            f"{what} will not be warm by {by}: {event.reason}.",
            {
                "by": by,
                "images": list(event.images[:_MOST_NAMED]),
                "count": count,
                "reason": event.reason,
            },
            Condition(
                "deadline_missed",
                f"entry {self._entry}" if self._entry else f"images {_short_hash(event.images)}",
                by,
                max(event.by, self._clock.now()) + _REMIND,
            ),
        )


def threat_of(registry: str, identity: str) -> Condition:
    """That others threaten a meter's reserve: told once, until it is cleared."""
    return Condition("reserve_threatened", f"{registry} {identity}")


def _why_failed(run: RunFinished, failed: Sequence[ImageFinished], images: int) -> str:
    if run.message:
        return run.message.rstrip(".")
    parts = []
    if failed:
        first = failed[0]
        words = (first.message or first.reference).removeprefix(f"{first.reference}: ")
        parts.append(f"{len(failed)} of {_plural(images, 'image')}, {first.reference}: {words}")
    if run.errors:
        entries = "entry" if run.errors == 1 else "entries"
        parts.append(f"{run.errors} {entries} of its sources cannot be used")
    return "; ".join(parts).rstrip(".")


def _short_hash(words: Iterable[str]) -> str:
    return sha256("\n".join(sorted(words)).encode()).hexdigest()[:16]


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
