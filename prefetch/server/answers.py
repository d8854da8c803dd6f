"""Responses of the distribution API: headers as the specification has them, bodies as stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from prefetch.oci.distribution import ErrorCode, WireError, format_errors
from prefetch.oci.reference import Digest
from prefetch.server.library import Held
from prefetch.server.refusals import Refusal, invalid
from prefetch.server.tags import StaleReason, TagAnswer

# What runs here is nobody's business: aiohttp would tell its version, and Python's.
_OURS = {"Server": "prefetch"}
API_VERSION = {"Docker-Distribution-API-Version": "registry/2.0", **_OURS}
CHALLENGE = 'Basic realm="prefetch", charset="UTF-8"'
READ_METHODS = ("GET", "HEAD")

_JSON = "application/json"
_BLOB_TYPE = "application/octet-stream"
# What a digest names never changes; a tag is asked for again each time. Not `public`: caches
# between us and others must not give them what somebody's credentials have opened.
_FOR_EVER = "max-age=31536000, immutable"

_WHY_STALE: dict[StaleReason, str] = {
    "down": "the upstream cannot be reached",
    "slow": "the upstream has not answered yet",
    "throttled": "the upstream throttles",
    "budget": "there are no pulls left for what it has now",
    "frozen": "the cache is frozen",
    "behind": "the upstream has another one, which is being fetched",
    "failed": "the upstream could not be asked",
}


def document_headers(held: Held) -> dict[str, str]:
    """A manifest's own headers; the same for every request for it."""
    return _content_headers(held.document.digest, held.media_type)


def head_headers(digest: Digest, media_type: str, size: int | None) -> dict[str, str]:
    """Those of a manifest that is not here, as the upstream tells them."""
    headers = _content_headers(digest, media_type or _BLOB_TYPE)
    return headers if size is None else headers | {"Content-Length": str(size)}


def blob_headers(digest: Digest) -> dict[str, str]:
    """A blob's own headers."""
    return _content_headers(digest, _BLOB_TYPE) | {
        "Accept-Ranges": "bytes",
        "Cache-Control": _FOR_EVER,
    }


def stale_headers(answer: TagAnswer) -> dict[str, str]:
    """What tells a client that a tag may have moved (distribution-spec, "Warnings"; RFC 9111)."""
    if answer.stale is None:
        return {}
    age = int(answer.age)
    why = _WHY_STALE[answer.stale]
    return {"Warning": f'299 - "prefetch: as of {age} s ago; {why}"', "Age": str(age)}


def matches(header: str | None, digest: Digest) -> bool:
    """Whether an If-None-Match names the digest (RFC 9110, section 13.1.2)."""
    if header is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return bool(tags & {"*", f'"{digest}"', str(digest)})


def still_holds(header: str, digest: Digest) -> bool:
    """Whether an If-Range names the digest (RFC 9110, section 13.1.5): to the letter, no date."""
    return header.strip() == f'"{digest}"'


def document(document: Mapping[str, Any], media_type: str = _JSON, **headers: str) -> web.Response:
    """A JSON document of our own making."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(
        body=json.dumps(document, separators=(",", ":")).encode(),
        headers={**API_VERSION, **named, "Content-Type": media_type},
    )


def plain(text: str, status: int = 200) -> web.Response:
    """A line for people and probes."""
    return web.Response(text=f"{text}\n", status=status, headers=_OURS)


def refused(refusal: Refusal) -> web.Response:
    """The answer that a refusal is."""
    headers = {**API_VERSION, "Content-Type": _JSON}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.size is not None:
        headers["Content-Range"] = f"bytes */{refusal.size}"
    if refusal.status == 401:  # noqa: PLR2004
        headers["WWW-Authenticate"] = CHALLENGE
    if refusal.status == 405:  # noqa: PLR2004
        headers["Allow"] = ", ".join(READ_METHODS)
    body = format_errors(WireError(refusal.code, refusal.message))
    return web.Response(status=refusal.status, body=body, headers=headers)


def malformed() -> web.Response:
    """400 for a request that is no valid HTTP; what was sent is not repeated."""
    return refused(invalid(ErrorCode.UNSUPPORTED, "the request is not valid"))


def read_only() -> Refusal:
    """405: this registry takes nothing."""
    return Refusal(405, ErrorCode.UNSUPPORTED, "this registry is read-only", cause="bad_request")


def credentials_wanted() -> Refusal:
    """401: what is asked for exists for some only, if it exists."""
    return Refusal(401, ErrorCode.UNAUTHORIZED, "authentication required", cause="denied")


def page(names: Sequence[str], n: str | None, last: str | None) -> tuple[Sequence[str], str | None]:
    """One page of sorted names, those after `last`; and the name to go on after, if there are more.

    Raises ValueError unless `n` is a number.
    """
    if last:
        names = [name for name in names if name > last]
    if n is None:
        return names, None
    count = int(n) if n.isascii() and n.isdigit() and len(n) < 10 else -1  # noqa: PLR2004
    if count < 0:
        raise ValueError(n)
    chosen = names[:count]
    return chosen, chosen[-1] if chosen and len(chosen) < len(names) else None


def _content_headers(digest: Digest, media_type: str) -> dict[str, str]:
    text = str(digest)
    return {
        **API_VERSION,
        "Content-Type": media_type,
        "Docker-Content-Digest": text,
        "ETag": f'"{text}"',
    }
