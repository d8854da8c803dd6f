"""`prefetch schedule`: timed syncs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from prefetch.cli.options import Globals, command_options, option, output_option

if TYPE_CHECKING:
    from prefetch.scheduler.status import Status


@click.command(
    epilog="Exit status: 0 after SIGTERM or SIGINT, when a sync under way has ended in order; "
    "1 something failed; 2 usage or configuration."
)
@option("--list", "listed", is_flag=True, help="Print the entries and what is next; run nothing.")
@output_option()
@command_options
def schedule(common: Globals, *, listed: bool, output: str) -> None:
    """Run the configuration's schedule, until SIGTERM or SIGINT.

    Each entry is a sync, within the budget, at the times of a crontab line or every
    so often. What was put off is tried again when its budget should be back, what
    was missed is caught up once. An entry with a deadline is what `warm` does, ahead
    of each. `serve` does the same beside its workers; one run of an entry at a time,
    whichever process it is in. The configuration is read again when it changes, and
    on SIGHUP.

    \b
    Examples:
      prefetch schedule
      prefetch schedule --list
      prefetch schedule --list -o json
    """
    from prefetch.cli.request import place

    if listed:
        from prefetch.app.schedule import list_schedule

        print_schedule(list_schedule(place(common)), output)
        return
    if output != "text":
        raise click.UsageError("-o json goes with --list")
    from prefetch.app.signals import end_at_once

    end_at_once(0)
    from prefetch.app.schedule import ScheduleRequest, run_schedule

    sys.exit(run_schedule(ScheduleRequest(place(common), common.server_level, common.log_format)))


def print_schedule(found: list[Status], output: str) -> None:
    """The entries, as a list of objects or a table."""
    from prefetch.cli.report import print_json
    from prefetch.cli.text import near, table

    if output == "json":
        print_json([status.document() for status in found])
        return
    header = ["ENTRY", "NEXT", "WHY", "LAST", "OUTCOME", "DEFERRED ", "UNTIL"]
    now = datetime.now(UTC)
    rows = [_row(status, now) for status in found]
    if any(status.by_at for status in found):
        # Eight columns are too many for a terminal of 80; NEXT mostly says what UNTIL does.
        header[1:] = ["WARM BY", *header[1:-1]]
        for row, status in zip(rows, found, strict=True):
            row[1:] = [near(status.by_at, now), *row[1:-1]]
    click.echo(table(header, rows))


def _row(status: Status, now: datetime) -> list[str]:
    from prefetch.cli.text import near

    last, history = status.last, status.history
    outcome = "-" if last is None else last.outcome or "unfinished"
    return [
        status.entry.name,
        near(status.plan.at, now),
        str(status.plan.cause),
        near(last.started_at if last else None, now),
        "running" if status.running else outcome,
        str(history.deferred),
        near(history.retry_at, now),
    ]
