"""What people see while a run goes on: a display on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import click

from prefetch.cli.news import news_of
from prefetch.cli.options import Globals
from prefetch.cli.text import local, plural, size, told
from prefetch.clock import Clock, SystemClock
from prefetch.events import (
    BlobFinished,
    Emit,
    Event,
    ImageFinished,
    PullSpent,
    PullsSpread,
    RunStarted,
    Slowed,
    Stream,
    ThrottleEvent,
    WaitStarted,
)

_LINE_EVERY_SECONDS = 30.0
_NEWS = timedelta(minutes=1)


@contextmanager
def progress(common: Globals, *, json: bool) -> Iterator[Emit]:
    """A listener for the run's events, for as long as the run goes on.

    A terminal on standard error gets a live display; a pipe gets a line now and then, and with
    JSON or --quiet nothing. Logging comes on top when it was asked for.
    """
    stream = Stream()
    with ExitStack() as stack:
        if common.level in ("debug", "info") or common.log_format == "json":
            from prefetch.cli.logs import EventLog

            stream.listeners.append(EventLog(common.level, common.log_format))
        elif sys.stderr.isatty() and not common.quiet:
            from prefetch.cli.display import Display

            stream.listeners.append(stack.enter_context(Display()))
        elif not json and not common.quiet:
            stream.listeners.append(PlainLines(SystemClock()))
        yield stream.emit


class PlainLines:
    """Lines on standard error: what is waited for, and how far the run is every half minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.monotonic()
        self._waiting: WaitStarted | None = None
        self._images = self._done = self._pulls = self._bytes = 0

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted(_, references):
                self._images = references
            case ImageFinished():
                self._done += 1
            case PullSpent():
                self._pulls += 1
            case BlobFinished(_, fetched):
                self._bytes += fetched
            case ThrottleEvent(registry, until):
                click.echo(f"{registry} throttles: waiting until {local(until)}", err=True)
            case Slowed() | PullsSpread():
                click.echo(told(event), err=True)
            case WaitStarted():
                self._wait(event)
            case _ if (line := news_of(event)) is not None:
                click.echo(line, err=True)
            case _:
                pass
        if self._clock.monotonic() - self._last >= _LINE_EVERY_SECONDS:
            self._last = self._clock.monotonic()
            self._say()

    def _say(self) -> None:
        click.echo(
            f"{self._done} of {plural(self._images, 'image')}, {plural(self._pulls, 'pull')}, "
            f"{size(self._bytes)} so far",
            err=True,
        )

    def _wait(self, event: WaitStarted) -> None:
        """Say it once; a forecast that moves by a moment is no news."""
        last = self._waiting
        if last and last.deferred == event.deferred and abs(event.until - last.until) < _NEWS:
            return
        self._waiting = event
        images = plural(event.deferred, "image")
        click.echo(f"waiting for budget: {images}, until about {local(event.until)}", err=True)
