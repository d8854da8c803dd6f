"""`prefetch demo`: the main job, watched."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from prefetch.cli.options import Globals, command_options, option


@click.command()
@option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the list and the cache there; else nothing stays.",
)
@command_options
def demo(_: Globals, *, keep: Path | None) -> None:
    """Watch the main job against a registry of its own on loopback.

    It starts a registry that speaks like Docker Hub, with a small limit and a
    window of seconds, and runs the real commands against it. It takes half a
    minute, needs no network, and leaves nothing behind (but --keep's directory).

    \b
    Examples:
      prefetch demo
      prefetch demo --keep /tmp/prefetch-demo
    """
    from prefetch.app.demo import run_demo

    def say(text: str) -> None:
        click.secho(click.formatting.wrap_text(text, 79), bold=not text.startswith("$"))

    if run_demo(say, keep):
        if keep is not None:
            click.echo(f"The list and the cache are in {keep}.")
        return
    click.echo("prefetch: the demo did not go as it should", err=True)
    sys.exit(1)
