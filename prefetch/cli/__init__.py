"""The command line: one file a command, each parses, calls one function of app, and prints."""

from __future__ import annotations

import click

from prefetch import __version__
from prefetch.cli.group import CommandGroup
from prefetch.cli.options import global_options

_COMMANDS = {
    "sync": "prefetch.cli.sync:sync",
    "plan": "prefetch.cli.plan:plan",
    "warm": "prefetch.cli.warm:warm",
    "budget": "prefetch.cli.budget:budget",
    "images": "prefetch.cli.images:images",
    "runs": "prefetch.cli.runs:runs",
    "check": "prefetch.cli.check:check",
    "serve": "prefetch.cli.serve:serve",
    "schedule": "prefetch.cli.schedule:schedule",
    "notify": "prefetch.cli.notify:notify",
    "freeze": "prefetch.cli.freeze:freeze",
    "thaw": "prefetch.cli.freeze:thaw",
    "probe": "prefetch.cli.probe:probe",
    "cluster": "prefetch.cli.cluster:cluster",
    "client-config": "prefetch.cli.client_config:client_config",
    "db": "prefetch.cli.db:db",
    "demo": "prefetch.cli.demo:demo",
    "completion": "prefetch.cli.completion:completion",
}


@click.group(
    cls=CommandGroup,
    commands_at=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="These options work on either side of COMMAND. Every option can also be given in the "
    "environment: PREFETCH_DATA_DIR, PREFETCH_SYNC_RESERVE or PREFETCH_RESERVE.",
)
@global_options
@click.version_option(__version__, "-V", "--version", message="prefetch %(version)s")
def main() -> None:
    """Fill a cache registry before it is needed, with the pulls that are left.

    prefetch mirrors the images that a list names into a local OCI layout, asks
    the registry's rate-limit headers before each pull, keeps a reserve, and goes
    on next time where it stopped.

    \b
    Examples:
      prefetch sync images.txt         mirror what the list names
      prefetch plan images.txt         what that would cost, spending nothing
      prefetch budget docker.io        pulls left, asked with a free request
      prefetch demo                    watch it work, without a network
    """
