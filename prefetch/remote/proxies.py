"""Proxies from the environment: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`.

Read as Go's and Docker's programs do: loopback is never proxied, and `no_proxy` may name hosts,
domains, addresses and networks (`10.0.0.0/8`).
"""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.request import proxy_bypass

from yarl import URL

from prefetch.remote.addresses import Reach, literal, reach_of_host


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where to connect, and what to tell it; the headers are secret."""

    url: URL
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Proxy({self.url})"


class Proxies:
    """Finds the proxy for a URL.

    `environment` maps a scheme, `all` or `no` to its value, as urllib's `getproxies` gives it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._found: dict[tuple[str, str | None, int | None], Proxy | None] = {}

    def find(self, url: URL) -> Proxy | None:
        """The proxy for `url`, None for a direct connection."""
        if not self._environment:
            return None
        key = (url.scheme, url.raw_host, url.port)
        if key not in self._found:
            self._found[key] = self._look_up(url, url.raw_host or "")
        return self._found[key]

    def _look_up(self, url: URL, host: str) -> Proxy | None:
        value = self._environment.get(url.scheme) or self._environment.get("all")
        if not value or self._is_exempt(host, url.port):
            return None
        proxy = URL(value if "://" in value else f"http://{value}")
        headers = {}
        if proxy.user is not None:
            pair = f"{proxy.user}:{proxy.password or ''}".encode()
            headers["Proxy-Authorization"] = f"Basic {b64encode(pair).decode()}"
        return Proxy(proxy.with_user(None), headers)

    def _is_exempt(self, host: str, port: int | None) -> bool:
        if reach_of_host(host) is Reach.LOOPBACK or proxy_bypass(
            f"{host}:{port}", self._environment
        ):
            return True
        address = literal(host)
        names = self._environment.get("no", "").split(",")
        return address is not None and any(address in net for net in _networks(names))


def _networks(names: list[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for name in names:
        if "/" in name:
            try:
                found.append(ipaddress.ip_network(name.strip(), strict=False))
            except ValueError:
                continue
    return found
