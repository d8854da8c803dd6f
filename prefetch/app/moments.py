"""Moments as people name them: `02:00`, `tomorrow 02:00`, `sat 02:00`, `in 6h`, RFC 3339."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from prefetch.clock import whole_second
from prefetch.config.values import duration
from prefetch.errors import UsageError

_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}))?"
_NAMED = re.compile(rf"(?:(?P<day>[a-z]+)\s+)?{_CLOCK}", re.IGNORECASE)
_IN = re.compile(r"in\s+(?P<duration>\S.*)", re.IGNORECASE)
_DATED = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?", re.IGNORECASE
)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORTEST_DAY = 3
_WEEK = 7
_EXAMPLES = (
    "write 02:00, tomorrow 02:00, sat 02:00, in 6h, 2026-12-05 02:00 or 2026-12-05T02:00:00Z"
)


@dataclass(frozen=True, slots=True)
class Zone:
    """A time zone: an IANA name, or None for the process's local one."""

    name: str | None = None

    @classmethod
    def of(cls, name: str | None) -> Zone:
        """Raises UsageError for a name that is not known."""
        if name is not None:
            try:
                ZoneInfo(name)
            except (LookupError, ValueError, OSError):
                raise UsageError(
                    f"--timezone: {name!a} is not known", hint="write Europe/Berlin or UTC"
                ) from None
        return cls(name)

    def local(self, moment: datetime) -> datetime:
        """The moment as the zone's clocks show it."""
        return moment.astimezone(None if self.name is None else ZoneInfo(self.name))

    def utc(self, day: date, at: time, *, fold: int = 0) -> datetime:
        """When the zone's clocks show that; what they leave out comes as much later as they were
        put forward. Of what comes twice, `fold` 1 is the second."""
        naive = datetime.combine(day, at, tzinfo=None).replace(fold=fold)
        if self.name is None:
            return datetime.fromtimestamp(naive.timestamp(), UTC)
        return naive.replace(tzinfo=ZoneInfo(self.name)).astimezone(UTC)

    def shown(self, moment: datetime) -> str:
        """`2026-12-05 02:00:00 CET (+01:00)`."""
        local = self.local(moment)
        offset = local.strftime("%z")
        return f"{local:%Y-%m-%d %H:%M:%S} {self.label(moment)} ({offset[:3]}:{offset[3:5]})"

    def label(self, moment: datetime) -> str:
        """The zone's name: the IANA one, or what the local clocks are called then."""
        return self.name or self.local(moment).tzname() or "local time"


def parse_moment(text: str, now: datetime, zone: Zone, *, option: str = "--by") -> datetime:
    """The moment in UTC; a time of day is the next such time. Raises UsageError, also for what has
    passed."""
    words = " ".join(text.split())
    try:
        moment = _parsed(words, now, zone)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{option}: {text!a}: {error}", hint=_EXAMPLES) from None
    if moment <= now:
        raise UsageError(
            f"{option}: {zone.shown(moment)} has passed (it is {zone.shown(now)})",
            hint="name a time to come",
        )
    return moment


def _parsed(words: str, now: datetime, zone: Zone) -> datetime:
    if found := _IN.fullmatch(words):
        moment = now + timedelta(seconds=duration(found["duration"].replace(" ", "")))
        # Moments are shown to the second: none that is shown is to lie before this one.
        return whole_second(moment)
    if _DATED.fullmatch(words):
        moment = datetime.fromisoformat(words.upper().replace(" ", "T"))
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
        return _to_come(moment.date(), moment.time(), now, zone)
    if found := _NAMED.fullmatch(words):
        at = time(int(found["hour"]), int(found["minute"]), int(found["second"] or 0))
        return _next(found["day"], at, now, zone)
    raise ValueError("this is no time")


def _next(day: str | None, at: time, now: datetime, zone: Zone) -> datetime:
    """The next such time of day; on `day`, if one is named."""
    today = zone.local(now).date()
    if day is None:
        moment = _to_come(today, at, now, zone)
        return moment if moment > now else _to_come(today + timedelta(1), at, now, zone)
    match day.lower():
        case "today":
            return _to_come(today, at, now, zone)
        case "tomorrow":
            return _to_come(today + timedelta(1), at, now, zone)
    ahead = timedelta((_weekday(day) - today.weekday()) % _WEEK)
    moment = _to_come(today + ahead, at, now, zone)
    return moment if moment > now else _to_come(today + ahead + timedelta(_WEEK), at, now, zone)


def _weekday(word: str) -> int:
    for number, name in enumerate(_WEEKDAYS):
        if len(word) >= _SHORTEST_DAY and name.startswith(word.lower()):
            return number
    raise ValueError(f"{word!a} is no day")


def _to_come(day: date, at: time, now: datetime, zone: Zone) -> datetime:
    """Of a time that comes twice the first, unless only the second is to come."""
    first, second = (zone.utc(day, at, fold=fold) for fold in (0, 1))
    # Where clocks are put forward the two differ, too, the second being the earlier one.
    return second if first <= now < second else first
