"""docker.io, quay.io and ghcr.io on an island: one scripted upstream behind all of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefetch.demo.images import Image
from prefetch.demo.settings import UpstreamSettings
from prefetch.demo.tokens import Account
from prefetch.demo.upstream import Upstream
from support.authority import Authority
from support.island import PUBLIC, Forwarder

REGISTRIES = ("docker.io", "quay.io", "ghcr.io")
_TOKENS = "auth.docker.io"
_HOSTS = ("registry-1.docker.io", *REGISTRIES, _TOKENS)


class Registries:
    """What runs at the registries' own names, on port 443 of a public address.

    `ca_file` is whom their clients have to trust, `hosts` where they are found. The upstream does
    not tell the names apart: a repository is to be put into one registry alone.
    """

    def __init__(self, authority: Authority, accounts: Mapping[str, Account]) -> None:
        tls = authority.issue(*_HOSTS).context()
        settings = UpstreamSettings(tls=tls, limit=None, cdn=False, accounts=accounts)
        self.ca_file = authority.ca_file
        self.hosts = {name: [PUBLIC] for name in _HOSTS}
        self._upstream = Upstream(settings)
        self._door: Forwarder | None = None

    async def start(self) -> None:
        await self._upstream.start()
        self._upstream.doorkeeper.realm = f"https://{_TOKENS}/token"
        self._door = Forwarder((PUBLIC, 443), self._upstream.port)
        self._door.__enter__()

    async def stop(self) -> None:
        """From now on connections are refused."""
        if self._door is not None:
            self._door.__exit__(None, None, None)
            self._door = None
        await self._upstream.close()

    def put(self, reference: str, made: Image, *, readers: Sequence[str] | None = None) -> Image:
        """Let `quay.io/org/app:1.0` be this image, for everybody unless there are `readers`."""
        _, _, name = reference.partition("/")
        repository, _, tag = name.rpartition(":")
        return self._upstream.content.put(repository, made, tag, readers=readers)

    def forget(self) -> None:
        """Count from here."""
        self._upstream.log.reset()
        if self._door is not None:
            self._door.visits = 0

    @property
    def visits(self) -> int:
        """Connections that were made, whatever came of them."""
        return 0 if self._door is None else self._door.visits

    @property
    def pulls(self) -> int:
        """Requests that count against a limit."""
        return self._upstream.log.pulls

    def asked(self, reference: str) -> list[str]:
        """The requests for an image's repository: `GET manifest`, …"""
        _, _, name = reference.partition("/")
        found = self._upstream.log.select(repository=name.rpartition(":")[0])
        return [f"{each.method} {each.kind}" for each in found]
