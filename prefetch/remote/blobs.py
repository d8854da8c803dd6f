"""Blobs as streams that begin where the last one broke off.

Range requests follow RFC 9110 section 14: a 206 counts only if its Content-Range begins at the
offset that was asked for; a 200 begins anew. Nothing here verifies digests: whoever writes does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import aiohttp
from yarl import URL

from prefetch.clock import Clock
from prefetch.errors import NetworkError, NotFound, PrefetchError, ServerFault, SizeMismatch
from prefetch.oci.distribution import parse_content_range, range_from
from prefetch.oci.model import Descriptor
from prefetch.remote.addresses import untrusted_url
from prefetch.remote.connections import broken
from prefetch.remote.faults import redact
from prefetch.remote.transport import Answer, Transport
from prefetch.remote.wire import refuse_encoding, refuse_page

_OK: Final = 200
_PARTIAL: Final = 206
_NOT_SATISFIABLE: Final = 416
BLOB_STATUSES: Final = (_OK, _PARTIAL, _NOT_SATISFIABLE)
# Over so many seconds of waiting a body has to come at its least rate.
_RATE_SECONDS: Final = 15.0

Get = Callable[[Mapping[str, str]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class BlobStream:
    """A blob's bytes from `offset` on, which is 0 if the registry ignored the range.

    `chunks` raises NetworkError when the connection breaks, stalls or trickles, and SizeMismatch
    when more comes than the descriptor says; `total` is the whole blob's size in bytes.
    """

    offset: int
    chunks: AsyncIterator[bytes]
    total: int


async def open_at(get: Get, descriptor: Descriptor, offset: int) -> tuple[Answer, int]:
    """Ask for a blob from `offset` on; an answer that will not do is followed by one for it all.

    Returns the answer and where its body begins. Raises RegistryError, SizeMismatch, and what
    `get` raises.
    """
    for asked in (offset, 0) if offset else (0,):
        headers = {"Accept": "*/*"} | ({"Range": range_from(asked)} if asked else {})
        answer = await get(headers)
        try:
            start = begins_at(answer, descriptor, asked)
        except PrefetchError:
            answer.close()
            raise
        if start is not None:
            return answer, start
        answer.close()
    raise ServerFault(
        f"{descriptor.digest}: {answer.url.raw_host} answered {answer.status} to a plain request",
        status=answer.status,
        url=redact(answer.url),
    )


async def open_foreign(
    transport: Transport, descriptor: Descriptor, offset: int
) -> tuple[Answer, int]:
    """A foreign layer from where its descriptor says, without any authorisation.

    The registry was asked first and does not have it (image-spec, "Content Descriptors", `urls`).
    Raises what the last of the URLs failed with.
    """
    problem: PrefetchError = NotFound(f"{descriptor.digest}: no URL is left to fetch it from")
    for text in descriptor.urls:
        url = untrusted_url(text)
        if url is None:
            continue
        try:
            transport.guard.check(url)
            return await open_at(partial(_get_foreign, transport, url), descriptor, offset)
        except PrefetchError as error:
            problem = error
    raise problem


async def _get_foreign(transport: Transport, url: URL, headers: Mapping[str, str]) -> Answer:
    answer = await transport.send("GET", url, headers)
    if answer.status in BLOB_STATUSES:
        return answer
    answer.close()
    kind = NotFound if answer.status < 500 else ServerFault  # noqa: PLR2004
    raise kind(
        f"{url.raw_host} answered {answer.status} for a foreign layer",
        status=answer.status,
        url=redact(url),
    )


def begins_at(answer: Answer, descriptor: Descriptor, asked: int) -> int | None:
    """The offset at which an answer's body begins; None for a range that was not asked for.

    Raises RegistryError for an encoded body and SizeMismatch for a length that cannot be right.
    """
    subject = str(descriptor.digest)
    refuse_encoding(subject, answer)
    if answer.status == _NOT_SATISFIABLE:
        return None
    offset = 0
    if answer.status == _PARTIAL:
        given = parse_content_range(answer.headers.get("Content-Range"))
        if given is None or asked == 0 or given.start != asked:
            return None
        if given.total not in (None, descriptor.size):
            raise _wrong_size(answer, descriptor, given.total)
        offset = asked
    length = answer.response.content_length
    if length is not None and length != descriptor.size - offset:
        refuse_page(subject, answer)
        raise _wrong_size(answer, descriptor, offset + length)
    return offset


@dataclass(slots=True)
class LeastRate:
    """How fast a body has to come, at least, in bytes per second; 0 lets it trickle.

    Only what is waited for counts: a slow disk of ours is not the sender's fault.
    """

    bytes_per_second: float
    clock: Clock
    _waited: float = 0.0
    _came: int = 0

    async def take(self, read: Awaitable[bytes]) -> bytes:
        """What `read` gives, taken note of."""
        began = self.clock.monotonic()
        chunk = await read
        self._waited += self.clock.monotonic() - began
        self._came += len(chunk)
        return chunk

    def is_missed(self) -> bool:
        """Whether too little has come for too long."""
        if self._waited < _RATE_SECONDS:
            return False
        missed = self._came < self.bytes_per_second * self._waited
        self._waited, self._came = 0.0, 0
        return missed


def stream(answer: Answer, descriptor: Descriptor, offset: int, least: LeastRate) -> BlobStream:
    """The answer's body as a stream."""
    return BlobStream(offset, _chunks(answer, descriptor, offset, least), descriptor.size)


async def _chunks(
    answer: Answer, descriptor: Descriptor, offset: int, least: LeastRate
) -> AsyncIterator[bytes]:
    content = answer.response.content
    try:
        while chunk := await least.take(content.readany()):
            offset += len(chunk)
            if offset > descriptor.size:
                raise _wrong_size(answer, descriptor, offset)
            yield chunk
            if offset < descriptor.size and least.is_missed():
                raise NetworkError(f"{answer.url.raw_host} sends too slowly")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise broken(error, answer.url) from None
    if offset < descriptor.size:
        raise NetworkError(
            f"{descriptor.digest}: {answer.url.raw_host} stopped after {offset} "
            f"of {descriptor.size} bytes"
        )


def _wrong_size(answer: Answer, descriptor: Descriptor, size: int | None) -> SizeMismatch:
    return SizeMismatch(
        f"{descriptor.digest}: {answer.url.raw_host} sends {size} bytes, "
        f"the manifest says {descriptor.size}"
    )
