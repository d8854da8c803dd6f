"""One request under way: who asks, what for, and what is to be counted of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

from prefetch.remote.addresses import literal
from prefetch.server.gate import Caller
from prefetch.server.routes import origin_form
from prefetch.server.settings import ANONYMOUS

Result = Literal["hit", "miss", "stale"]


@dataclass(slots=True)
class Exchange:
    """What becomes known of a request while it is answered.

    `sent` counts the body's bytes that have left, `cause` is why it failed. `failed` says that
    the credentials that came with it were wrong.
    """

    request: web.BaseRequest
    began: float
    address: str
    kind: str = "other"
    registry: str = ""
    user: str = ANONYMOUS
    failed: bool = False
    result: Result | None = None
    cause: str | None = None
    sent: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def caller(self) -> Caller:
        """On whose behalf things are fetched."""
        control = self.request.headers.get("Cache-Control", "")
        return Caller(self.address, self.user, "only-if-cached" in control.lower())

    @property
    def target(self) -> str:
        """The path and query that were asked for, as they were sent."""
        return origin_form(self.request.raw_path)

    @property
    def path(self) -> str:
        """The path alone."""
        return self.target.partition("?")[0]

    @property
    def wants_body(self) -> bool:
        return self.request.method != "HEAD"

    @property
    def may_be_asked(self) -> bool:
        """Whether credentials can be asked for: over TLS, or from this machine itself."""
        transport = self.request.transport
        if transport is not None and transport.get_extra_info("sslcontext") is not None:
            return True
        return is_loopback(self.address)


def address_of(request: web.BaseRequest) -> str:
    """The client's address."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return str(peer[0]) if isinstance(peer, tuple) else ""


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    found = literal(address)
    return found is not None and found.is_loopback
