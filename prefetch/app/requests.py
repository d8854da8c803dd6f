"""What a command asks of the application, in plain values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prefetch.errors import UsageError

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(d|h|m|s|ms)?)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the settings and the data are; None: the defaults."""

    config: Path | None = None
    data_dir: Path | None = None
    reserve: str | None = None


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """Which images: sources (files or `-`), references by name, platforms (none: the default)."""

    place: Place
    sources: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """A sync; `timeout` in seconds bounds the waiting for budget."""

    source: SourceRequest
    wait: bool = False
    timeout: float | None = None


def seconds(text: str) -> float:
    """`90s`, `6h`, `1d`, `200ms`, or a number of seconds. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!a} is not a duration", hint="write it like 90s, 15m or 6h")
    return float(match[1]) * _SECONDS[match[2] or "s"]
