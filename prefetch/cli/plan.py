"""`prefetch plan`: what a sync would do and cost."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from prefetch.cli.options import Globals, command_options, option, output_option, source_options

if TYPE_CHECKING:
    from prefetch.app.requests import SourceRequest
    from prefetch.sync.horizon import Timetable
    from prefetch.sync.report import PlanReport


@click.command()
@source_options
@option(
    "--horizon", metavar="DURATION", help="The timetable of so long a time, and a chart (24h, 7d)."
)
@output_option()
@command_options
def plan(
    common: Globals,
    *,
    reserve: str | None,
    pace: str | None,
    horizon: str | None,
    output: str,
    **images: Any,
) -> None:
    """Say what sync would do and what it would cost, with free requests only.

    A price is exact where every manifest is known by its digest; an index that is
    not in the cache yet has bounds: one pull for it, and one for each platform.

    \b
    Examples:
      prefetch plan images.txt
      prefetch plan --image nginx:1.27 --platform all -o json
      prefetch plan images.txt --horizon 7d
    """
    from prefetch.cli.request import source_request

    run_plan(common, source_request(common, images, reserve, pace), output, horizon)


def run_plan(
    common: Globals, request: SourceRequest, output: str, horizon: str | None = None
) -> None:
    """Plan, print, exit: `plan`, and `sync --dry-run`."""
    from prefetch.app.requests import seconds
    from prefetch.app.sync import run_plan as plan_request
    from prefetch.cli.progress import progress
    from prefetch.cli.report import print_plan

    span = None if horizon is None else seconds(horizon, "--horizon")
    with progress(common, json=output == "json") as listener:
        report = plan_request(request, listener)
    timetable = None if span is None else _timetable(report, span)
    print_plan(report, output=output, quiet=common.quiet, timetable=timetable)
    sys.exit(report.exit_code())


def _timetable(report: PlanReport, span: float) -> Timetable:
    from prefetch.clock import SystemClock
    from prefetch.sync.horizon import Timetable

    return Timetable.of(report.images, SystemClock().now() + timedelta(seconds=span))
