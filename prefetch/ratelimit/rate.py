"""How fast requests may leave for a registry: a bucket, and what throttling has taught. Pure.

The bucket is the generic cell rate algorithm (ITU-T I.371, annex A): one number, the moment at
which it would be full again. The rate is raised additively and lowered multiplicatively (AIMD), as
TCP does it (RFC 5681), and raised only while it holds something up (RFC 7661).

Moments are monotonic seconds, `wall` is seconds since the epoch, rates are requests a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

BUCKET_SECONDS: Final = 0.25
"""Requests are counted by such stretches of time, each with a number."""

SLOWEST: Final = 1.0
"""No lesson leads below the lowest limit that a known registry documents (docs/registries.md)."""

FIRST_LESSON: Final = 10.0
"""The first lesson does not lead below this: one answer to a first request tells of no rate."""

_BURST_SECONDS: Final = 0.1
_JITTER: Final = 0.1
_HALF: Final = 0.5
# Sending at the rate for so long brings it back to where it was halved.
_RECOVERY_SECONDS: Final = 600.0
# Longer than a day, or what runs every night would meet the limit every night.
_REMEMBERED_SECONDS: Final = 7 * 86400.0
_COUNTED_BUCKETS: Final = 40
# Limits let what a second gives through at once (docs/registries.md, "Pace").
_AT_ONCE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """What throttling taught: the rate as it is now, and as it was when it was `learned` (a moment)
    and `told` (wall time)."""

    per_second: float
    first: float
    learned: float
    told: float

    def raised(self) -> Lesson:
        """After one more request that the rate had held up."""
        step = self.first / (_RECOVERY_SECONDS * self.per_second)
        return replace(self, per_second=self.per_second + step)


@dataclass(frozen=True, slots=True)
class Pace:
    """The requests to one registry, of all processes.

    `ready` is when the bucket would be full again; `sent` counts the requests of the last seconds
    by numbered stretches of time.
    """

    ready: float = 0.0
    sent: tuple[tuple[int, int], ...] = ()
    lesson: Lesson | None = None

    def in_force(self, ceiling: float | None, wall: float) -> float | None:
        """The rate that holds now: at most `ceiling`; None where nothing limits it."""
        lesson = self.lesson
        if lesson is None or abs(wall - lesson.told) > _REMEMBERED_SECONDS:
            return ceiling
        return lesson.per_second if ceiling is None else min(lesson.per_second, ceiling)

    def counted(self, more: Mapping[int, int], now: float) -> Pace:
        """With `more` requests in some stretches of time; those that are long past are dropped."""
        last = bucket(now)
        counts = dict(self.sent)
        for number, requests in more.items():
            counts[number] = counts.get(number, 0) + requests
        recent = {n: count for n, count in counts.items() if 0 <= last - n < _COUNTED_BUCKETS}
        return replace(self, sent=tuple(sorted(recent.items())))

    def sending(self, now: float) -> float:
        """The rate at which requests were sent of late: the fastest that led up to now.

        A limit of L a second that also lets L through at once is met after L + L * t requests in t
        seconds; what comes out here is then L, however fast they were sent.
        """
        fastest, total = 0.0, 0
        for number, count in reversed(self.sent):
            total += count
            seconds = max(now - number * BUCKET_SECONDS, 0.0)
            fastest = max(fastest, total / (seconds + _AT_ONCE_SECONDS))
        return fastest

    def taken(self, per_second: float, now: float, jitter: float) -> tuple[float, Pace]:
        """When the next request may leave, and the pace once it has its place.

        At most a tenth of a second's requests leave together. `jitter`, from 0 to 1, stretches the
        gap that follows by up to a tenth, so that several caches do not keep step.
        """
        gap = 1 / per_second
        burst = max(1.0, per_second * _BURST_SECONDS)
        leaves = max(now, self.ready - (burst - 1) * gap)
        ready = max(now, self.ready) + gap * (1 + _JITTER * jitter)
        lesson = self.lesson
        if lesson is not None and leaves > now and lesson.per_second <= per_second:
            lesson = lesson.raised()
        return leaves, replace(self, ready=ready, lesson=lesson)

    def taught(self, left: float, now: float, wall: float, ceiling: float | None) -> Pace:
        """After a request that left at `left` was throttled; the same where that is no news.

        Requests that had left before the last lesson do not teach again. The first lesson halves
        what was being sent, each later one the rate.
        """
        before = self.lesson
        if before is not None and left <= before.learned <= now:
            return self
        rate = self.in_force(ceiling, wall)
        if rate is None:
            half = max(self.sending(now) * _HALF, FIRST_LESSON)
        else:
            half = max(rate * _HALF, min(rate, SLOWEST))
        return replace(self, lesson=Lesson(half, half, now, wall))

    def encoded(self) -> str:
        """As text for `decode`."""
        lesson = self.lesson
        return json.dumps(
            {
                "ready": round(self.ready, 6),
                "sent": self.sent,
                "lesson": lesson and [lesson.per_second, lesson.first, lesson.learned, lesson.told],
            },
            separators=(",", ":"),
        )


def bucket(now: float) -> int:
    """The number of the stretch of time in which a moment lies."""
    return int(now / BUCKET_SECONDS)


def decode(text: str, *, latest: float) -> Pace:
    """What `encoded` made; what makes no sense is as if it had not been there.

    Moments come from before a reboot where `ready` is later than `latest`: nothing can stand in
    line for so long.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        ready = float(found["ready"])
        sent = tuple((int(number), int(count)) for number, count in found["sent"])
        lesson = Lesson(*map(float, found["lesson"])) if found["lesson"] else None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return Pace()
    if lesson is not None and not (lesson.per_second > 0 and lesson.first > 0):
        return Pace()
    return Pace(ready if ready <= latest else 0.0, sent, lesson)
