"""Which 429 it was, and how long to wait after one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from prefetch.ratelimit.throttle import LONGEST_BACKOFF, backoff, classify_429, retry_after

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HUB = (
    b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit. '
    b"You may increase the limit by authenticating and upgrading: "
    b'https://www.docker.com/increase-rate-limit"}]}'
)
BARE = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"too many"}]}'
ZERO = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}
SOME = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "7;w=21600"}


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (HUB, {}, "pull-limit"),
        (HUB, SOME, "pull-limit"),
        (b"You have reached your unauthenticated pull rate limit.", {}, "pull-limit"),
        (b"Data limit exceeded", {}, "pull-limit"),
        (b"Too Many Requests (HAP429)", {"Retry-After": "60"}, "throttle"),
        (b"Too Many Requests (HAP429)", ZERO, "throttle"),
        (b"toomanyrequests: retry-after: 880.092\xc2\xb5s, allowed: 44000/minute", {}, "throttle"),
        (b"Rate exceeded", {}, "throttle"),
        (BARE, {}, "throttle"),
        (BARE, SOME, "throttle"),
        (BARE, ZERO, "pull-limit"),
        (b"", ZERO, "pull-limit"),
        (b"", SOME, "throttle"),
        (b"", {}, "throttle"),
        (b"\xff" * 100_000, {}, "throttle"),
    ],
)
def test_which_429(body: bytes, headers: dict[str, str], expected: str) -> None:
    assert classify_429(body, headers) == expected


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        (b"", {"retry-after": "7"}, 7.0),
        (b"", {"X-Retry-After": "1767323105"}, 60.0),
        (b"toomanyrequests: retry-after: 1.5s, allowed: 44000/minute", {}, 1.5),
        (b"retry-after: 9s", {"Retry-After": "3"}, 3.0),
        (b"retry-after: 9s", {"Retry-After": "soon"}, 9.0),
        (b"nothing", {}, None),
    ],
)
def test_how_long_to_wait(body: bytes, headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(body, headers, NOW) == seconds


def test_backoff_doubles_to_its_longest() -> None:
    assert [backoff(step, 0.0) for step in range(4)] == [1.0, 2.0, 4.0, 8.0]
    assert backoff(10_000, 0.0) == LONGEST_BACKOFF
    assert backoff(3, 1.0) == 10.0
