"""Events that a person is told of in a line, whatever the display."""

from __future__ import annotations

from prefetch.cli.text import local, plural, short_digest
from prefetch.events import (
    DeadlineMissed,
    Event,
    ImmutableTagMoved,
    NoticeFailed,
    Remark,
    ReserveThreatened,
)


def news_of(event: Event) -> str | None:
    """The line; None for all other events."""
    match event:
        case Remark(text):
            return text
        case DeadlineMissed(by, images, reason):
            return f"{plural(len(images), 'image')} will not be warm by {local(by)}: {reason}"
        case ReserveThreatened():
            return (
                f"{event.registry} ({event.identity}): others pull "
                f"{event.foreign_burn_per_hour:.0f} an hour, and will reach the reserve at about "
                f"{local(event.used_up_at)}"
            )
        case ImmutableTagMoved(reference, recorded, found, kept):
            stays = "; it stays what it was here" if kept else ""
            return (
                f"{reference} is called immutable, and has moved from {short_digest(recorded)} "
                f"to {short_digest(found)}{stays}"
            )
        case NoticeFailed():
            then = "it is given up" if event.given_up else "it is tried again"
            return f"{event.hook} has not taken a notice ({event.notice}): {event.reason}; {then}"
        case _:
            return None
