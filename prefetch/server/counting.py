"""What transfers tell of themselves, as counts."""

from __future__ import annotations

from prefetch.events import BlobFinished, BlobStarted, Emit, Event, PullSpent
from prefetch.server.metrics import Metrics


def counting(metrics: Metrics) -> Emit:
    """A listener that counts what is fetched from upstreams."""

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

    return listen
