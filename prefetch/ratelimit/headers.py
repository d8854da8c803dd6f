"""Rate-limit headers into observations.

Grammars: Docker Hub's `ratelimit-limit: 100;w=21600` (docs.docker.com, "Docker Hub pull usage and
limits"); the IETF's RateLimit-Limit, -Remaining, -Reset (draft-ietf-httpapi-ratelimit-headers up
to -06), its combined `limit=100, remaining=50, reset=5` (-07) and its lists `"default";r=50;t=30`
with RateLimit-Policy (-08 and later); GitLab's, whose Reset is a Unix time. Retry-After: RFC 9110,
section 10.2.3, and what registries make of it.

Nothing here raises: a header that makes no sense is one that says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_PULLS = 1_000_000_000
MAX_WINDOW = 366 * 86400
MAX_RETRY_AFTER = 86400.0

_MAX_LENGTH = 1024
_EPOCH = 1_000_000_000
_NAMES = frozenset(
    {
        "ratelimit",
        "ratelimit-policy",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "docker-ratelimit-source",
    }
)
_NUMBER = re.compile(r"\d{1,15}", re.ASCII)
_DECIMAL = re.compile(r"\d{1,15}(?:\.\d{0,9})?", re.ASCII)
_SOURCE = re.compile(r"[!-~]{1,128}")
_ITEM = re.compile(r'(?:[^,"]|"[^"]*")+')
_PARAMETER = re.compile(r'\s*([a-z]{1,16})\s*=\s*"?([^;"\s]*)"?\s*', re.ASCII | re.IGNORECASE)
_GO_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "\u03bcs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_GO_PART = re.compile("(\\d{1,15}(?:\\.\\d{0,15})?)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Observation:
    """A meter's reading from one answer's headers.

    `remaining` is None when the registry sent its headers blank: unknown, not zero.
    `window_seconds` is the length of the window, `reset_seconds` how long until pulls come back,
    `source` what the registry says that it counts by (an address, an account).
    """

    limit: int | None
    remaining: int | None
    window_seconds: int | None
    source: str | None = None
    reset_seconds: float | None = None


def parse_observation(headers: Mapping[str, str], now: datetime) -> Observation | None:
    """The reading that an answer's headers carry; None when they carry none at all.

    `now` turns a reset that is given as a moment into seconds. Names match in any case.
    """
    found: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        if key in _NAMES:
            # A list-valued field may come in several lines (RFC 9110, section 5.3).
            found[key] = f"{found[key]}, {value}" if key in found else value
    source = found.pop("docker-ratelimit-source", "").strip()
    if not found:
        return None
    found = {key: value if len(value) <= _MAX_LENGTH else "" for key, value in found.items()}
    reading = _combined(found) or _separate(found, now)
    return Observation(
        limit=reading.limit,
        remaining=reading.remaining,
        window_seconds=reading.window_seconds,
        source=source if _SOURCE.fullmatch(source) else None,
        reset_seconds=reading.reset_seconds,
    )


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Seconds to wait, from 0 to a day; None when the value makes no sense.

    Takes seconds, an HTTP date, a Unix time (from 1e9 up) and a Go duration (`1m30s`).
    """
    text = value.strip()
    if not text or len(text) > _MAX_LENGTH:
        return None
    if _DECIMAL.fullmatch(text):
        return _delay(float(text), now)
    seconds = _go_duration(text)
    if seconds is None:
        seconds = _date(text, now)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _combined(found: Mapping[str, str]) -> Observation | None:
    """Draft -07 and later: one RateLimit field, of which the tightest item counts."""
    field = found.get("ratelimit", "")
    old = dict(_parameters(field.replace(",", ";")))
    if "remaining" in old and "r" not in old:
        window = next((_window(p.get("w")) for _, p in _items(found, "ratelimit-policy")), None)
        return Observation(
            _pulls(old.get("limit")), _pulls(old["remaining"]), window, None, _reset(old, "reset")
        )
    policies = dict(_items(found, "ratelimit-policy"))
    tightest: Observation | None = None
    for name, parameters in _items(found, "ratelimit"):
        remaining = _pulls(parameters.get("r"))
        if remaining is None:
            continue
        if tightest is None or remaining < (tightest.remaining or 0):
            policy = policies.get(name, {})
            tightest = Observation(
                _pulls(policy.get("q")),
                remaining,
                _window(policy.get("w")),
                None,
                _reset(parameters, "t"),
            )
    return tightest


def _separate(found: Mapping[str, str], now: datetime) -> Observation:
    """Docker Hub, GitLab and the drafts up to -06: a field each."""
    limit, window = _quota(found.get("ratelimit-limit", ""))
    remaining, same_window = _quota(found.get("ratelimit-remaining", ""))
    reset = found.get("ratelimit-reset", "").strip()
    return Observation(
        limit=limit,
        remaining=remaining,
        window_seconds=window if window is not None else same_window,
        reset_seconds=_delay(float(reset), now, MAX_WINDOW) if _DECIMAL.fullmatch(reset) else None,
    )


def _quota(text: str) -> tuple[int | None, int | None]:
    """`100;w=21600`, `100`, `;w=21600` or `100, 100;w=60`: the number and its window."""
    number: int | None = None
    for position, item in enumerate(_ITEM.findall(text)):
        head, _, rest = item.partition(";")
        if position == 0:
            number = _pulls(head)
        window = _window(dict(_parameters(rest)).get("w"))
        if window is not None and (position == 0 or _pulls(head) == number):
            return number, window
    return number, None


def _items(found: Mapping[str, str], field: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The members of a structured list: the name and its parameters."""
    for item in _ITEM.findall(found.get(field, "")):
        name, _, rest = item.partition(";")
        yield name.strip().strip('"'), dict(_parameters(rest))


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split(";"):
        match = _PARAMETER.fullmatch(part)
        if match:
            yield match[1].lower(), match[2]


def _pulls(text: str | None) -> int | None:
    return _bounded(text, MAX_PULLS)


def _window(text: str | None) -> int | None:
    return _bounded(text, MAX_WINDOW) or None


def _bounded(text: str | None, largest: int) -> int | None:
    stripped = (text or "").strip()
    if not _NUMBER.fullmatch(stripped):
        return None
    value = int(stripped)
    return value if value <= largest else None


def _reset(parameters: Mapping[str, str], name: str) -> float | None:
    seconds = _bounded(parameters.get(name), MAX_WINDOW)
    return None if seconds is None else float(seconds)


def _delay(number: float, now: datetime, longest: float = MAX_RETRY_AFTER) -> float:
    """Seconds, also when the number is a Unix time."""
    seconds = number - now.timestamp() if number >= _EPOCH else number
    return min(max(seconds, 0.0), longest)


def _go_duration(text: str) -> float | None:
    parts = _GO_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _GO_UNITS[unit] for number, unit in parts)


def _date(text: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
