"""`probe`: a running cache asked as its clients will ask it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from prefetch.app.logins import credential_of
from prefetch.app.requests import seconds
from prefetch.app.signals import run
from prefetch.clientconfig.endpoints import parse_endpoint
from prefetch.clock import SystemClock
from prefetch.errors import UsageError
from prefetch.remote.direct import DirectServer, Trust
from prefetch.sync.probe import ProbeReport
from prefetch.sync.probing import probe_cache


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What is asked for, as the command line has it; `timeout` is a duration for one request."""

    cache_url: str
    references: tuple[str, ...] = ()
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    trust: Trust = field(default_factory=Trust)
    timeout: str = "10s"
    any_registry: bool = False


def run_probe(request: ProbeRequest) -> ProbeReport:
    """Ask the cache; whatever it does is in the report. Raises UsageError."""
    server = _server(request)
    references, any_registry = request.references, request.any_registry

    async def work() -> ProbeReport:
        try:
            return await probe_cache(
                server, references, any_registry=any_registry, clock=SystemClock()
            )
        finally:
            await server.close()

    report, _ = run(lambda _: work())
    return report


def _server(request: ProbeRequest) -> DirectServer:
    if "@" in request.cache_url:
        # What stands before it may be a password: none of it is shown.
        raise UsageError(
            "--cache-url: credentials do not belong in a URL",
            hint="use --username with --password-env or --password-file",
        )
    endpoint = parse_endpoint(request.cache_url, "--cache-url", cache=True)
    timeout = seconds(request.timeout)
    if timeout <= 0:
        raise UsageError("--timeout: expected more than nothing")
    if (request.trust.cert_file is None) != (request.trust.key_file is None):
        raise UsageError("--cert-file and --key-file go together")
    credential = credential_of(request.username, request.password_env, request.password_file)
    return DirectServer(
        URL(endpoint.root), trust=request.trust, timeout=timeout, credential=credential
    )
