"""`prefetch images`: what the cache holds."""

from __future__ import annotations

import click

from prefetch.cli.options import Globals, command_options, output_option


@click.command()
@output_option("text", "json", "name")
@command_options
def images(common: Globals, *, output: str) -> None:
    """List what the cache holds.

    An image is warm when everything that a client of the platforms last asked for
    will ask for is in the store. -o name prints what `prefetch sync -` reads.

    \b
    Examples:
      prefetch images
      prefetch images -o json
      prefetch images -o name | prefetch sync -
    """
    from prefetch.app.queries import list_images
    from prefetch.cli.report import print_json
    from prefetch.cli.request import place
    from prefetch.cli.text import local, short_digest, size, table
    from prefetch.sync.catalog import catalog_document

    entries = list_images(place(common))
    if output == "json":
        print_json(catalog_document(entries))
    elif output == "name":
        for entry in entries:
            platforms = entry.record.platforms
            click.echo(f"{entry.record.name} platform={platforms}")
    elif entries:
        rows = [
            (
                entry.record.name,
                short_digest(entry.record.digest),
                "yes" if entry.warm else "no",
                size(entry.size),
                local(entry.record.synced_at),
            )
            for entry in entries
        ]
        click.echo(table(("REFERENCE", "DIGEST", "WARM", "SIZE ", "SYNCED"), rows))
    else:
        click.echo("the cache is empty: prefetch sync fills it", err=True)
