"""`prefetch check`: the gate before a rollout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from prefetch.cli.options import (
    Globals,
    cache_options,
    command_options,
    image_options,
    option,
    output_option,
)

if TYPE_CHECKING:
    from prefetch.sync.gatereport import GateReport


@click.command(epilog="Exit status: 0 warm; 1 not; 2 usage or configuration.")
@image_options
@option("--verify", is_flag=True, help="Compute the digest of every layer, too.")
@option("--max-age", metavar="DURATION", help="Fail on a tag that was resolved before that (24h).")
@option("--fresh", is_flag=True, help="Ask the registries now what each tag is, by HEAD.")
@option(
    "--cache-url",
    metavar="URL",
    help="Ask this running cache in place of the store; the options below are for it.",
)
@cache_options
@output_option("text", "json", "junit")
@command_options
def check(
    common: Globals,
    *,
    verify: bool,
    max_age: str | None,
    fresh: bool,
    cache_url: str | None,
    output: str,
    **options: Any,
) -> None:
    """Prove that a rollout would cost no pull, and spend none to know it.

    Every image that the sources name must be whole in the store, for every wanted
    platform: index, manifest, config and each layer with its size. What is missing
    is named, with the pulls that it would cost. A tag that is known to have moved
    fails, too, unless the cache is frozen.

    This machine's store says nothing about another one's cache: --cache-url asks
    that, which never goes upstream for it.

    \b
    Examples:
      prefetch check images.txt
      prefetch check --cluster
      prefetch check manifests/ --max-age 24h -o junit > gate.xml
      prefetch check images.txt --cache-url https://cache:5000 --ca-file ca.pem
      prefetch sync images.txt && prefetch freeze && prefetch check images.txt
    """
    from prefetch.app.check import CheckRequest, run_check
    from prefetch.cli.progress import progress
    from prefetch.cli.request import cache_of, source_request

    source = source_request(common, options)
    cache = None if cache_url is None else cache_of(cache_url, options)
    with progress(common, json=output != "text") as listener:
        report = run_check(CheckRequest(source, verify, max_age, fresh, cache), listener)
    _print(report, output=output, quiet=common.quiet)
    sys.exit(report.exit_code())


def _print(report: GateReport, *, output: str, quiet: bool) -> None:
    from prefetch.cli.report import less_name, print_json, print_source_errors
    from prefetch.cli.text import plural, table
    from prefetch.sync.gatereport import why

    if output == "json":
        print_json(report.document())
    elif output == "junit":
        click.echo(report.junit(), nl=False)
    else:
        shown = [image for image in report.images if not (quiet and image.passes)]
        if shown:
            rows = [
                (image.wanted.name, "yes" if image.warm else "no", why(image) or "-")
                for image in shown
            ]
            click.echo(table(("REFERENCE", "WARM", "WHY NOT"), rows))
        for image in shown:
            if image.problem is not None:
                name = image.wanted.name
                click.echo(f"{name}: {less_name(name, image.problem)}")
    print_source_errors(report.errors)
    if output == "text" and not quiet:
        good = sum(image.passes for image in report.images)
        price = f"; at least {plural(report.pulls, 'pull')} to make it so" if report.pulls else ""
        verdict = "warm" if report.warm else "not warm"
        click.echo(f"{verdict}: {good} of {plural(len(report.images), 'image')}{price}")
