"""When the ticks of a crontab line come, in a time zone.

APScheduler's trigger does the arithmetic of calendars and clock changes. What its fields mean
otherwise than crontab's (0 is Monday, both days must match, a step must fit its range) is settled
before it sees them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
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

    def after(self, moment: datetime) -> datetime:
        """The first tick after `moment` (aware), in UTC."""
        found = [each.get_next_fire_time(None, moment + _A_MOMENT) for each in self._triggers]
        comes: datetime = min(tick.astimezone(UTC) for tick in found if tick is not None)
        return comes


def _listed(values: set[int] | frozenset[int], size: int) -> str:
    """The values as APScheduler reads them."""
    return _ALL if len(values) == size else ",".join(map(str, sorted(values)))
