"""What the tests of this directory share: types of their fixtures, and small answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from prefetch.demo.images import Image
from prefetch.demo.settings import ImageOrder
from prefetch.demo.upstream import Upstream
from prefetch.events import Event
from prefetch.oci.model import Descriptor, Manifest, parse_document
from prefetch.oci.reference import Repository
from prefetch.remote.registry import RegistryClient
from prefetch.remote.settings import TransportSettings
from prefetch.state.ledger import Ledger

IMPATIENT = TransportSettings(
    connect_timeout=3.0, document_timeout=5.0, first_wait=0.01, longest_wait=300.0
)
SOME_DIGEST = "sha256:" + "a" * 64


@dataclass(slots=True)
class Connected:
    """A client with what its test looks at."""

    client: RegistryClient
    ledger: Ledger
    events: list[Event] = field(default_factory=list)


@dataclass(slots=True)
class Seen:
    """One request, as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Server:
    """A small server; `seen` is what it was asked."""

    url: str
    seen: list[Seen] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def paths(self) -> list[str]:
        return [f"{each.method} {each.path}" for each in self.seen]


Connect = Callable[..., Awaitable[Connected]]
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[..., Awaitable[Server]]


def challenge(server: Server, more: str = "") -> web.Response:
    """401 that sends the client to the server's own token service."""
    words = f'Bearer realm="{server.url}/token",service="demo"' + (f",{more}" if more else "")
    return web.Response(status=401, headers={"WWW-Authenticate": words})


def found() -> web.Response:
    """What a HEAD of a manifest is answered."""
    return web.Response(headers={"Docker-Content-Digest": SOME_DIGEST, "Content-Length": "9"})


def put_image(upstream: Upstream, name: str = "team/app", **order: Any) -> tuple[Repository, Image]:
    """One image of one platform (`single=False`: an index) at an upstream, and its repository."""
    order = {"layers": 1, "single": True, **order}
    repository, _, image = ImageOrder(repository=name, **order).fill(upstream.content)[0]
    return Repository(upstream.address, repository), image


def layer_of(image: Image) -> Descriptor:
    """The first layer of a manifest, as a client reads it."""
    document = parse_document(image.raw, image.media_type)
    assert isinstance(document, Manifest)
    return document.layers[0]
