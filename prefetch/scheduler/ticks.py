"""When the ticks of an entry come: by a crontab line in a time zone, or every so often.

APScheduler's trigger does the arithmetic of calendars and clock changes. What its fields mean
otherwise than crontab's (0 is Monday, both days must match, a step must fit its range) is settled
before it sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from prefetch.errors import UsageError
from prefetch.scheduler.crontab import Crontab

_ALL = "*"
_WEEK = 7
_A_MOMENT = timedelta(microseconds=1)


class Ticks:
    """The ticks of a crontab line; `timezone` is an IANA name, None the process's local zone.

    A time that a clock change leaves out comes as much later as the clock was put forward. Raises
    ValueError for what is no crontab, UsageError when the local zone cannot be told.
    """

    def __init__(self, cron: str, timezone: str | None = None) -> None:
        # Imported here, since it costs start-up some 30 ms.
        from apscheduler.triggers.cron import CronTrigger  # type: ignore[import-untyped]

        self.cron = cron
        crontab = Crontab.parse(cron)
        zone: Any = None if timezone is None else ZoneInfo(timezone)
        fields = {
            "minute": _listed(crontab.minutes, 60),
            "hour": _listed(crontab.hours, 24),
            "month": _listed(crontab.months, 12),
        }
        days = {"day": _listed(crontab.days, 31)}
        # APScheduler's week begins on Monday.
        week = {"day_of_week": _listed({(day - 1) % _WEEK for day in crontab.weekdays}, _WEEK)}
        kinds = [days, week] if crontab.either_day else [days | week]
        try:
            self._triggers = [CronTrigger(**fields, **kind, timezone=zone) for kind in kinds]
        except (LookupError, ValueError, OSError) as error:
            raise UsageError(
                f"the local time zone cannot be told: {error}", hint="set TZ, or `timezone`"
            ) from None

    @property
    def timezone(self) -> str:
        """The zone's name, `Europe/Berlin`."""
        return str(self._triggers[0].timezone)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ticks) and self.document() == other.document()

    def __hash__(self) -> int:
        return hash((self.cron, self.timezone))

    def document(self) -> dict[str, object]:
        """What `schedule --list -o json` says of it."""
        return {"cron": self.cron, "every": None, "timezone": self.timezone}

    def after(self, moment: datetime, began: datetime | None = None) -> datetime:
        """The first tick after `moment` (aware), in UTC, whenever the last run began."""
        del began
        found = [each.get_next_fire_time(None, moment + _A_MOMENT) for each in self._triggers]
        comes: datetime = min(tick.astimezone(UTC) for tick in found if tick is not None)
        return comes


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many seconds, counted from when the last run began."""

    seconds: float

    def document(self) -> dict[str, object]:
        """What `schedule --list -o json` says of it."""
        return {"cron": None, "every": self.seconds, "timezone": None}

    def after(self, moment: datetime, began: datetime | None = None) -> datetime:
        """The first tick after `moment`; None: nobody knows when a run began, so it is due then."""
        if began is None:
            return moment
        step = timedelta(seconds=self.seconds)
        # Differences within one zone are those of its wall clock.
        began = began.astimezone(UTC)
        return began + step * max(1, (moment - began) // step + 1)


@dataclass(frozen=True, slots=True)
class Ahead:
    """So many seconds ahead of each tick: of a moment that something is to be done by."""

    ticks: Ticks
    seconds: float

    def document(self) -> dict[str, object]:
        """What `schedule --list -o json` says of it."""
        return {"cron": None, "every": None, "timezone": self.ticks.timezone}

    def after(self, moment: datetime, began: datetime | None = None) -> datetime:
        """The first moment after that one, in UTC, whenever the last run began."""
        lead = timedelta(seconds=self.seconds)
        # Differences within one zone are those of its wall clock.
        return self.ticks.after(moment.astimezone(UTC) + lead, began) - lead


Times: TypeAlias = Ticks | Interval | Ahead
"""When an entry comes."""


def _listed(values: set[int] | frozenset[int], size: int) -> str:
    """The values as APScheduler reads them."""
    return _ALL if len(values) == size else ",".join(map(str, sorted(values)))
