"""What a cache's answers to a puller must be like, and what to do where they are not.

Each function takes one answer and returns in a few words what it was, or raises Fault
(distribution-spec, "Pulling manifests" and "Pulling blobs"; RFC 9110, section 14).
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from prefetch.errors import InvalidManifest, InvalidReference
from prefetch.oci.distribution import ContentRange, parse_content_range
from prefetch.oci.model import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST_SIZE,
    Descriptor,
    Document,
    parse_document,
)
from prefetch.oci.reference import Digest
from prefetch.remote.addresses import untrusted_url
from prefetch.remote.direct import Reply
from prefetch.remote.faults import looks_like_html, redact, sanitise

_TYPES: Final = INDEX_TYPES | MANIFEST_TYPES
_MAX_DIGITS: Final = 19
_SHOWN: Final = 100


class Fault(Exception):
    """What is wrong with an answer, for people; what is in it has yet to be made safe to show."""


class NotHere(Fault):
    """Nothing is wrong: the cache does not have all of it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """On whose behalf the cache is asked for what: the words for refusals depend on it.

    `login` is who the credentials that were accepted belong to, `wants_login` that the cache asks
    for some.
    """

    reference: str
    login: str | None = None
    wants_login: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """What a HEAD has told of a manifest."""

    digest: Digest
    media_type: str
    size: int


def expect(reply: Reply, asked: Asked, *statuses: int) -> None:
    """Raise Fault unless the answer has one of these statuses and is no web page."""
    if reply.status not in statuses:
        if is_not_here(reply):
            raise NotHere(_not_here(asked))
        raise Fault(_refusal(reply, asked))
    if looks_like_html(reply.header("Content-Type"), reply.body):
        raise Fault(f"{reply.status}, but with a web page: something in between answers for it")
    encoding = reply.header("Content-Encoding").strip().lower()
    if encoding not in ("", "identity"):
        raise Fault(
            f"the answer is compressed ({sanitise(encoding, 40)}), and its digest is not what was "
            "named: a proxy in between compresses what passes through it"
        )


def pinged(reply: Reply, asked: Asked, *, goes_on: bool) -> str:
    """`/v2/`; `goes_on` says that the client goes on without credentials that it lacks."""
    if reply.status == HTTPStatus.UNAUTHORIZED and asked.wants_login and asked.login is None:
        if goes_on:
            return "credentials are asked for; the client goes on without"
        raise Fault(
            "credentials are asked for: a Docker daemon that has none to show gives up here, and "
            "pulls from Docker Hub (test with --username)"
        )
    expect(reply, asked, HTTPStatus.OK)
    return "a registry"


def manifest_head(reply: Reply, asked: Asked, wanted: Digest | None) -> Head:
    """The HEAD of a tag or digest: all that containerd and Docker need to go on by digest."""
    expect(reply, asked, HTTPStatus.OK)
    digest = _told_digest(reply)
    if digest is None:
        raise Fault("the HEAD has no Docker-Content-Digest: containerd asks again, by GET")
    if wanted is not None and digest != wanted:
        raise Fault(f"it answers for {digest}")
    size = _length(reply)
    if size is None:
        raise Fault("the HEAD has no Content-Length: containerd asks again, by GET")
    if not 0 < size <= MAX_MANIFEST_SIZE:
        raise Fault(f"it says that the manifest has {size} bytes")
    return Head(digest, _media_type(reply), size)


def manifest(reply: Reply, asked: Asked, wanted: Digest | None, head: Head | None) -> Document:
    """A manifest or index whole; `wanted` is what was asked for by digest, None for a tag."""
    expect(reply, asked, HTTPStatus.OK)
    served = _media_type(reply)
    if reply.more:
        raise Fault(f"the manifest has more than {MAX_MANIFEST_SIZE} bytes")
    told = _told_digest(reply)
    algorithm = (wanted or told or Digest.of(b"")).algorithm
    found = Digest.of(reply.body, algorithm)
    for named in (wanted, told):
        if named is not None and named != found:
            raise Fault(f"the bytes have the digest {found}, not {named}")
    if head is not None and (len(reply.body), served) != (head.size, head.media_type):
        raise Fault(
            f"the HEAD said {head.size} bytes of {head.media_type}, "
            f"the GET gives {len(reply.body)} of {served}"
        )
    try:
        return parse_document(reply.body, served, algorithm=algorithm)
    except InvalidManifest as error:
        raise Fault(str(error)) from None


def blob_head(reply: Reply, asked: Asked, descriptor: Descriptor) -> str:
    """The HEAD of a blob."""
    expect(reply, asked, HTTPStatus.OK)
    _check_digest(reply, descriptor)
    size = _length(reply)
    if size is None:
        raise Fault("the HEAD has no Content-Length")
    if size != descriptor.size:
        raise Fault(f"it says {size} bytes, the manifest {descriptor.size}")
    return _bytes(size)


