"""`prefetch completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from prefetch.errors import UsageError


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Examples:
      source <(prefetch completion bash)
      prefetch completion zsh > "${fpath[1]}/_prefetch"
      prefetch completion fish > ~/.config/fish/completions/prefetch.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"no completion for {shell}")
    root = context.find_root().command
    click.echo(kind(root, {}, "prefetch", "_PREFETCH_COMPLETE").source())
