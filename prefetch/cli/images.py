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
    will ask for is in the store. FROM, shown where it is not the registry itself,
    is where its content came from. -o name prints what `prefetch sync -` reads.

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
        # Where all has come from its own registry, the names tell it.
        told = any(set(entry.fetched_from) - {entry.record.registry} for entry in entries)
        rows = [
            (
                entry.record.name,
                short_digest(entry.record.digest),
                "yes" if entry.warm else "no",
                size(entry.size),
                local(entry.record.synced_at),
                *([", ".join(entry.fetched_from) or "-"] if told else []),
            )
            for entry in entries
        ]
        header = ("REFERENCE", "DIGEST", "WARM", "SIZE ", "SYNCED", *(["FROM"] if told else []))
        click.echo(table(header, rows))
    else:
        click.echo("the cache is empty: prefetch sync fills it", err=True)
