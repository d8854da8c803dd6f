"""`prefetch serve`: the embedded registry."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from prefetch.cli.options import Globals, command_options, option

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    epilog="Exit status: 0 after SIGTERM or SIGINT, when requests under way have ended; "
    "1 something failed; 2 usage or configuration."
)
@option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one. [default: 127.0.0.1:5000]",
)
@option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Processes that share the port. [default: 1]",
)
@option("--tls-cert-file", type=_FILE, metavar="FILE", help="Serve over TLS with this certificate.")
@option("--tls-key-file", type=_FILE, metavar="FILE", help="Its key.")
@option("--no-schedule", is_flag=True, help="Leave the configuration's schedule to others.")
@command_options
def serve(
    common: Globals,
    *,
    listen: str | None,
    workers: int | None,
    tls_cert_file: Path | None,
    tls_key_file: Path | None,
    no_schedule: bool,
) -> None:
    """Serve the cache as a registry, and fetch what it lacks.

    Nodes pull through it: what is warm comes from the cache, upstream or no
    upstream; what is missing is fetched once, within the budget, and streamed
    while it arrives. It is read-only. Requests are logged to stderr; -q logs only
    what goes wrong.

    \b
    Paths, as clients have them:
      /v2/library/nginx/manifests/1.27?ns=docker.io
      /v2/docker.io/library/nginx/manifests/1.27
      /docker.io/v2/library/nginx/manifests/1.27
    and /healthz, /readyz, /metrics.

    \b
    Examples:
      prefetch serve
      prefetch serve --listen 0.0.0.0:5000 --workers 2
      curl http://127.0.0.1:5000/v2/_catalog
    """
    if (tls_cert_file is None) != (tls_key_file is None):
        raise click.UsageError("--tls-cert-file and --tls-key-file go together")
    from prefetch.app.serve import ServeRequest, run_serve
    from prefetch.cli.request import place

    tls = None if tls_cert_file is None or tls_key_file is None else (tls_cert_file, tls_key_file)
    request = ServeRequest(
        place(common),
        listen,
        workers,
        common.server_level,
        common.log_format,
        tls=tls,
        no_schedule=no_schedule,
    )
    sys.exit(run_serve(request))
