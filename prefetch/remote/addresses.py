"""Where a registry may send us: addresses in classes, checked where the connection is made.

A redirect's target, a token realm or a foreign layer's URL must not lie in a more private class
than the registry itself: public, then private (RFC 1918, RFC 4193, RFC 6598 and the other special
blocks of RFC 6890), then loopback. Link-local (cloud metadata lives there), multicast, reserved
and unspecified addresses are never contacted. The registry's own host is exempt from all of it:
the user has named it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from prefetch.errors import ForbiddenAddress

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# `127.1`, `2130706433`, `0x7f.1`: some resolvers take them for addresses (inet_aton(3)).
_SPELLED_ODDLY: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE | re.DOTALL)
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
_IPV4_MASK: Final = 0xFFFFFFFF


class Reach(IntEnum):
    """How private an address is; a larger one is more private."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    NEVER = 3


def reach_of(address: IPv4Address | IPv6Address) -> Reach:
    """The class of an address; IPv4 inside IPv6 (mapped, 6to4, NAT64) counts as that IPv4."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & _IPV4_MASK)
        if inner is not None:
            return reach_of(inner)
    if address.is_loopback:
        return Reach.LOOPBACK
    never = address.is_link_local or address.is_multicast or address.is_unspecified
    if never or (address.is_reserved and not address.is_global) or _is_this_network(address):
        return Reach.NEVER
    return Reach.PUBLIC if address.is_global else Reach.PRIVATE


def _is_this_network(address: IPv4Address | IPv6Address) -> bool:
    return isinstance(address, IPv4Address) and address in _THIS_NETWORK


def is_loopback_name(host: str) -> bool:
    """Whether a host is this machine by name: `localhost` and what lies under it (RFC 6761)."""
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` spells, or None when it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def reach_of_host(host: str) -> Reach | None:
    """What a host's spelling tells about its class; None for a name that must be resolved."""
    if is_loopback_name(host):
        return Reach.LOOPBACK
    address = literal(host)
    return None if address is None else reach_of(address)


def same_host(one: str, other: str) -> bool:
    """Whether two hosts are one; every spelling of loopback is."""
    if one.lower() == other.lower():
        return True
    return reach_of_host(one) is Reach.LOOPBACK and reach_of_host(other) is Reach.LOOPBACK


def untrusted_url(text: str, base: URL | None = None) -> URL | None:
    """A URL that a remote has written, joined to `base`; None if it makes no sense.

    What is written well is kept to the letter: signatures are over it.
    """
    written_well = text.isascii() and text.isprintable() and " " not in text
    try:
        url = URL(text, encoded=written_well)
        url = url if base is None else base.join(url)
        # They are parsed when they are first asked for, and would raise later.
        host, port = url.raw_host, url.port
    except ValueError:
        return None
    return None if host and port == 0 else url


class Guard:
    """Says which addresses one registry may lead us to.

    The registry's own class is the most public one that its host has ever resolved to: a name
    that points both to the internet and into this network opens no way into the latter. With
    `public_only`, for a registry that no user has named, that holds for its own host, too.
    """

    def __init__(self, registry: str, host: str, *, public_only: bool = False) -> None:
        self._registry = registry
        self._host = host.lower()
        self._reach = reach_of_host(host)
        self._public_only = public_only

    @property
    def reach(self) -> Reach:
        """The registry's own class; public until its name has been resolved."""
        return Reach.PUBLIC if self._reach is None else self._reach

    def check(self, url: URL) -> None:
        """Refuse a URL by its spelling: scheme, user information, literal addresses.

        Raises ForbiddenAddress.
        """
        host = url.raw_host
        if url.scheme not in ("http", "https") or not host:
            raise self._refusal(url.scheme or "a relative URL", "only http and https are followed")
        if url.raw_user is not None or url.raw_password is not None:
            raise self._refusal(host, "its URL carries user information")
        if _SPELLED_ODDLY.fullmatch(host) and literal(host) is None:
            raise self._refusal(host, "it is no name, and no address as it is usually written")
        reach = reach_of_host(host)
        if reach is not None and not self.permits(host, reach):
            raise self._refusal(host, _why(reach))

    def permits(self, host: str, reach: Reach) -> bool:
        """Whether `host`, at an address of this class, may be contacted."""
        if self._public_only:
            return reach is Reach.PUBLIC
        if host.lower() == self._host:
            return True
        return reach is not Reach.NEVER and reach <= self.reach

    def screen(self, host: str, found: list[ResolveResult]) -> list[ResolveResult]:
        """What of a name's addresses may be connected to. Raises ForbiddenAddress for none."""
        reaches = [reach_of(ipaddress.ip_address(item["host"].partition("%")[0])) for item in found]
        if host.lower() == self._host and reaches:
            most_public = min(reaches)
            known = most_public if self._reach is None else self._reach
            self._reach = min(most_public, known)
        allowed = [
            item for item, reach in zip(found, reaches, strict=True) if self.permits(host, reach)
        ]
        if found and not allowed:
            raise self._refusal(host, _why(max(reaches)))
        return allowed

    def _refusal(self, host: str, why: str) -> ForbiddenAddress:
        return ForbiddenAddress(
            f"{self._registry} leads to {host[:120]!a}, which is refused: {why}"
        )


def _why(reach: Reach) -> str:
    if reach is Reach.NEVER:
        return "it is a link-local, multicast or reserved address"
    return f"it is a {reach.name.lower()} address and the registry is not"


class GuardedResolver(AbstractResolver):
    """Resolves names, and lets only addresses through that the guard permits."""

    def __init__(self, inner: AbstractResolver, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The permitted addresses of `host`. Raises ForbiddenAddress, or OSError for no answer."""
        return self._guard.screen(host, await self._inner.resolve(host, port, family))

    async def close(self) -> None:
        """Close the resolver underneath."""
        await self._inner.close()
