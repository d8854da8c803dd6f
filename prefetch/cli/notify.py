"""`prefetch notify`: hooks tried out, and what waits for them."""

from __future__ import annotations

import sys

import click

from prefetch.cli.options import Globals, command_options, option, output_option


@click.command(
    epilog="Exit status of --test: 0 every hook has taken it; 1 one has not; 2 usage or "
    "configuration."
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@option("--test", "tested", is_flag=True, help="Send a test notice now.")
@option("--list", "listed", is_flag=True, help="Print what no hook has taken yet.")
@output_option()
@command_options
def notify(
    common: Globals, *, names: tuple[str, ...], tested: bool, listed: bool, output: str
) -> None:
    """Try the hooks of `notify` in the configuration, or list what waits for them.

    Hooks are webhooks and programs that are told when a run fails or is deferred, a
    deadline cannot be met, others threaten the reserve, an immutable tag moves or a
    registry throttles. With --test each hook NAME, or all, gets a notice of the
    event `test` at once; nothing is kept or tried again.

    \b
    Examples:
      prefetch notify --test
      prefetch notify --test ops -o json
      prefetch notify --list
    """
    if tested == listed:
        raise click.UsageError("one of --test and --list is required")
    if listed:
        if names:
            raise click.UsageError("NAME goes with --test")
        _list(common, output)
    else:
        _test(common, names, output)


def _test(common: Globals, names: tuple[str, ...], output: str) -> None:
    from prefetch.app.notify import try_hooks
    from prefetch.cli.report import print_json
    from prefetch.cli.request import place
    from prefetch.cli.text import table

    tried = try_hooks(place(common), names)
    if output == "json":
        print_json([each.document() for each in tried])
    else:
        rows = [
            (
                each.hook,
                "delivered" if each.attempt.taken else "failed",
                f"{each.seconds:.1f} s",
                each.attempt.said,
            )
            for each in tried
            if not (common.quiet and each.attempt.taken)
        ]
        if rows:
            click.echo(table(("HOOK", "RESULT", "TIME ", "ANSWER"), rows))
    sys.exit(0 if all(each.attempt.taken for each in tried) else 1)


def _list(common: Globals, output: str) -> None:
    from prefetch.app.notify import list_waiting, waiting_document
    from prefetch.cli.report import print_json
    from prefetch.cli.request import place
    from prefetch.cli.text import local, table

    waiting = list_waiting(place(common))
    if output == "json":
        print_json([waiting_document(notice) for notice in waiting])
        return
    rows = [
        (
            each.hook,
            each.event,
            local(each.created_at),
            str(each.attempts),
            local(each.next_at),
            each.error or "-",
        )
        for each in waiting
    ]
    header = ("HOOK", "EVENT", "SINCE", "ATTEMPTS ", "NEXT", "ERROR")
    click.echo(table(header, rows))
