"""Two kinds of 429: the pull limit, which empties a meter, and throttling, which passes.

Docker Hub answers the first with code TOOMANYREQUESTS and "You have reached your pull rate limit"
(docs.docker.com, "Docker Hub pull usage and limits"), the second, its abuse limit, with bare text.
Other registries throttle with the same code and another message (distribution-spec, "Error
codes").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from prefetch.ratelimit.headers import parse_observation, parse_retry_after

TooMany = Literal["pull-limit", "throttle"]

FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 300.0

_MAX_BODY = 64 * 1024
_PULL_LIMIT = re.compile(
    rb"pulls?[ -](?:rate[ -])?limit|limit for (?:image )?pulls|increase-rate-limit"
    rb"|data limit exceeded",
    re.IGNORECASE,
)
_EITHER = re.compile(rb"toomanyrequests", re.IGNORECASE)
_BODY_RETRY_AFTER = re.compile(r"retry-after:\s*([0-9.a-z\u00b5\u03bc]{1,64})", re.IGNORECASE)
# A meter's reading is the same at any time; only resets given as moments need one.
_ANY_TIME = datetime.fromtimestamp(0, UTC)


def classify_429(body: bytes, headers: Mapping[str, str]) -> TooMany:
    """Which 429 it was: the body is asked first, then the headers.

    A body that speaks of pulls means the pull limit, any other text throttling. With no body (as
    after a HEAD), or with no more than the code that registries use for both, a meter that reads
    zero means the pull limit.
    """
    text = body[:_MAX_BODY].strip()
    if _PULL_LIMIT.search(text):
        return "pull-limit"
    if text and not _EITHER.search(text):
        return "throttle"
    observation = parse_observation(headers, _ANY_TIME)
    empty = observation is not None and observation.remaining == 0
    return "pull-limit" if empty else "throttle"


def retry_after(body: bytes, headers: Mapping[str, str], now: datetime) -> float | None:
    """How many seconds a 429 or 503 asks to wait: Retry-After, else what GHCR's body says."""
    for name, value in headers.items():
        if name.lower() in ("retry-after", "x-retry-after"):
            seconds = parse_retry_after(value, now)
            if seconds is not None:
                return seconds
    match = _BODY_RETRY_AFTER.search(body[:_MAX_BODY].decode("utf-8", "replace"))
    return parse_retry_after(match[1], now) if match else None


def backoff(step: int, jitter: float) -> float:
    """Seconds to wait after the throttling number `step` (from 0) in a row, nobody having said.

    1 s doubling to 5 min; `jitter`, from 0 to 1, adds up to a quarter, so that processes which
    were throttled together do not come back together.
    """
    seconds = min(FIRST_BACKOFF * 2.0 ** min(max(step, 0), 32), LONGEST_BACKOFF)
    return seconds * (1 + jitter / 4)
