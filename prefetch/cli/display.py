"""The live display: images done, budget, current blobs, what waits and until when."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prefetch.cli.news import news_of
from prefetch.cli.text import local, plural, short_digest, size, told
from prefetch.events import (
    BlobFinished,
    BlobProgress,
    BlobStarted,
    BudgetChanged,
    Event,
    ImageFinished,
    PlanReady,
    PullSpent,
    PullsSpread,
    ReferenceResolved,
    RunStarted,
    Slowed,
    ThrottleEvent,
    WaitStarted,
)

_MAX_BLOBS = 6
_BAR_WIDTH = 24


@dataclass(slots=True)
class _Blob:
    total: int
    offset: int
    began: float
    first: int


@dataclass(slots=True)
class _Totals:
    images: int = 0
    resolved: int = 0
    done: int = 0
    deferred: int = 0
    failed: int = 0
    pulls: int = 0
    fetched: int = 0


@dataclass(slots=True)
class _Shown:
    """All that is on the screen."""

    totals: _Totals = field(default_factory=_Totals)
    planned: bool = False
    budgets: dict[tuple[str, str], BudgetChanged] = field(default_factory=dict)
    blobs: dict[str, _Blob] = field(default_factory=dict)
    waiting: WaitStarted | None = None
    spread: dict[tuple[str, str], PullsSpread] = field(default_factory=dict)
    throttled: dict[str, datetime] = field(default_factory=dict)


class Display:
    """A listener that keeps a few lines at the bottom of the terminal up to date."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._shown = _Shown()
        self._live = Live(
            get_renderable=self.render,
            console=self._console,
            refresh_per_second=8,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case BlobStarted() | BlobProgress() | BlobFinished():
                self._blob(event)
            case BudgetChanged() | WaitStarted() | ThrottleEvent() | PullSpent():
                self._budget(event)
            case PullsSpread(registry, identity):
                self._shown.spread[registry, identity] = event
            case Slowed():
                self._console.print(told(event), highlight=False, markup=False)
            case _ if (line := news_of(event)) is not None:
                self._console.print(line, highlight=False, markup=False)
            case _:
                self._image(event)

    def _image(self, event: Event) -> None:
        totals = self._shown.totals
        match event:
            case RunStarted(_, references):
                totals.images = references
            case ReferenceResolved():
                totals.resolved += 1
            case PlanReady():
                self._shown.planned = True
            case ImageFinished(_, outcome):
                totals.done += 1
                totals.deferred += outcome == "deferred"
                totals.failed += outcome == "failed"

    def _blob(self, event: BlobStarted | BlobProgress | BlobFinished) -> None:
        blobs = self._shown.blobs
        match event:
            case BlobStarted(digest, total, offset):
                blobs[digest] = _Blob(total, offset, time.monotonic(), offset)
            case BlobProgress(digest, offset) if digest in blobs:
                blobs[digest].offset = offset
            case BlobFinished(digest, fetched):
                blobs.pop(digest, None)
                self._shown.totals.fetched += fetched

    def _budget(self, event: BudgetChanged | WaitStarted | ThrottleEvent | PullSpent) -> None:
        shown = self._shown
        match event:
            case BudgetChanged(registry, identity):
                shown.budgets[registry, identity] = event
            case WaitStarted():
                shown.waiting = event
            case ThrottleEvent(registry, until):
                shown.throttled[registry] = until
            case PullSpent():
                shown.totals.pulls += 1
                shown.waiting = None

    def render(self) -> RenderableType:
        """The lines as they are now."""
        shown = self._shown
        lines: list[RenderableType] = [self._images_line()] if shown.totals.images else []
        lines += [Text(_budget_line(budget)) for budget in shown.budgets.values()]
        lines += [
            _blob_line(digest, blob) for digest, blob in list(shown.blobs.items())[:_MAX_BLOBS]
        ]
        if len(shown.blobs) > _MAX_BLOBS:
            lines.append(Text(f"  and {len(shown.blobs) - _MAX_BLOBS} more blobs", style="dim"))
        lines += [Text(told(each), style="dim") for each in shown.spread.values()]
        now = datetime.now().astimezone()
        for registry, until in shown.throttled.items():
            if until > now:
                lines.append(Text(f"{registry} throttles until {local(until)}", style="yellow"))
        if shown.waiting is not None:
            wait = plural(shown.waiting.deferred, "image")
            text = f"out of budget: {wait} waiting until about {local(shown.waiting.until)}"
            lines.append(Text(text, style="yellow"))
        return Group(*lines)

    def _images_line(self) -> RenderableType:
        totals, planned = self._shown.totals, self._shown.planned
        count = totals.done if planned else totals.resolved
        word = "Images" if planned else "Resolving"
        parts = [f"{count}/{totals.images}", plural(totals.pulls, "pull"), size(totals.fetched)]
        parts += [f"{totals.deferred} deferred"] if totals.deferred else []
        parts += [f"{totals.failed} failed"] if totals.failed else []
        return _row(word, count, totals.images, "  ".join(parts))


def _row(word: str, done: int, total: int, text: str) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=21, no_wrap=True)
    row.add_column(width=_BAR_WIDTH)
    row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_row(word, ProgressBar(max(total, 1), min(done, total), width=_BAR_WIDTH), text)
    return row


def _blob_line(digest: str, blob: _Blob) -> RenderableType:
    seconds = max(time.monotonic() - blob.began, 1e-3)
    rate = size(int((blob.offset - blob.first) / seconds))
    text = f"{size(blob.offset)} of {size(blob.total)}  {rate}/s"
    return _row(f"  {short_digest(digest)}", blob.offset, blob.total, text)


def _budget_line(budget: BudgetChanged) -> str:
    name = f"{budget.registry} ({budget.identity})"
    if budget.limit is None:
        return f"{name}: no limit reported"
    return f"{name}: {budget.remaining} of {budget.limit} pulls left, reserve {budget.reserve}"
