"""Rate-limit headers and Retry-After, in every form that registries send."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefetch.ratelimit.headers import (
    MAX_PULLS,
    MAX_RETRY_AFTER,
    MAX_WINDOW,
    Observation,
    parse_observation,
    parse_retry_after,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {
                "ratelimit-limit": "100;w=21600",
                "ratelimit-remaining": "20;w=21600",
                "docker-ratelimit-source": "203.0.113.7",
            },
            Observation(100, 20, 21600, "203.0.113.7"),
        ),
        (
            {"RateLimit-Limit": "100;w=21600", "RATELIMIT-REMAINING": "0;w=21600"},
            Observation(100, 0, 21600),
        ),
        (
            {"ratelimit-limit": ";w=21600", "ratelimit-remaining": ";w=21600"},
            Observation(None, None, 21600),
        ),
        ({"ratelimit-remaining": ""}, Observation(None, None, None)),
        (
            {
                "RateLimit-Limit": "10, 10;w=1, 50;w=60",
                "RateLimit-Remaining": "9",
                "RateLimit-Reset": "7",
            },
            Observation(10, 9, 1, reset_seconds=7.0),
        ),
        (
            {
                "RateLimit-Limit": "60",
                "RateLimit-Remaining": "0",
                "RateLimit-Reset": str(EPOCH + 33),
            },
            Observation(60, 0, None, reset_seconds=33.0),
        ),
        (
            {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=60"},
            Observation(100, 50, 60, reset_seconds=5.0),
        ),
        (
            {"RateLimit-Policy": '"default";q=100;w=60', "RateLimit": '"default";r=50;t=30'},
            Observation(100, 50, 60, reset_seconds=30.0),
        ),
        (
            {
                "RateLimit-Policy": '"burst";q=100;w=60,"daily";q=1000;w=86400',
                "RateLimit": '"burst";r=70;t=30, "daily";r=3;t=900',
            },
            Observation(1000, 3, 86400, reset_seconds=900.0),
        ),
        ({"RateLimit": '"a,b";r=4'}, Observation(None, 4, None)),
        ({"ratelimit-remaining": "-1"}, Observation(None, None, None)),
        ({"ratelimit-remaining": "nan"}, Observation(None, None, None)),
        ({"ratelimit-remaining": "9" * 400}, Observation(None, None, None)),
        ({"ratelimit-remaining": "5" + " " * 5000}, Observation(None, None, None)),
        ({"ratelimit-remaining": "\u0663"}, Observation(None, None, None)),
        (
            {"ratelimit-remaining": "5", "docker-ratelimit-source": "evil\x1b[2J"},
            Observation(None, 5, None, None),
        ),
    ],
)
def test_readings(headers: dict[str, str], expected: Observation) -> None:
    assert parse_observation(headers, NOW) == expected


@pytest.mark.parametrize(
    "headers", [{}, {"content-type": "text/html"}, {"docker-ratelimit-source": "203.0.113.7"}]
)
def test_absent_is_not_zero(headers: dict[str, str]) -> None:
    assert parse_observation(headers, NOW) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("60", 60.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Fri, 02 Jan 2026 03:03:05 GMT", 0.0),
        (str(EPOCH + 120), 120.0),
        ("880.092\u00b5s", 880.092e-6),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("250ms", 0.25),
        ("999999999", MAX_RETRY_AFTER),
        ("9999999999999", MAX_RETRY_AFTER),
        ("100000h", MAX_RETRY_AFTER),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert parse_retry_after(value, NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", ["", "soon", "-5", "nan", "inf", "1e400", "9" * 5000, "1m junk", "Fri, 99 Jan"]
)
def test_retry_after_that_makes_no_sense(value: str) -> None:
    assert parse_retry_after(value, NOW) is None


NAMES = st.sampled_from(
    [
        "RateLimit",
        "RateLimit-Policy",
        "ratelimit-limit",
        "ratelimit-remaining",
        "RateLimit-Reset",
        "docker-ratelimit-source",
        "X-Other",
    ]
)
PIECES = st.sampled_from(
    [
        "100",
        ";w=",
        ";r=",
        ";t=",
        ";q=",
        '"',
        "a",
        ",",
        " ",
        "=",
        "limit=",
        "remaining=",
        "-1",
        "1e9",
    ]
)
VALUES = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join))


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, VALUES), VALUES)
def test_nothing_hostile_raises_or_exceeds_bounds(headers: dict[str, str], value: str) -> None:
    seen = parse_observation(headers, NOW)
    if seen is not None:
        assert seen.limit is None or 0 <= seen.limit <= MAX_PULLS
        assert seen.remaining is None or 0 <= seen.remaining <= MAX_PULLS
        assert seen.window_seconds is None or 0 < seen.window_seconds <= MAX_WINDOW
        assert seen.reset_seconds is None or 0 <= seen.reset_seconds <= MAX_WINDOW
        assert seen.source is None or seen.source.isprintable()
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER
