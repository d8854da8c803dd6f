"""A running cache, as the options of `probe` and `check` name it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from prefetch.app.logins import credential_of
from prefetch.app.requests import seconds
from prefetch.clientconfig.endpoints import parse_endpoint
from prefetch.errors import UsageError
from prefetch.remote.direct import DirectServer, Trust


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """Where the cache is and who asks, as on the command line; `timeout` is one request's."""

    cache_url: str
    username: str | None = None
    password_env: str | None = None
    password_file: Path | None = None
    trust: Trust = field(default_factory=Trust)
    timeout: str = "10s"


def server_of(options: CacheOptions) -> DirectServer:
    """The server to ask, not connected yet. Raises UsageError."""
    if "@" in options.cache_url:
        # What stands before it may be a password: none of it is shown.
        raise UsageError(
            "--cache-url: credentials do not belong in a URL",
            hint="use --username with --password-env or --password-file",
        )
    endpoint = parse_endpoint(options.cache_url, "--cache-url", cache=True)
    timeout = seconds(options.timeout)
    if timeout <= 0:
        raise UsageError("--timeout: expected more than nothing")
    trust = options.trust
    if (trust.cert_file is None) != (trust.key_file is None):
        raise UsageError("--cert-file and --key-file go together")
    credential = credential_of(options.username, options.password_env, options.password_file)
    return DirectServer(URL(endpoint.root), trust=trust, timeout=timeout, credential=credential)
