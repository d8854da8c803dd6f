"""`prefetch budget`: what each meter has left."""

from __future__ import annotations

import sys

import click

from prefetch.cli.options import Globals, command_options, option, output_option


@click.command()
@click.argument("registries", nargs=-1, metavar="[REGISTRY]...")
@option("--reserve", metavar="N|N%", help="Pulls that are left to others. [default: 20%]")
@output_option()
@command_options
def budget(
    common: Globals, *, registries: tuple[str, ...], reserve: str | None, output: str
) -> None:
    """Show what each meter has left, asked now with a free request.

    A meter is a registry and an identity. Without REGISTRY: every registry that
    the cache has images of, else docker.io.

    \b
    Examples:
      prefetch budget
      prefetch budget docker.io -o json
    """
    from prefetch.app.queries import read_budgets
    from prefetch.cli.progress import progress
    from prefetch.cli.report import print_forecasts, print_json
    from prefetch.cli.request import place
    from prefetch.cli.text import local, table
    from prefetch.sync.report import forecast_budget

    with progress(common, json=output == "json") as listener:
        readings = read_budgets(place(common, reserve), registries, listener)
    meters = list(zip(readings.budgets, readings.outlooks, strict=True))
    if output == "json":
        print_json([forecast_budget(*meter) for meter in meters])
    else:
        rows = [
            (
                reading.meter.registry,
                reading.meter.identity,
                _number(reading.limit),
                _number(reading.remaining),
                str(reading.reserve),
                _number(reading.available),
                f"{reading.foreign_burn_per_hour:.1f}",
                local(reading.observed_at),
            )
            for reading in readings.budgets
        ]
        header = ("REGISTRY", "AS", "LIMIT ", "LEFT ", "RESERVE ", "FREE ", "BURN/H ", "OBSERVED")
        click.echo(table(header, rows))
        if not common.quiet:
            print_forecasts(meters)
    for error in readings.errors:
        click.echo(error, err=True)
    sys.exit(1 if readings.errors else 0)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
