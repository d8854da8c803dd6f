"""The distribution API's vocabulary: paths, error codes, ranges, links. One table for both sides.

    GET /v2/                                   is it a registry, and who may use it
    GET /v2/_catalog                           repositories, in pages (distribution's own)
    GET /v2/<repository>/manifests/<reference> a manifest by tag or digest
    GET /v2/<repository>/blobs/<digest>        a blob, whole or by Range
    GET /v2/<repository>/tags/list             tags, in pages linked by rel=next
    GET /v2/<repository>/referrers/<digest>    an index of what refers to a manifest

Sources: distribution-spec, "Endpoints" and "Error Codes"; RFC 9110 section 14; RFC 8288.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal
from urllib.parse import quote

from prefetch.oci.reference import Digest

PING_PATH: Final = "/v2/"

_MAX_ERRORS: Final = 16
_MAX_HEADER: Final = 8192
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)
_RANGE = re.compile(
    r"bytes[ \t]*=[ \t]*([0-9]{0,19})[ \t]*-[ \t]*([0-9]{0,19})[ \t]*", re.IGNORECASE
)
_ENDPOINT = re.compile(
    r"/v2/(?:_catalog|(.+)/(?:(manifests|blobs|referrers)/([^/]+)|tags/list))", re.DOTALL
)
_LINK_TARGET = re.compile(r"\s*<([^<>]*)>")
_LINK_PARAMETER = re.compile(r"""\s*;\s*([\w!#$&+.^`|~*-]+)\s*(?:=\s*("[^"]*"|[^\s;,"]*))?""")
_LINK_END = re.compile(r"\s*(?:,|$)")


class ErrorCode(StrEnum):
    """distribution-spec, "Error Codes"; the last three are distribution's own."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    DENIED = "DENIED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    TAG_INVALID = "TAG_INVALID"
    RANGE_INVALID = "RANGE_INVALID"
    UNAVAILABLE = "UNAVAILABLE"


class EndpointKind(StrEnum):
    """What a path asks for."""

    PING = "ping"
    MANIFEST = "manifest"
    BLOB = "blob"
    TAGS = "tags"
    CATALOG = "catalog"
    REFERRERS = "referrers"


_KINDS: Final = {
    "manifests": EndpointKind.MANIFEST,
    "blobs": EndpointKind.BLOB,
    "referrers": EndpointKind.REFERRERS,
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path taken apart: `name` is the repository as written, `argument` a tag or a digest.

    Neither has been checked; both are empty where the kind has none.
    """

    kind: EndpointKind
    name: str = ""
    argument: str = ""


@dataclass(frozen=True, slots=True)
class WireError:
    """One entry of an error body; `detail` is whatever JSON the registry put there."""

    code: str
    message: str
    detail: object = None


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Bytes `start` up to, not including, `end`; `total` is None where the header says `*`."""

    start: int
    end: int
    total: int | None

    def __str__(self) -> str:
        total = "*" if self.total is None else self.total
        return f"bytes {self.start}-{self.end - 1}/{total}"


def parse_endpoint(path: str) -> Endpoint | None:
    """What a (decoded) path asks a registry for; None for a path that the API does not have."""
    if path in ("/v2/", "/v2"):
        return Endpoint(EndpointKind.PING)
    match = _ENDPOINT.fullmatch(path)
    if match is None:
        return None
    name, word, argument = match.groups()
    if name is None:
        return Endpoint(EndpointKind.CATALOG)
    return Endpoint(_KINDS.get(word, EndpointKind.TAGS), name, argument or "")


def manifest_path(repository: str, reference: str | Digest) -> str:
    """Where a manifest is; `reference` is a tag or a digest."""
    return f"/v2/{repository}/manifests/{reference}"


def blob_path(repository: str, digest: Digest) -> str:
    """Where a blob is, to HEAD or to GET."""
    return f"/v2/{repository}/blobs/{digest}"


def tags_path(repository: str, *, page_size: int | None = None, last: str | None = None) -> str:
    """One page: `page_size` tags at most, those after `last`."""
    query = [] if page_size is None else [f"n={page_size}"]
    if last is not None:
        query.append(f"last={quote(last, safe='')}")
    return f"/v2/{repository}/tags/list" + ("?" + "&".join(query) if query else "")


def referrers_path(repository: str, digest: Digest) -> str:
    """The index of all manifests whose `subject` is `digest`."""
    return f"/v2/{repository}/referrers/{digest}"


def referrers_tag(digest: Digest) -> str:
    """The tag that stands in where there is no referrers API ("Referrers Tag Schema")."""
    return f"{digest.algorithm}-{digest.hex}"


def parse_errors(body: bytes) -> list[WireError]:
    """The errors of an error body; empty for anything that is not one. Never raises.

    Reads `{"errors": [{"code", "message", "detail"}]}` and the bare `{"code", "message"}` or
    `{"error": "…"}` that token services and proxies send.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    entries = document.get("errors", [document])
    if not isinstance(entries, list):
        return []
    errors = [_wire_error(entry) for entry in entries[:_MAX_ERRORS]]
    return [error for error in errors if error.code or error.message]


def _wire_error(entry: object) -> WireError:
    if isinstance(entry, str):
        return WireError("", entry)
    if not isinstance(entry, dict):
        return WireError("", "")
    words = [entry.get(key) for key in ("code", "message", "error", "details")]
    code, message, error, details = [word if isinstance(word, str) else "" for word in words]
    return WireError(code, message or details or error, entry.get("detail"))


def format_errors(*errors: WireError) -> bytes:
    """The error body."""
    entries = [
        {"code": error.code, "message": error.message}
        | ({} if error.detail is None else {"detail": error.detail})
        for error in errors
    ]
    return json.dumps({"errors": entries}, separators=(",", ":")).encode()


def range_from(start: int) -> str:
    """The Range header's value for everything from byte `start` on."""
    return f"bytes={start}-"


def requested_range(
    value: str | None, size: int
) -> ContentRange | Literal["whole", "unsatisfiable"]:
    """Which of `size` bytes a Range header asks for (RFC 9110 sections 14.1.2 and 14.2).

    A header that is absent or malformed, and one for several ranges, may be ignored: `whole`.
    """
    match = _RANGE.fullmatch(value or "")
    if match is None or not (match[1] or match[2]):
        return "whole"
    if not match[1]:
        start, end = size - min(int(match[2]), size), size
    else:
        start = int(match[1])
        last = int(match[2]) if match[2] else size - 1
        if match[2] and last < start:
            return "whole"
        end = min(last + 1, size)
    return ContentRange(start, end, size) if start < end else "unsatisfiable"


def parse_content_range(value: str | None) -> ContentRange | None:
    """`bytes 10-99/100` is (10, 100, 100). None when absent, malformed or contradictory."""
    match = _CONTENT_RANGE.fullmatch((value or "").strip())
    if not match:
        return None
    start, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < start or (total is not None and last >= total):
        return None
    return ContentRange(start, last + 1, total)


def next_link(value: str | None) -> str | None:
    """The target of the Link header's `rel=next`, absolute or relative; None without one.

    The target is the registry's word: resolve it, and check where it points, before following.
    """
    text, position = (value or "")[:_MAX_HEADER], 0
    while target := _LINK_TARGET.match(text, position):
        position = target.end()
        is_next = False
        while (parameter := _LINK_PARAMETER.match(text, position)) is not None:
            position = parameter.end()
            if parameter[1].lower() == "rel":
                is_next |= "next" in (parameter[2] or "").strip('"').lower().split()
        if is_next:
            return target[1]
        end = _LINK_END.match(text, position)
        if end is None:
            return None
        position = end.end()
    return None
