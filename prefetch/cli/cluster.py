"""`prefetch cluster`: what a live cluster runs."""

from __future__ import annotations

import sys
from typing import Any

import click

from prefetch.cli.options import Globals, cluster_options, command_options, output_option


@click.group()
def cluster() -> None:
    """Look at a live cluster.

    \b
    Example:
      prefetch cluster images
    """


@cluster.command("images")
@cluster_options
@output_option("text", "json", "name")
@command_options
def cluster_images(common: Globals, *, output: str, **options: Any) -> None:
    """List the images that a cluster runs, the most wanted first.

    Those of pods, and of workloads that have none now (no replicas, a CronJob
    between its runs); if asked for, what pods run now by digest, and what nodes
    hold and no pod names. -o name prints what `prefetch sync -` reads. Reading is all
    that is done; what may not be read is named, and the rest is used.

    \b
    Examples:
      prefetch cluster images
      prefetch cluster images --context production --namespace shop -o json
      prefetch cluster images --node-images
      prefetch cluster images -o name > images.txt
    """
    from prefetch.app.cluster import run_cluster_images
    from prefetch.cli.progress import progress
    from prefetch.cli.report import print_json, print_source_errors
    from prefetch.cli.request import cluster_request, place
    from prefetch.cli.text import plural, table
    from prefetch.sources.selector import platforms_words

    with progress(common, json=output != "text") as listener:
        report = run_cluster_images(place(common), cluster_request(options), listener)
    if output == "json":
        print_json(report.document())
    elif output == "name":
        for each in report.selectors:
            platforms = ",".join(platforms_words(each.platforms or ()))
            click.echo(f"{each.reference}{f' platform={platforms}' if platforms else ''}")
    elif report.selectors:
        rows = [(str(s.reference), str(s.demand) or "no pods now") for s in report.selectors]
        click.echo(table(("REFERENCE", "FOR"), rows))
    print_source_errors(report.errors)
    if output == "text" and not common.quiet:
        click.echo(plural(len(report.selectors), "image"))
    sys.exit(report.exit_code())
