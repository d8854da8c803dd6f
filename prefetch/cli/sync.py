"""`prefetch sync`: the main job."""

from __future__ import annotations

import sys
from typing import Any

import click

from prefetch.cli.options import (
    Globals,
    command_options,
    option,
    output_option,
    source_options,
)


@click.command(
    epilog="Exit status: 0 done; 1 something failed; 2 usage or configuration; 75 nothing failed, "
    "something was deferred; 130 and 143 after SIGINT and SIGTERM."
)
@source_options
@option("--wait", is_flag=True, help="Wait for budget until everything is here.")
@option("--timeout", metavar="DURATION", help="With --wait or --pace smooth: stop then (90s, 6h).")
@option("--dry-run", is_flag=True, help="Print the plan; spend nothing.")
@option("--deferred-ok", is_flag=True, help="Exit 0 when images were only deferred.")
@output_option()
@command_options
def sync(
    common: Globals,
    *,
    reserve: str | None,
    pace: str | None,
    wait: bool,
    timeout: str | None,
    dry_run: bool,
    deferred_ok: bool,
    output: str,
    **images: Any,
) -> None:
    """Mirror images into the cache, within the rate-limit budget.

    SOURCE is a text or YAML list, Kubernetes objects, a compose file, a directory
    of these, or - for standard input; without any, the configuration's are used.
    Tags are asked for by HEAD, which registries do not count; only what changed is
    pulled, while pulls are left above the reserve. What does not fit is deferred to
    the next run, or waited for.

    \b
    Examples:
      prefetch sync images.txt
      prefetch sync images.txt --platform linux/amd64 --platform linux/arm64
      prefetch sync --image nginx:1.27 --image quay.io/coreos/etcd:v3.5.0
      prefetch sync images.txt --wait --timeout 6h
      prefetch sync images.txt --pace smooth
      prefetch sync --cluster --context production
    """
    from prefetch.cli.request import source_request

    request = source_request(common, images, reserve, pace)
    if dry_run:
        from prefetch.cli.plan import run_plan

        run_plan(common, request, output)
        return
    from prefetch.app.requests import SyncRequest, seconds
    from prefetch.app.sync import run_sync
    from prefetch.cli.progress import progress
    from prefetch.cli.report import print_sync

    wanted = SyncRequest(request, wait=wait, timeout=seconds(timeout) if timeout else None)
    with progress(common, json=output == "json") as listener:
        report, signal = run_sync(wanted, listener)
    print_sync(report, output=output, quiet=common.quiet, verbose=common.verbose > 0)
    sys.exit(128 + signal if signal else report.exit_code(deferred_ok=deferred_ok))
