"""Prints reports: JSON for scripts, short lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from prefetch.cli.text import local, plural, size, table, terminal_width, told
from prefetch.clock import rfc3339_due
from prefetch.errors import SourceError
from prefetch.ratelimit.supply import Outlook
from prefetch.state.ledger import Budget
from prefetch.sync.deadlinereport import moment_of
from prefetch.sync.forecast import forecast_words, full_at
from prefetch.sync.report import PlanReport, SyncReport
from prefetch.sync.wanted import Action, ImageResult, Outcome, PlannedImage, Problem

if TYPE_CHECKING:
    from prefetch.sync.horizon import Timetable

_MARKS = {
    Outcome.SYNCED: ("synced", "green"),
    Outcome.UNCHANGED: ("unchanged", None),
    Outcome.DEFERRED: ("deferred", "yellow"),
    Outcome.FAILED: ("failed", "red"),
    Outcome.ABSENT: ("absent", "yellow"),
}


def print_json(document: Any) -> None:
    """One document on standard output."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_sync(report: SyncReport, *, output: str, quiet: bool, verbose: bool = False) -> None:
    """What a sync did; images that have not changed are counted, and listed when `verbose`."""
    if report.busy and not quiet:
        click.echo("this sync is being run already: nothing was started, try again later", err=True)
    if output == "json":
        print_json(report.document())
        print_source_errors(report.errors)
        return
    shown = _TROUBLE if quiet else (*_TROUBLE, Outcome.SYNCED, Outcome.ABSENT)
    for result in report.results:
        if result.outcome in shown or verbose:
            _print_result(result)
    print_source_errors(report.errors)
    if not quiet and not report.busy:
        for event in report.dropped:
            click.echo(f"{click.style('dropped  ', fg='red')} {event.text}")
        click.echo(_summary(report))
        for each in report.spread:
            click.echo(told(each))
        print_budgets_line(report.budgets)


_TROUBLE = (Outcome.FAILED, Outcome.DEFERRED)


def _print_result(result: ImageResult) -> None:
    word, colour = _MARKS[result.outcome]
    click.echo(f"{click.style(word.ljust(9), fg=colour)} {result.reference}{_details(result)}")
    if result.problem is not None and result.retry_at is None:
        click.echo(f"          {less_name(result.reference, result.problem)}")
    if result.platforms_missing:
        click.echo(f"          lacks {', '.join(result.platforms_missing)}")


def less_name(name: str, problem: Problem) -> str:
    """The problem's words, less the image's name, which stands before them."""
    return problem.message.removeprefix(f"{name}: ")


def _details(result: ImageResult) -> str:
    if result.outcome is Outcome.SYNCED:
        others = [each for each in result.fetched_from if each != result.registry]
        source = f" from {', '.join(result.fetched_from)}" if others else ""
        spent = plural(result.pulls, "pull")
        return f"  ({spent}, {size(result.bytes_fetched)} fetched{source})"
    if result.outcome is Outcome.DEFERRED and result.retry_at is not None:
        return f"  until about {local(result.retry_at)}"
    return ""


def _summary(report: SyncReport) -> str:
    counts = [
        click.style(f"{report.count(outcome)} {word}", fg=colour)
        for outcome, (word, colour) in _MARKS.items()
        if report.count(outcome)
    ]
    pulls = sum(result.pulls for result in report.results)
    fetched = sum(result.bytes_fetched for result in report.results)
    return (
        f"{plural(len(report.results), 'image')}: {', '.join(counts) or 'nothing to do'}; "
        f"{plural(pulls, 'pull')}, {size(fetched)} in {report.seconds:.1f} s"
    )


def print_budgets_line(budgets: Sequence[Budget]) -> None:
    """One line for each meter that reports a limit."""
    for budget in budgets:
        if budget.limit is not None:
            click.echo(
                f"{budget.meter.registry} ({budget.meter.identity}): "
                f"{budget.remaining} of {budget.limit} pulls left, reserve {budget.reserve}"
            )


def print_forecasts(meters: Iterable[tuple[Budget, Outlook | None]]) -> None:
    """What each meter's forecast rests on, folded to the terminal's width."""
    for budget, outlook in meters:
        words = forecast_words(outlook)
        if words is None or outlook is None:
            continue
        full = full_at(*outlook.limits[0])
        when = "full" if full is None else f"full again at {local(moment_of(full))}"
        text = f"{budget.meter.registry} ({budget.meter.identity}): {words}; {when}"
        click.echo(click.wrap_text(text, terminal_width(), subsequent_indent="  "))


def print_source_errors(errors: Iterable[SourceError]) -> None:
    """Bad entries, as `file:line: what is wrong`, on standard error."""
    for error in errors:
        click.echo(str(error), err=True)


def print_plan(
    report: PlanReport, *, output: str, quiet: bool, timetable: Timetable | None = None
) -> None:
    """What a sync would do and cost; and when, with a timetable."""
    if output == "json":
        print_json(_with_timetable(report.document(), timetable))
        print_source_errors(report.errors)
        return
    images = [i for i in report.images if not quiet or i.action not in (Action.NONE, Action.SYNC)]
    if images:
        asked = any(str(image.wanted.demand) for image in images)
        header = ("REFERENCE", "ACTION", "PULLS ", "BYTES ", "START", *(["FOR"] if asked else []))
        click.echo(table(header, [_plan_row(image, asked=asked) for image in images]))
    for image in report.images:
        if image.problem is not None:
            click.echo(f"{image.wanted.name}: {less_name(image.wanted.name, image.problem)}")
    print_source_errors(report.errors)
    if not quiet:
        click.echo(_plan_summary(report))
        print_budgets_line(report.budgets)
        if timetable is not None:
            from prefetch.cli.chart import chart

            click.echo(chart(timetable))
        print_forecasts((each, report.outlooks.get(each.meter)) for each in report.budgets)


def _with_timetable(document: dict[str, Any], timetable: Timetable | None) -> dict[str, Any]:
    if timetable is None:
        return document
    return {**document, "timetable": [slot.document() for slot in timetable.slots]}


def _plan_row(image: PlannedImage, *, asked: bool) -> tuple[str, ...]:
    deferred = image.action is Action.DEFER and image.start_at is not None
    start = rfc3339_due(image.start_at) if deferred and image.start_at else "-"
    fetched = "-" if image.action is Action.NONE else size(image.bytes)
    return (
        image.wanted.name,
        str(image.action),
        _bounds(image.pulls_min, image.pulls_max),
        fetched,
        start,
        *([str(image.wanted.demand) or "-"] if asked else []),
    )


def _bounds(low: int, high: int | None) -> str:
    """`2`, `1-3`, or `1+` where nothing bounds it."""
    if high is None:
        return f"{low}+"
    return str(low) if low == high else f"{low}-{high}"


def _plan_summary(report: PlanReport) -> str:
    low, high = report.pulls()
    available = report.pulls_available()
    has = "no limit reported" if available is None else f"{available} available now"
    finish = "" if report.finish_at is None else f"; done about {local(report.finish_at)}"
    price = f"{_bounds(low, high)} pulls needed"
    expected = report.pulls_expected()
    if any(image.pulls_expected is not None for image in report.images):
        price += (
            f" ({expected} if the alternates give what they have)" if expected is not None else ""
        )
    return f"{plural(len(report.images), 'image')}: {price}, {has}{finish}"
