from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import tzlocal.unix
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.errors import UsageError
from prefetch.scheduler.crontab import Crontab
from prefetch.scheduler.ticks import Ahead, Ticks

LINES = [
    *("*/7 * * * *", "59 * * * *", "15 */5 * * *", "30 1 * * *", "5-50/15 4-6 * * *"),
    *("0 0 * * 0", "0 0 * * 7", "59/5 23 * * 5-7", "0 12 * * mon", "0 3 1 * mon", "0 0 13 * 5"),
    *("0 5 31 * *", "0 5 */2 * */2"),
]
# Clocks are set in each of them within a day or two of one of DAYS, at 1, 2 or 3 o'clock.
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]
DAYS = ["2026-03-08", "2026-03-29", "2026-04-04", "2026-10-03", "2026-10-25", "2026-11-01"]
ANYWHERE = (
    st.sampled_from(LINES),
    st.sampled_from(ZONES),
    st.sampled_from(DAYS),
    st.floats(-86400, 2 * 86400),
)


def by_the_minute(line: str, zone: str, moment: datetime) -> datetime:
    """The first tick after a moment, found by looking at the clock every minute."""
    crontab = Crontab.parse(line)
    tick = moment.astimezone(UTC).replace(second=0, microsecond=0)
    while True:
        tick += timedelta(minutes=1)
        local = tick.astimezone(ZoneInfo(zone))
        days = (local.day in crontab.days, local.isoweekday() % 7 in crontab.weekdays)
        if (
            local.minute in crontab.minutes
            and local.hour in crontab.hours
            and local.month in crontab.months
            and (any(days) if crontab.either_day else all(days))
        ):
            return tick


def put_forward(zone: str, tick: datetime) -> bool:
    """Whether the clock was put forward in the hours before."""
    now, before = (each.astimezone(ZoneInfo(zone)) for each in (tick, tick - timedelta(hours=3)))
    return (now.utcoffset() or timedelta()) > (before.utcoffset() or timedelta())


@settings(max_examples=150, deadline=None)
@given(*ANYWHERE)
def test_ticks_come_when_the_clock_on_the_wall_says_so(
    line: str, zone: str, day: str, seconds: float
) -> None:
    moment = datetime.fromisoformat(f"{day}T00:00:00+00:00") + timedelta(seconds=seconds)
    found = Ticks(line, zone).after(moment)
    expected = by_the_minute(line, zone, moment)
    # What the clock leaves out comes later on the same day, instead of not at all.
    assert found == expected or (moment < found < expected and put_forward(zone, found))


@settings(max_examples=100, deadline=None)
@given(*ANYWHERE, st.integers(1, 10 * 86400))
def test_so_long_ahead_of_each_tick_whatever_the_clock_on_the_wall_does(
    line: str, zone: str, day: str, seconds: float, lead: int
) -> None:
    moment = datetime.fromisoformat(f"{day}T00:00:00+00:00") + timedelta(seconds=seconds)
    ticks = Ticks(line, zone)
    found = Ahead(ticks, lead).after(moment.astimezone(ZoneInfo(zone)))
    assert found > moment
    by = found.astimezone(UTC) + timedelta(seconds=lead)
    assert ticks.after(by - timedelta(microseconds=1)) == by
    # None is passed over.
    assert ticks.after(moment + timedelta(seconds=lead)) == by


def test_a_tick_is_after_the_moment() -> None:
    ticks = Ticks("0 3 * * *", "UTC")
    at = datetime(2026, 5, 5, 3, tzinfo=UTC)
    assert ticks.after(at) == at + timedelta(days=1)
    assert ticks.after(at - timedelta(microseconds=1)) == at
    assert ticks.after(at + timedelta(seconds=59)) == at + timedelta(days=1)


def test_a_time_that_the_clock_leaves_out_comes_an_hour_later() -> None:
    ticks = Ticks("30 2 * * *", "Europe/Berlin")
    tick = ticks.after(datetime(2026, 3, 29, tzinfo=UTC))
    assert tick.astimezone(ZoneInfo("Europe/Berlin")).isoformat() == "2026-03-29T03:30:00+02:00"
    assert ticks.after(tick) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)


def test_one_that_comes_twice_comes_twice() -> None:
    ticks = Ticks("30 2 * * *", "Europe/Berlin")
    first = ticks.after(datetime(2026, 10, 24, 12, tzinfo=UTC))
    assert [first.hour, ticks.after(first).hour] == [0, 1]


def test_the_local_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tzlocal.unix, "_cache_tz", None)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    ticks = Ticks("0 3 * * *")
    assert ticks.timezone == "Asia/Kathmandu"
    assert ticks.after(datetime(2026, 5, 5, tzinfo=UTC)).hour == 21
    monkeypatch.setattr(tzlocal.unix, "_cache_tz", None)
    monkeypatch.setenv("TZ", "Nowhere/Land")
    with pytest.raises(UsageError, match="the local time zone cannot be told"):
        Ticks("0 3 * * *")
    # An entry that has its own does not need it.
    assert Ticks("0 3 * * *", "UTC").timezone == "UTC"
