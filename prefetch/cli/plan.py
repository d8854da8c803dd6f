"""`prefetch plan`: what a sync would do and cost."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from prefetch.cli.options import Globals, command_options, output_option, source_options

if TYPE_CHECKING:
    from prefetch.app.requests import SourceRequest


@click.command()
@source_options
@output_option()
@command_options
def plan(
    common: Globals,
    *,
    reserve: str | None,
    pace: str | None,
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
    """
    from prefetch.cli.request import source_request

    run_plan(common, source_request(common, images, reserve, pace), output)


def run_plan(common: Globals, request: SourceRequest, output: str) -> None:
    """Plan, print, exit: `plan`, and `sync --dry-run`."""
    from prefetch.app.sync import run_plan as plan_request
    from prefetch.cli.progress import progress
    from prefetch.cli.report import print_plan

    with progress(common, json=output == "json") as listener:
        report = plan_request(request, listener)
    print_plan(report, output=output, quiet=common.quiet)
    sys.exit(report.exit_code())
