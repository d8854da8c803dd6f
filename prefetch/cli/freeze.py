"""`prefetch freeze` and `prefetch thaw`: for a maintenance window."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from prefetch.cli.options import Globals, command_options, option


@click.command()
@option("--until", metavar="TIME", help="Thaw by itself then (RFC 3339). [default: never]")
@command_options
def freeze(common: Globals, *, until: str | None) -> None:
    """Serve what is here as it is, and ask no upstream.

    Within a second every `serve` on this state answers each tag with its last
    complete digest, fetches nothing, and answers 503 for what is not whole. So what
    was proven warm is what is pulled. Syncs go on as ever.

    \b
    Examples:
      prefetch freeze --until 2026-11-28T06:00:00Z
      prefetch freeze && drain-and-upgrade; prefetch thaw
    """
    from prefetch.app.freezing import run_freeze
    from prefetch.cli.request import place
    from prefetch.cli.text import local

    moment = None if until is None else _moment(until)
    run_freeze(place(common), moment)
    if not common.quiet:
        when = "until prefetch thaw" if moment is None else f"until {local(moment)}"
        click.echo(f"frozen {when}")


@click.command()
@command_options
def thaw(common: Globals) -> None:
    """End a freeze: tags are checked and misses fetched again.

    \b
    Example:
      prefetch thaw
    """
    from prefetch.app.freezing import run_thaw
    from prefetch.cli.request import place

    if run_thaw(place(common)):
        if not common.quiet:
            click.echo("thawed")
    else:
        click.echo("there was no freeze", err=True)


def _moment(text: str) -> datetime:
    """An RFC 3339 time; without an offset it is UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time such as 2026-11-28T06:00:00Z", param_hint="--until"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
