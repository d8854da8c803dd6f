"""`prefetch runs`: history."""

from __future__ import annotations

import click

from prefetch.cli.options import Globals, command_options, option, output_option


@click.command()
@click.argument("run_id", required=False, metavar="[ID]")
@option(
    "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many runs."
)
@output_option()
@command_options
def runs(common: Globals, *, run_id: str | None, limit: int, output: str) -> None:
    """Show past runs, or with ID (or `latest`) what became of each reference.

    \b
    Examples:
      prefetch runs
      prefetch runs latest
      prefetch runs latest -o json
    """
    from prefetch.app.queries import list_runs, show_run
    from prefetch.cli.report import print_json
    from prefetch.cli.request import place
    from prefetch.cli.text import local, size, table
    from prefetch.sync.report import run_document

    if run_id is not None:
        run, references = show_run(place(common), run_id)
        if output == "json":
            print_json(run_document(run, references))
            return
        click.echo(f"{run.id}: {run.outcome or 'unfinished'}, began {local(run.started_at)}")
        for reference in references:
            click.echo(f"{reference.outcome:9} {reference.reference}")
            if reference.error:
                click.echo(f"          {reference.error}")
        return
    found = list_runs(place(common), limit)
    if output == "json":
        print_json([run_document(run) for run in found])
        return
    rows = [
        (
            run.id,
            run.outcome or "unfinished",
            str(run.images),
            str(run.pulls),
            size(run.bytes_fetched),
        )
        for run in found
    ]
    click.echo(table(("RUN", "OUTCOME", "IMAGES ", "PULLS ", "FETCHED "), rows))
