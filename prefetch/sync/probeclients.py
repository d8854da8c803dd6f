"""Kinds of client, and how each pulls: the requests that the real ones were seen to send.

    containerd   HEAD tag, GET by digest, with `?ns=`; no ping; parts of a layer by Range
    podman       GET /v2/, GET tag, the registry in front of the repository; no HEAD
    docker       GET /v2/, HEAD tag, GET by digest; docker.io alone, no `ns`
    path         the same below `/<registry>`: a cache whose address was given with a path

A layer is asked for in parts, or whole where it is small: no more of it than 1 MiB is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import quote

from prefetch.errors import PrefetchError
from prefetch.oci.distribution import PING_PATH, ContentRange, blob_path, manifest_path
from prefetch.oci.model import (
    ACCEPT,
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_INDEX_DEPTH,
    MAX_MANIFEST_SIZE,
    Descriptor,
    Document,
    Index,
    Manifest,
    is_attestation,
)
from prefetch.oci.reference import DEFAULT_REGISTRY, Digest, Reference, Repository
from prefetch.remote.direct import DirectServer, Reply
from prefetch.sync.probe import Check, Pulled
from prefetch.sync.probereplies import (
    Asked,
    Fault,
    Head,
    NotHere,
    blob,
    blob_head,
    blob_range,
    manifest,
    manifest_head,
    pinged,
)

MOST_OF_A_LAYER: Final = 1 << 20
"""Bytes of a layer that are read at most."""

_MOST_CHILDREN: Final = 32
_SUFFIX: Final = 1024
_PING_BODY: Final = 4096
_DOCUMENTS: Final = INDEX_TYPES | MANIFEST_TYPES
_ACCEPT: Final = {"Accept": ACCEPT}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClientKind:
    """How a kind of client spells paths, and which of the requests it sends.

    `prefix` and `query` are formats over `{registry}`; `in_front` puts the registry in front of
    the repository. `pings` it may, `heads` tags it may. `goes_on` says that it goes on without
    credentials that are asked for and that it does not have.
    """

    name: str
    prefix: str = ""
    query: str = ""
    in_front: bool = False
    hub_only: bool = False
    pings: bool = True
    heads: bool = True
    in_parts: bool = False
    goes_on: bool = False

    def pulls(self, reference: Reference) -> bool:
        """Whether it asks a cache for images of this registry at all."""
        return not self.hub_only or reference.repository.registry == DEFAULT_REGISTRY

    def path(self, registry: str, path: str) -> str:
        """A path of the API as this client writes it."""
        name = quote(registry, safe=":")
        query = self.query.format(registry=quote(registry, safe=""))
        return self.prefix.format(registry=name) + path + query

    def repository(self, repository: Repository) -> str:
        """What stands in the path for the repository."""
        name = quote(repository.registry, safe=":")
        return f"{name}/{repository.path}" if self.in_front else repository.path


CLIENT_KINDS: Final = (
    ClientKind("containerd", query="?ns={registry}", pings=False, in_parts=True, goes_on=True),
    ClientKind("podman", in_front=True, heads=False, goes_on=True),
    ClientKind("docker", hub_only=True),
    ClientKind("path", prefix="/{registry}"),
)


class _Stopped(Exception):
    """What comes next cannot be asked for; `not_here` says that this was not whole in the cache."""

    def __init__(self, *, not_here: bool = False) -> None:
        super().__init__()
        self.not_here = not_here


class Puller:
    """Pulls one reference as one kind of client does, once."""

    def __init__(
        self, server: DirectServer, kind: ClientKind, reference: Reference, asked: Asked
    ) -> None:
        self._server = server
        self._kind = kind
        self._reference = reference
        self._name = kind.repository(reference.repository)
        self._asked = asked
        self._checks: list[Check] = []
        self._root: Digest | None = None
        self._left = _MOST_CHILDREN

    async def pull(self) -> Pulled:
        """All the requests, up to the first after which the client could not go on."""
        try:
            if self._kind.pings:
                await self._ping()
            await self._blobs(await self._image(await self._top()))
        except _Stopped:
            pass
        root = None if self._root is None else str(self._root)
        return Pulled(str(self._reference), root, tuple(self._checks))

    async def _ping(self) -> None:
        def judge(reply: Reply) -> str:
            return pinged(reply, self._asked, goes_on=self._kind.goes_on)

        await self._check("ping", "GET", PING_PATH, judge, limit=_PING_BODY)

    async def _top(self) -> Document:
        """What the reference names, as the client finds it."""
        target, wanted = self._reference.target, self._reference.digest
        if not self._kind.heads:
            found = await self._document("resolve", target, wanted)
            self._root = found.digest
            return found
        head = await self._check(
            "resolve",
            "HEAD",
            manifest_path(self._name, target),
            lambda reply: manifest_head(reply, self._asked, wanted),
            headers=_ACCEPT,
        )
        self._root = head.digest
        return await self._document("digest", str(head.digest), head.digest, head)

    async def _image(self, found: Document, depth: int = 0) -> Manifest:
        """The document, or the first below it, that is an image and whole."""
        if isinstance(found, Manifest):
            return found
        lacking: list[Check] = []
        for child in _images(found):
            if self._left == 0 or depth == MAX_INDEX_DEPTH:
                break
            self._left -= 1
            try:
                below = await self._document("platform", str(child.digest), child.digest)
                return await self._image(below, depth + 1)
            except _Stopped as stopped:
                # An index is served when one of its platforms is whole: that may be another.
                if not stopped.not_here:
                    raise
                lacking.append(self._checks.pop())
        if lacking:
            self._checks.append(lacking[0])
        else:
            self._checks.append(Check("platform", "", "", None, False, "the index has no image"))
        raise _Stopped(not_here=bool(lacking))

    async def _blobs(self, image: Manifest) -> None:
        """The config whole; of the smallest layer that the registry has to have, a part."""
        config = image.config
        path = blob_path(self._name, config.digest)
        if self._kind.in_parts:
            await self._check(
                "config-head", "HEAD", path, lambda reply: blob_head(reply, self._asked, config)
            )
        if config.size <= MAX_MANIFEST_SIZE:
            await self._whole("config", config)
        else:
            await self._part("config", config, 0, MOST_OF_A_LAYER, needed=False)
        layers = [each for each in image.layers if each.size > 0 and not each.urls]
        if layers:
            await self._layer(min(layers, key=lambda each: each.size))

    async def _layer(self, layer: Descriptor) -> None:
        if self._kind.in_parts:
            await self._part("layer-start", layer, 0, 1)
            end = min(_SUFFIX, layer.size)
            await self._part("layer-end", layer, layer.size - end, layer.size, asked=f"-{end}")
        elif layer.size <= MOST_OF_A_LAYER:
            await self._whole("layer", layer)
        else:
            await self._part("layer", layer, 0, MOST_OF_A_LAYER, needed=False)

    async def _document(
        self, step: str, target: str, wanted: Digest | None, head: Head | None = None
    ) -> Document:
        return await self._check(
            step,
            "GET",
            manifest_path(self._name, target),
            lambda reply: manifest(reply, self._asked, wanted, head),
            headers=_ACCEPT,
            limit=MAX_MANIFEST_SIZE,
        )

    async def _whole(self, step: str, descriptor: Descriptor) -> None:
        await self._check(
            step,
            "GET",
            blob_path(self._name, descriptor.digest),
            lambda reply: blob(reply, self._asked, descriptor),
            limit=descriptor.size,
        )

    async def _part(
        self,
        step: str,
        descriptor: Descriptor,
        start: int,
        end: int,
        *,
        asked: str | None = None,
        needed: bool = True,
    ) -> None:
        """Bytes from `start` to before `end`, spelled as `asked`, else by the first and last."""
        wanted = ContentRange(start, end, descriptor.size)
        await self._check(
            step,
            "GET",
            blob_path(self._name, descriptor.digest),
            lambda reply: blob_range(reply, self._asked, descriptor, wanted, needed=needed),
            headers={"Range": f"bytes={asked or f'{start}-{end - 1}'}"},
            limit=end - start,
        )

    async def _check(
        self,
        step: str,
        method: str,
        path: str,
        judge: Callable[[Reply], T],
        *,
        headers: Mapping[str, str] | None = None,
        limit: int = 0,
    ) -> T:
        """One request, judged and written down. Raises _Stopped for an answer that will not do."""
        path = self._kind.path(self._reference.repository.registry, path)
        status = None
        try:
            reply = await self._server.ask(
                method, path, headers, limit=limit, anonymously=self._asked.login is None
            )
            status = reply.status
            found = judge(reply)
        except (Fault, PrefetchError) as error:
            message = self._server.clean(str(error))
            self._checks.append(Check(step, method, path, status, False, message))
            raise _Stopped(not_here=isinstance(error, NotHere)) from None
        message = self._server.clean(_described(found))
        self._checks.append(Check(step, method, path, status, True, message))
        return found


def _images(index: Index) -> Iterator[Descriptor]:
    """The entries that a client would look into, in the index's order."""
    for child in index.manifests:
        if child.media_type in _DOCUMENTS and not is_attestation(child):
            yield child


def _described(found: object) -> str:
    match found:
        case Head():
            return f"{found.digest}, {found.media_type}"
        case Manifest() | Index():
            return f"{found.media_type}, {len(found.raw)} bytes, verified"
        case _:
            return str(found)
