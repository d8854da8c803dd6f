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
    AlternateDropped,
    BlobFinished,
    Emit,
    Event,
    ImageFinished,
    NoticeFailed,
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

    A terminal on standard error gets a live display; a pipe gets a line now and then, with JSON
    only news, and with --quiet only what went wrong. Logging takes the place of all that when it
    was asked for.
    """
    stream = Stream()
    with ExitStack() as stack:
        if common.level in ("debug", "info") or common.log_format == "json":
            from prefetch.cli.logs import EventLog

            stream.listeners.append(EventLog(common.level, common.log_format))
        elif sys.stderr.isatty() and not common.quiet:
            from prefetch.cli.display import Display

            stream.listeners.append(stack.enter_context(Display()))
        elif common.quiet:
            stream.listeners.append(_trouble)
        elif json:
            stream.listeners.append(_news)
        else:
            stream.listeners.append(PlainLines(SystemClock()))
        yield stream.emit


def _news(event: Event) -> None:
    if (line := news_of(event)) is not None:
        click.echo(line, err=True)


def _trouble(event: Event) -> None:
    """What the result does not tell of: an alternate that lies, a notice that nobody will get."""
    given_up = isinstance(event, NoticeFailed) and event.given_up
    if given_up or isinstance(event, AlternateDropped):
        _news(event)


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
            case PullSpent(alternate=False):
                self._pulls += 1
            case BlobFinished(_, fetched):
                self._bytes += fetched
            case ThrottleEvent(registry, until):
                click.echo(f"{registry} throttles: waiting until {local(until)}", err=True)
            case Slowed() | PullsSpread():
                click.echo(told(event), err=True)
            case WaitStarted():
                self._wait(event)
            case _:
                _news(event)
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
