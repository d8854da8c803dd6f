"""Moments as people name them, in zones whose clocks change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.app.moments import Zone, parse_moment
from prefetch.errors import UsageError

BERLIN = Zone.of("Europe/Berlin")
# A Monday, 15:00 in Berlin.
NOW = datetime(2026, 11, 30, 14, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-01T02:00:00Z", "2026-12-01T02:00:00Z"),
        ("2026-12-01t02:00:00z", "2026-12-01T02:00:00Z"),
        ("2026-12-01T02:00:00+05:30", "2026-11-30T20:30:00Z"),
        ("2026-12-01T02:00:00.5Z", "2026-12-01T02:00:00.500000Z"),
        ("2026-12-01 02:00", "2026-12-01T01:00:00Z"),
        ("2026-12-01T02:00", "2026-12-01T01:00:00Z"),
        ("02:00", "2026-12-01T01:00:00Z"),
        ("2:00", "2026-12-01T01:00:00Z"),
        ("15:00", "2026-12-01T14:00:00Z"),
        ("15:00:01", "2026-11-30T14:00:01Z"),
        ("23:59:59", "2026-11-30T22:59:59Z"),
        ("today 16:00", "2026-11-30T15:00:00Z"),
        ("tomorrow 02:00", "2026-12-01T01:00:00Z"),
        ("Tomorrow  23:00", "2026-12-01T22:00:00Z"),
        ("sat 02:00", "2026-12-05T01:00:00Z"),
        ("Saturday 02:00", "2026-12-05T01:00:00Z"),
        ("mon 16:00", "2026-11-30T15:00:00Z"),
        ("mon 14:00", "2026-12-07T13:00:00Z"),
        ("in 6h", "2026-11-30T20:00:00Z"),
        ("in 1h30m", "2026-11-30T15:30:00Z"),
        ("in 1h 30m", "2026-11-30T15:30:00Z"),
        ("in 2d", "2026-12-02T14:00:00Z"),
        ("IN 90s", "2026-11-30T14:01:30Z"),
    ],
)
def test_moments(text: str, expected: str) -> None:
    assert parse_moment(text, NOW, BERLIN) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "soon",
            "25:00",
            "02:60",
            "2:0",
            "02",
            "in",
            "in 6 parsecs",
            "in -6h",
            "6h",
            "in 11y",
        ),
        *("su 02:00", "yesterday 02:00", "2026-13-01 02:00", "2026-12-01", "2026-12-01 24:30"),
        *("2026-12-01T02:00:00+99:00", "0001-01-01 00:00", "tomorrow", "02:00 CET", "in 99999d"),
    ],
)
def test_what_is_no_moment_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_moment(text, NOW, BERLIN)
    assert caught.value.exit_code == 2
    assert "--by" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["today 14:00", "2026-11-30 15:00", "2026-11-30T14:00:00Z", "in 0s"]
)
def test_what_has_passed_is_refused_and_shown_with_its_zone(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"2026-11-30 1[45]:00:00 Europe/Berlin \(\+01:00\)"
    ) as caught:
        parse_moment(text, NOW, BERLIN)
    assert "has passed" in str(caught.value)


@pytest.mark.parametrize(
    ("now", "text", "expected"),
    [
        # On 29 March 2026 clocks go from 02:00 to 03:00.
        ("2026-03-28T12:00:00Z", "tomorrow 02:30", "2026-03-29T01:30:00Z"),
        ("2026-03-28T12:00:00Z", "2026-03-29 02:00", "2026-03-29T01:00:00Z"),
        ("2026-03-28T12:00:00Z", "2026-03-29 03:00", "2026-03-29T01:00:00Z"),
        # On 25 October 2026 they go from 03:00 back to 02:00: 02:30 comes twice.
        ("2026-10-24T12:00:00Z", "tomorrow 02:30", "2026-10-25T00:30:00Z"),
        ("2026-10-25T00:45:00Z", "02:30", "2026-10-25T01:30:00Z"),
        ("2026-10-25T00:45:00Z", "2026-10-25 02:30", "2026-10-25T01:30:00Z"),
        ("2026-10-25T01:45:00Z", "02:30", "2026-10-26T01:30:00Z"),
        # A day of 25 hours is a day all the same.
        ("2026-10-24T01:00:00Z", "tomorrow 03:00", "2026-10-25T02:00:00Z"),
        ("2026-10-24T01:00:00Z", "in 24h", "2026-10-25T01:00:00Z"),
    ],
)
def test_clock_changes(now: str, text: str, expected: str) -> None:
    found = parse_moment(text, datetime.fromisoformat(now), BERLIN)
    assert found == datetime.fromisoformat(expected)


def test_no_moment_that_is_shown_lies_before_the_one_that_is_meant() -> None:
    now = NOW.replace(microsecond=250_000)
    assert parse_moment("in 6h", now, BERLIN) == datetime(2026, 11, 30, 20, 0, 1, tzinfo=UTC)


def test_it_is_shown_back_with_its_zone() -> None:
    summer = datetime(2026, 7, 4, 0, 0, tzinfo=UTC)
    assert BERLIN.shown(summer) == "2026-07-04 02:00:00 Europe/Berlin (+02:00)"
    assert Zone.of("UTC").shown(NOW) == "2026-11-30 14:00:00 UTC (+00:00)"
    assert Zone.of("Asia/Kathmandu").shown(NOW) == "2026-11-30 19:45:00 Asia/Kathmandu (+05:45)"


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield Zone.of(None)
    time.tzset()


def test_the_local_zone(new_york: Zone) -> None:
    assert parse_moment("02:00", NOW, new_york) == datetime(2026, 12, 1, 7, 0, tzinfo=UTC)
    assert new_york.shown(NOW) == "2026-11-30 09:00:00 EST (-05:00)"
    # On 8 March 2026 clocks go from 02:00 to 03:00; on 1 November from 02:00 back to 01:00.
    march = datetime(2026, 3, 8, 0, 0, tzinfo=UTC)
    assert parse_moment("2026-03-08 02:30", march, new_york) == datetime(
        2026, 3, 8, 7, 30, tzinfo=UTC
    )
    november = datetime(2026, 11, 1, 5, 45, tzinfo=UTC)
    assert parse_moment("01:30", november, new_york) == datetime(2026, 11, 1, 6, 30, tzinfo=UTC)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "CEST"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--timezone"):
        Zone.of(name)


@given(
    st.integers(1_577_836_800, 2_208_988_800).map(lambda at: datetime.fromtimestamp(at, UTC)),
    st.times().map(lambda t: t.replace(microsecond=0)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
)
def test_a_time_of_day_is_to_come_and_within_a_day_and_an_hour(
    now: datetime, at: object, name: str
) -> None:
    zone = Zone.of(name)
    found = parse_moment(f"{at:%H:%M:%S}", now, zone)
    assert 0 < (found - now).total_seconds() <= 25 * 3600
