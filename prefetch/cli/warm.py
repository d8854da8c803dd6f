"""`prefetch warm`: be warm by a moment, or say beforehand that it cannot be."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from prefetch.cli.options import (
    Globals,
    budget_options,
    command_options,
    option,
    output_option,
)

if TYPE_CHECKING:
    from prefetch.app.warm import WarmRequest
    from prefetch.sync.deadlinereport import Deadline


@click.command(
    epilog="Exit status: 0 all is warm; 1 something failed, or TIME has come, or it cannot be; "
    "2 usage or configuration; 75 with --no-wait, when the rest can be promised by TIME; "
    "130 and 143 after SIGINT and SIGTERM."
)
@budget_options
@option(
    "--by",
    required=True,
    metavar="TIME",
    help="02:00, tomorrow 02:00, sat 02:00, in 6h, 2026-12-05 02:00, or RFC 3339.",
)
@option("--timezone", metavar="ZONE", help="Where TIME is meant. [default: the local zone]")
@option("--strict", is_flag=True, help="Spend nothing unless it can be promised.")
@option("--no-wait", is_flag=True, help="Spend what may be spent now, and end.")
@option("--dry-run", is_flag=True, help="Print the plan and the verdict; spend nothing.")
@output_option()
@command_options
def warm(
    common: Globals,
    *,
    reserve: str | None,
    by: str,
    timezone: str | None,
    strict: bool,
    no_wait: bool,
    dry_run: bool,
    output: str,
    **images: Any,
) -> None:
    """Have everything in the cache by TIME, or say now that it cannot be.

    What is lacking is priced by free requests and laid over the windows to come.
    Before the first pull is spent, it is said whether all can be warm by TIME within
    the budget; if not, which images are late and what would help. Then it is done,
    the most important images first, until all is warm or TIME has come.

    \b
    Examples:
      prefetch warm images.txt --by 'sat 02:00'
      prefetch warm images.txt --by 02:00 --timezone Europe/Berlin --strict
      prefetch warm --cluster --by 'in 6h' --no-wait
      prefetch warm images.txt --by 2026-12-05T02:00:00Z --dry-run -o json
    """
    from prefetch.app.warm import WarmRequest
    from prefetch.cli.request import source_request

    # A deadline is for spending at once, whatever the configuration says of the pace.
    source = source_request(common, images, reserve, "burst")
    request = WarmRequest(source, by, timezone, strict=strict, wait=not no_wait)
    if dry_run:
        sys.exit(_dry(common, request, output))
    sys.exit(_do(common, request, output))


def _do(common: Globals, request: WarmRequest, output: str) -> int:
    from prefetch.app.warm import run_warm
    from prefetch.cli.progress import progress
    from prefetch.cli.report import print_json, print_source_errors, print_sync

    def tell(deadline: Deadline) -> None:
        if not (common.quiet and deadline.feasible):
            print_verdict(deadline, err=True)

    with progress(common, json=output == "json") as listener:
        report, signal = run_warm(request, listener, tell)
    if output == "json":
        print_json(report.document())
        print_source_errors(report.sync.errors)
    else:
        print_sync(report.sync, output=output, quiet=common.quiet, verbose=common.verbose > 0)
        if report.deadline is not None and not (common.quiet or report.sync.interrupted):
            click.echo(_ending(report.deadline))
    return 128 + signal if signal else report.exit_code(wait=request.wait)


def _dry(common: Globals, request: WarmRequest, output: str) -> int:
    from prefetch.app.warm import run_dry
    from prefetch.cli.progress import progress
    from prefetch.cli.report import print_json, print_plan, print_source_errors

    with progress(common, json=output == "json") as listener:
        report, deadline = run_dry(request, listener)
    if output == "json":
        print_json({**report.document(), "deadline": deadline.document()})
        print_source_errors(report.errors)
    else:
        print_plan(report, output=output, quiet=common.quiet)
        if not (common.quiet and deadline.feasible):
            print_verdict(deadline)
    return report.exit_code() or int(not deadline.feasible)


def print_verdict(deadline: Deadline, *, err: bool = False) -> None:
    """What can be said of a deadline, as lines."""
    from prefetch.cli.text import terminal_width
    from prefetch.cli.verdict import verdict_lines

    for line in verdict_lines(deadline):
        indent = " " * (len(line) - len(line.lstrip()))
        text = click.wrap_text(line.strip(), terminal_width(), indent, f"{indent}  ")
        # Written to sys.stderr itself, which a live display replaces so that it stays below.
        click.echo(text, file=sys.stderr if err else sys.stdout)


def _ending(deadline: Deadline) -> str:
    from prefetch.cli.verdict import shown

    by = shown(deadline, deadline.by)
    if deadline.met is None:
        rest = "can be promised" if deadline.feasible else "cannot be promised"
        return f"what is left {rest} by {by}"
    return f"warm by {by}" if deadline.met else f"not everything was warm by {by}"