def blob(reply: Reply, asked: Asked, descriptor: Descriptor) -> str:
    """A blob whole."""
    expect(reply, asked, HTTPStatus.OK)
    _check_digest(reply, descriptor)
    if reply.more or len(reply.body) != descriptor.size:
        more = "more than " if reply.more else ""
        raise Fault(f"{more}{len(reply.body)} bytes came, the manifest says {descriptor.size}")
    found = Digest.of(reply.body, descriptor.digest.algorithm)
    if found != descriptor.digest:
        raise Fault(f"the bytes have the digest {found}")
    return f"{_bytes(descriptor.size)}, verified"


def blob_range(
    reply: Reply, asked: Asked, descriptor: Descriptor, wanted: ContentRange, *, needed: bool
) -> str:
    """A part of a blob; unless `needed`, all of it will do, whose beginning has been read."""
    part, all_of_it = HTTPStatus.PARTIAL_CONTENT, HTTPStatus.OK
    if needed and reply.status == all_of_it:
        raise Fault("Range is ignored: a download that is cut off begins anew")
    expect(reply, asked, *((part,) if needed else (part, all_of_it)))
    _check_digest(reply, descriptor)
    if reply.status == all_of_it:
        if _length(reply) not in (None, descriptor.size):
            raise Fault(f"its Content-Length is {_length(reply)}, not {descriptor.size}")
        return f"{_bytes(descriptor.size)}, the beginning was read"
    given = parse_content_range(reply.header("Content-Range"))
    if given is None or (given.start, given.end) != (wanted.start, wanted.end):
        raise Fault(f"asked for {wanted}, its Content-Range is {_shown(reply, 'Content-Range')}")
    if given.total not in (None, descriptor.size):
        raise Fault(f"its Content-Range says {given.total} bytes, the manifest {descriptor.size}")
    length = wanted.end - wanted.start
    if reply.more or len(reply.body) != length:
        more = "more than " if reply.more else ""
        raise Fault(f"asked for {_bytes(length)}, {more}{len(reply.body)} came")
    return str(given)


def is_not_here(reply: Reply) -> bool:
    """Whether it is the registry itself that says: not whole in the cache, and only-if-cached."""
    return reply.status == HTTPStatus.GATEWAY_TIMEOUT and (
        "Docker-Distribution-API-Version" in reply.headers or bool(reply.words)
    )


def redirected(reply: Reply) -> str:
    """Where a redirect leads, in words; it is not followed."""
    target = untrusted_url(reply.header("Location"))
    where = redact(target) if target is not None and target.raw_host else "another path"
    return f"{reply.status}, a redirect to {where}, which is not followed: a cache sends none"


def _refusal(reply: Reply, asked: Asked) -> str:
    """Why an answer will not do, and what to do about it."""
    status, words = reply.status, f": {reply.words}" if reply.words else ""
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return redirected(reply)
    match status:
        case HTTPStatus.UNAUTHORIZED if asked.login is None:
            return "credentials are asked for: --username"
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return f"refused{words}"
        case HTTPStatus.NOT_FOUND:
            return f"there is no such thing{words}"
        case HTTPStatus.TOO_MANY_REQUESTS:
            return f"too many requests{words}: clients hammer, or give up, after a 429"
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return f"not available now{words}"
        case HTTPStatus.BAD_GATEWAY | HTTPStatus.GATEWAY_TIMEOUT:
            return f"a proxy in front of the cache gets no answer from it{words}"
        case _:
            return f"not to be expected{words}"


def _not_here(asked: Asked) -> str:
    advice = f"not whole in the cache: `prefetch sync --image {asked.reference}` would fetch it"
    if not asked.wants_login:
        return advice
    if asked.login is None:
        return f"{advice}; or it is private: --username"
    return f"{advice}; or it is private, and not for {asked.login}"


def _media_type(reply: Reply) -> str:
    """The type that a manifest is served as; clients go by it."""
    served = reply.header("Content-Type").partition(";")[0].strip().lower()
    if served not in _TYPES:
        raise Fault(f"the Content-Type {_shown(reply, 'Content-Type')} is no manifest's")
    return served


def _told_digest(reply: Reply) -> Digest | None:
    value = reply.header("Docker-Content-Digest")
    if not value:
        return None
    try:
        return Digest.parse(value)
    except InvalidReference as error:
        raise Fault(f"its Docker-Content-Digest makes no sense: {error}") from None


def _check_digest(reply: Reply, descriptor: Descriptor) -> None:
    told = _told_digest(reply)
    if told not in (None, descriptor.digest):
        raise Fault(f"it answers for {told}")


def _length(reply: Reply) -> int | None:
    value = reply.header("Content-Length")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS else None


def _shown(reply: Reply, name: str) -> str:
    value = reply.header(name)
    return ascii(value[:_SHOWN]) if value else "not there"


def _bytes(count: int) -> str:
    return f"{count} byte" if count == 1 else f"{count} bytes"
