"""What transfers tell of themselves, as counts and in the log."""

from __future__ import annotations

from prefetch.events import (
    AlternateDropped,
    AlternateRested,
    BlobFinished,
    BlobStarted,
    Emit,
    Event,
    PullSpent,
)
from prefetch.server.accesslog import ServerLog
from prefetch.server.metrics import Metrics


def counting(metrics: Metrics, log: ServerLog) -> Emit:
    """A listener that counts what is fetched from upstreams, and tells of alternates that fail."""

    def listen(event: Event) -> None:
        match event:
            case BlobStarted():
                metrics.blobs(1)
            case BlobFinished():
                metrics.blobs(-1)
                metrics.received(event.fetched)
                metrics.fetch("blob", "ok" if event.ok else "failed")
            case PullSpent():
                metrics.fetch("manifest", "ok")
            case AlternateDropped() | AlternateRested():
                warn_of_alternate(log, event)

    return listen


def warn_of_alternate(
    log: ServerLog, event: AlternateDropped | AlternateRested, **facts: object
) -> None:
    """A line about an alternate that lies, or is left alone; `facts` go before its own."""
    match event:
        case AlternateDropped(alternate, repository, reason):
            log.warning(
                "alternate dropped",
                **facts,
                alternate=alternate,
                repository=repository,
                reason=reason,
            )
        case AlternateRested(alternate, reason, until):
            log.warning("alternate rests", **facts, alternate=alternate, until=until, reason=reason)
