"""Addresses of caches and mirrors, as the systems write them.

An endpoint's API root is `/v2`, or a path that has it: `/v2/<prefix>` (in front of the repository)
or `/<prefix>/v2`. A `prefetch` cache needs neither: it tells registries apart by `ns`, or by the
registry in front of the repository, which is put there for clients that send no `ns`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from prefetch.errors import InvalidReference, UsageError
from prefetch.oci.reference import DEFAULT_REGISTRY
from prefetch.oci.registries import HUB_HOSTS, endpoint_for, is_loopback

API: str = "/v2"
_SHOWN = 200
# A host with a port of digits, and a path: no place for a password.
_HARMLESS = re.compile(
    r"(?:[A-Za-z]+:/*)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]*\])(?::[0-9]+)?(?:/[\w./-]*)?"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where pulls go: `host` is `name[:port]`, `api` the path of the API's root.

    `cache` says that it is a `prefetch` cache, which serves every registry under one address.
    """

    scheme: str
    host: str
    api: str = API
    cache: bool = False

    @property
    def secure(self) -> bool:
        """Whether it is asked over TLS."""
        return self.scheme == "https"

    @property
    def plain(self) -> bool:
        """Whether its API is where all clients expect it."""
        return self.api == API

    @property
    def url(self) -> str:
        """`https://host`, with the API's path where that is not `/v2`."""
        return self.root if self.plain else f"{self.root}{self.api}"

    @property
    def root(self) -> str:
        """`https://host`, and nothing more."""
        return f"{self.scheme}://{self.host}"

    @property
    def loopback(self) -> bool:
        """Whether only the machine itself can reach it."""
        return is_loopback(self.host)

    def prefix(self, registry: str) -> str:
        """`host[/path]` to put in front of a repository; a cache is told the registry there.

        Raises UsageError for an API root that is not in front of the repository.
        """
        if self.cache:
            return f"{self.host}/{registry}"
        if not self.api.startswith(API):
            raise UsageError(
                f"{self.url}: this client puts a mirror's path behind /v2, not in front of it",
                hint=f"write {self.root}/v2/… if the mirror has that form",
            )
        return self.host + self.api.removeprefix(API)

    def is_registry(self, registry: str) -> bool:
        """Whether it is the registry itself."""
        if registry == DEFAULT_REGISTRY:
            return self.host in HUB_HOSTS
        return self.host == registry or self.root == endpoint_for(registry)


def parse_endpoint(text: str, what: str, *, cache: bool) -> Endpoint:
    """`http(s)://host[:port][/path]`; `what` names the option for errors.

    Raises UsageError: no scheme, a user or password, a query, a path in a cache's URL.
    """
    shown = _without_user(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise UsageError(f"{what}: {shown} is not a URL") from None
    if "://" not in text:
        raise UsageError(f"{what}: {shown} has no scheme", hint=f"write https://{shown}")
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable():
        raise UsageError(f"{what}: {shown} is not a URL such as https://cache.example:5000")
    if "@" in parts.netloc:
        raise UsageError(
            f"{what}: {shown}: credentials do not belong in a URL",
            hint="use --username with --password-env or --password-file, or --auth-file",
        )
    if parts.query or parts.fragment or " " in text or port == 0:
        raise UsageError(f"{what}: {shown} has more than a host, a port and a path")
    host = parts.netloc.lower()
    try:
        is_loopback(host)  # raises for what can be no host and port
    except InvalidReference as error:
        raise UsageError(f"{what}: {error}") from None
    path = parts.path.rstrip("/")
    if cache and path not in ("", API):
        raise UsageError(
            f"{what}: {shown}: a cache's URL has no path",
            hint="the registry's is added where a client needs it; --mirror takes paths",
        )
    return Endpoint(parts.scheme, host, _api(path), cache)


def _api(path: str) -> str:
    """The API's root for a mirror's path, which may have it already."""
    if not path:
        return API
    return path if API.strip("/") in path.split("/") else f"{path}{API}"


def _without_user(text: str) -> str:
    """The text for an error, less all that may be a password: what stands before an `@`."""
    _, at, shown = text.rpartition("@")
    if not _HARMLESS.fullmatch(shown):
        return "…"
    return f"…@{shown[:_SHOWN]}" if at else shown[:_SHOWN]
