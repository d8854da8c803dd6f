"""Timetables and their charts; what a forecast rests on, in words."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefetch.cli.chart import chart, is_plain
from prefetch.oci.platform import Platform
from prefetch.oci.reference import Reference
from prefetch.ratelimit.budget import Fall
from prefetch.ratelimit.learning import Learned, MeterModel, Refill
from prefetch.ratelimit.supply import Outlook, Stock
from prefetch.sync.forecast import forecast_document, forecast_words
from prefetch.sync.horizon import Timetable
from prefetch.sync.wanted import Action, PlannedImage, Wanted

NOW = datetime(2026, 11, 30, 14, 0, 0, tzinfo=UTC)
AMD64 = (Platform.parse("linux/amd64"),)


def image(
    name: str, at: float | None, pulls: int = 3, action: Action = Action.DEFER
) -> PlannedImage:
    wanted = Wanted(Reference.parse(name), AMD64)
    start = None if at is None else NOW + timedelta(hours=at)
    return PlannedImage(wanted, pulls_min=1, pulls_max=pulls, action=action, start_at=start)


def week() -> list[PlannedImage]:
    return [
        *(image(f"docker.io/team/app{n}", 6 * (n // 20)) for n in range(200)),
        *(image(f"quay.io/team/app{n}", 0, 2, Action.SYNC) for n in range(3)),
        image("docker.io/team/far", 200),
        image("docker.io/team/never", None),
        image("docker.io/team/here", None, 0, Action.NONE),
        image("docker.io/team/gone", None, 0, Action.MISSING),
    ]


def test_a_timetable_has_each_moment_of_each_registry_and_the_sums() -> None:
    timetable = Timetable.of(week(), NOW + timedelta(days=7))
    assert (timetable.later, timetable.never, len(timetable.slots)) == (1, 1, 11)
    first, second, third = timetable.slots[:3]
    assert first.document() == {
        "at": "2026-11-30T14:00:00Z",
        "registry": "docker.io",
        "images": 20,
        "pulls": 60,
        "images_so_far": 20,
        "pulls_so_far": 60,
    }
    assert (second.registry, second.pulls, second.pulls_so_far) == ("quay.io", 6, 6)
    assert (third.images_so_far, third.pulls_so_far) == (40, 120)
    assert sum(slot.images for slot in timetable.slots) == 203


def test_a_chart_is_80_columns_of_bars() -> None:
    drawn = chart(Timetable.of(week(), NOW + timedelta(days=7)), width=80, ascii_only=False)
    lines = drawn.splitlines()
    assert max(map(len, lines)) == 80
    assert lines[0].startswith("docker.io: 200 images, 600 pulls, the last at ")
    bars = [line for line in lines if "█" in line]
    assert len(bars) == 11
    assert lines[-2:] == [
        f"1 image later than {(NOW + timedelta(days=7)).astimezone():%Y-%m-%d %H:%M:%S}",
        "1 image never: others spend all that comes back",
    ]
    assert bars[9].split()[-3:] == ["60", "20", "600"]


def test_in_ascii_it_is_ascii() -> None:
    drawn = chart(Timetable.of(week(), NOW + timedelta(days=7)), width=80, ascii_only=True)
    assert drawn.isascii()
    assert "###" in drawn


def test_bars_are_as_long_as_their_share() -> None:
    images = [image("docker.io/team/a", 0, 80), image("docker.io/team/b", 1, 20)]
    images.append(image("docker.io/team/c", 2, 1))
    lines = chart(Timetable.of(images, NOW + timedelta(days=1)), width=80, ascii_only=True)
    long, short, tiny = (line.count("#") for line in lines.splitlines()[2:])
    assert short == pytest.approx(long / 4, abs=1)
    assert tiny == 1


def test_nothing_to_do_is_said() -> None:
    assert "nothing has to be fetched until" in chart(Timetable.of([], NOW), ascii_only=True)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 2000), st.integers(0, 300), st.sampled_from(["quay.io", "docker.io"])
        ),
        max_size=60,
    ),
    st.integers(72, 200),
    st.booleans(),
)
def test_any_timetable_fits_and_loses_nothing(
    starts: list[tuple[float, int, str]], width: int, plain: bool
) -> None:
    images = [
        image(f"{registry}/team/app{n}", hours, pulls)
        for n, (hours, pulls, registry) in enumerate(starts)
    ]
    timetable = Timetable.of(images, NOW + timedelta(days=365))
    lines = chart(timetable, width=width, ascii_only=plain).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 2 * (28 + 2) + 1
    rows = [line.split() for line in lines if line.startswith("  ") and "START" not in line]
    assert sum(int(row[-2]) for row in rows) == len(images)
    assert sum(int(row[-3]) for row in rows) == sum(pulls for _, pulls, _ in starts)


@pytest.mark.parametrize(
    ("encoding", "variable", "value", "plain"),
    [
        ("utf-8", "NO_COLOR", "", False),
        ("UTF-8", "TERM", "xterm", False),
        ("utf-8", "NO_COLOR", "1", True),
        ("utf-8", "TERM", "dumb", True),
        ("ascii", "TERM", "xterm", True),
        ("iso-8859-1", "TERM", "xterm", True),
    ],
)
def test_when_ascii_is_safer(
    monkeypatch: pytest.MonkeyPatch, encoding: str, variable: str, value: str, plain: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert is_plain() is plain


def outlook(refill: Refill, *falls: Fall, reset_at: float | None = None) -> Outlook:
    at = NOW.timestamp()
    model = MeterModel(
        100,
        Learned(21600.0, 1.0),
        refill,
        0.87 if refill is not Refill.UNKNOWN else 0.0,
        get_cost=Learned(0.5, 0.97),
        burn=Learned(12.0, 0.6),
        burn_low=8.0,
        burn_high=20.0,
        windows=3.0,
    )
    return Outlook(at, ((Stock(at, 60, 100, 20, falls, reset_at), model),))


def test_what_a_forecast_rests_on() -> None:
    at = NOW.timestamp()
    falls = (Fall(at - 7200, 10), Fall(at - 3600, 10))
    assert forecast_document(outlook(Refill.AT_ONCE, *falls)) == {
        "window_seconds": 21600.0,
        "window_confidence": 1.0,
        "refill": "at_once",
        "refill_confidence": 0.87,
        "get_cost": 0.5,
        "get_cost_confidence": 0.97,
        "burn_per_window": 12.0,
        "burn_low": 8.0,
        "burn_high": 20.0,
        "burn_confidence": 0.6,
        "windows_watched": 3.0,
        "full_at": "2026-11-30T18:00:00Z",
    }
    assert forecast_words(outlook(Refill.AT_ONCE)) == (
        "100 pulls in 6 h, all back at once (87 % sure); a GET costs 0.5 (97 % sure); "
        "others spend 12 in a window (60 % sure)"
    )


@pytest.mark.parametrize(
    ("refill", "reset", "full"),
    [
        (Refill.ROLLING, None, "2026-11-30T19:00:00Z"),
        (Refill.UNKNOWN, None, "2026-11-30T19:00:00Z"),
        (Refill.AT_ONCE, 60.0, "2026-11-30T14:01:00Z"),
    ],
)
def test_when_it_is_full_again(refill: Refill, reset: float | None, full: str) -> None:
    at = NOW.timestamp()
    falls = (Fall(at - 7200, 10), Fall(at - 3600, 10))
    found = outlook(refill, *falls, reset_at=None if reset is None else at + reset)
    document = forecast_document(found)
    assert document is not None
    assert document["full_at"] == full
    full_one = forecast_document(outlook(refill))
    assert full_one is not None
    assert full_one["full_at"] is None


def test_without_a_limit_there_is_no_forecast() -> None:
    assert forecast_document(None) is forecast_document(Outlook(0.0)) is None
    assert forecast_words(Outlook(0.0)) is None
