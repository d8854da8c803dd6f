"""The one table of known registries, and what holds for all others.

A registry's name is what references carry, `docker.io` or `localhost:5000`; its endpoint is
where requests go. Docker Hub's differ (docs.docker.com, "Docker Hub pull usage and limits").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from prefetch.errors import InvalidReference

_MAX_PORT: Final = 65535
_MAX_HOST: Final = 253
_MAX_LABEL: Final = 63
_NAME = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class KnownRegistry:
    """A registry: its name, its endpoint's URL, and under which keys credentials for it are kept.

    `probe_repository` and `probe_tag` name a manifest whose HEAD reports the rate limit, where the
    registry sets one aside for that.
    """

    name: str
    endpoint: str
    credential_keys: tuple[str, ...]
    probe_repository: str | None = None
    probe_tag: str | None = None


_DOCKER_HUB: Final = KnownRegistry(
    name="docker.io",
    endpoint="https://registry-1.docker.io",
    credential_keys=("https://index.docker.io/v1/", "docker.io", "index.docker.io"),
    probe_repository="ratelimitpreview/test",
    probe_tag="latest",
)

HUB_HOSTS: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
"""The names that Docker Hub goes by; references know the first (distribution/reference)."""

DEFAULT_REGISTRIES: Final = (
    "docker.io",
    "quay.io",
    "ghcr.io",
    "registry.k8s.io",
    "gcr.io",
    "public.ecr.aws",
    "mcr.microsoft.com",
)
"""The registries that are configured unless the configuration says otherwise."""


def known_registry(name: str) -> KnownRegistry:
    """The table's entry, or what holds for a name that it does not have.

    The endpoint is then `https://<name>`, or `http://<name>` for a loopback name. Raises
    InvalidReference for a name that no host can have.
    """
    if name == _DOCKER_HUB.name:
        return _DOCKER_HUB
    scheme = "http" if is_loopback(name) else "https"
    return KnownRegistry(name, f"{scheme}://{name}", (name,))


def endpoint_for(name: str) -> str:
    """The URL that a registry's requests go to. Raises InvalidReference."""
    return known_registry(name).endpoint


def credential_keys(name: str) -> tuple[str, ...]:
    """The keys under which auth files and helpers keep its credentials, the usual one first."""
    return known_registry(name).credential_keys


def is_loopback(name: str) -> bool:
    """Whether a registry's name is `localhost`, 127.0.0.0/8 or `[::1]`, with or without port.

    Raises InvalidReference for a name that no host can have.
    """
    host = _host(name)
    if host.startswith("["):
        return IPv6Address(host[1:-1]).is_loopback
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(name: str) -> str:
    """The host without its port, an IPv6 address still in brackets."""
    match = _NAME.fullmatch(name)
    if match is None or not 0 < int(match[2] or 443) <= _MAX_PORT or not _is_host(match[1]):
        raise InvalidReference(f"{name[:_MAX_HOST]!a} cannot be a registry's host and port")
    return match[1]


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return len(host) <= _MAX_HOST and all(0 < len(p) <= _MAX_LABEL for p in host.split("."))
    try:
        IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True
