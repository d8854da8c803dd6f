"""Events as structured log lines on standard error."""

from __future__ import annotations

import logging
import sys
from dataclasses import fields
from typing import Any

import structlog

from prefetch.clock import rfc3339
from prefetch.events import (
    BlobProgress,
    BlobStarted,
    DeadlineMissed,
    Event,
    ImmutableTagMoved,
    NoticeFailed,
    ReferenceResolved,
    Remark,
    ReserveThreatened,
    Slowed,
    ThrottleEvent,
)

_DEBUG = (BlobProgress, BlobStarted, ReferenceResolved)
_WARNING = (
    ThrottleEvent,
    Slowed,
    Remark,
    DeadlineMissed,
    ImmutableTagMoved,
    ReserveThreatened,
    NoticeFailed,
)


class EventLog:
    """Logs each event under its class's name, with its fields as keys."""

    def __init__(self, level: str, form: str) -> None:
        renderer: Any = structlog.processors.JSONRenderer()
        if form == "text":
            renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        self._log = structlog.wrap_logger(
            structlog.PrintLogger(sys.stderr),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(
                logging.getLevelName(level.upper())
            ),
        )

    def __call__(self, event: Event) -> None:
        """Log one event."""
        log = self._log.info
        if isinstance(event, _DEBUG):
            log = self._log.debug
        elif isinstance(event, _WARNING):
            log = self._log.warning
        log(_words(type(event).__name__), **_facts(event))


def _words(name: str) -> str:
    """`ImageFinished` as `image finished`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _facts(event: Event) -> dict[str, Any]:
    facts = {field.name: getattr(event, field.name) for field in fields(event)}
    return {
        key: rfc3339(value) if hasattr(value, "astimezone") else value
        for key, value in facts.items()
        if value is not None
    }
