"""`prefetch db`: the state's upkeep."""

from __future__ import annotations

import click

from prefetch.cli.options import Globals, command_options, repeated_options


@click.group()
@repeated_options
def db() -> None:
    """Look after the database: its schema, and making it anew."""


@db.command()
@command_options
def upgrade(common: Globals) -> None:
    """Bring the schema up to this version's; a new database is made without asking.

    \b
    Example:
      prefetch db upgrade
    """
    from prefetch.app.database import upgrade_database
    from prefetch.cli.request import place

    path = upgrade_database(place(common))
    if not common.quiet:
        click.echo(f"{path}: up to date")


@db.command()
@command_options
def rebuild(common: Globals) -> None:
    """Make the database anew from the OCI layout, when it is lost or damaged.

    References, digests, platforms, warmth and sizes come back; the old file is
    kept beside it. Every meter is observed again before its first pull.

    \b
    Example:
      prefetch db rebuild
    """
    from prefetch.app.database import rebuild_database
    from prefetch.cli.request import place
    from prefetch.cli.text import plural, size

    found, kept = rebuild_database(place(common))
    if kept is not None:
        click.echo(f"the old database is kept as {kept}", err=True)
    if not common.quiet:
        click.echo(
            f"{plural(found.references, 'reference')}, {plural(found.blobs, 'blob')}, "
            f"{size(found.size)}; {found.incomplete} incomplete, {found.skipped} skipped"
        )
