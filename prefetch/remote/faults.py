"""Answers into errors: the registry's own words, made safe to print.

Whatever a remote says is hostile: control characters go, lengths are bounded, everything becomes
one line, and what was secret in the request is struck out should the answer repeat it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Final

from yarl import URL

from prefetch.errors import (
    InvalidReference,
    Misrouted,
    NotFound,
    RegistryError,
    ServerFault,
    Throttled,
    Unauthorized,
)
from prefetch.oci.distribution import parse_errors
from prefetch.oci.reference import Digest
from prefetch.ratelimit.throttle import retry_after

ERROR_BODY_LIMIT: Final = 64 * 1024
_MAX_WORDS: Final = 300
_MAX_CODE: Final = 64
_MIN_SECRET: Final = 4
_SECONDARY_LIMIT = re.compile(rb"rate limit", re.IGNORECASE)
_HTML = re.compile(rb"\s*<(?:!doctype html|html)", re.IGNORECASE)


def sanitise(text: str, limit: int = _MAX_WORDS) -> str:
    """One printable line of at most `limit` characters."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * limit])
    line = " ".join(shown.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def redact(url: URL) -> str:
    """The URL without user, query and fragment, which may carry signatures and secrets."""
    return sanitise(str(url.with_user(None).with_query(None).with_fragment(None)))


def strike(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret in it replaced."""
    for secret in secrets:
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, "***")
    return text


def looks_like_html(content_type: str, body: bytes) -> bool:
    """Whether a web page came where a registry was expected (a portal, a proxy, a wrong URL)."""
    return content_type.lower().startswith("text/html") or _HTML.match(body) is not None


def is_throttle(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a 403 is a throttle in disguise, as GitHub's secondary rate limit is."""
    forbidden = 403
    return status == forbidden and (
        "Retry-After" in headers or _SECONDARY_LIMIT.search(body) is not None
    )


def no_registry(subject: str, url: URL, status: int) -> Misrouted:
    """The error for a web page in a registry's place."""
    return Misrouted(
        f"{subject}: {redact(url)} answered with a web page",
        status=status,
        url=redact(url),
        hint="it does not look like a registry; check the endpoint, proxies and portals",
    )


def failure(
    subject: str,
    url: URL,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime,
    secrets: Iterable[str] = (),
) -> RegistryError:
    """The error for an answer that is not what was asked for.

    `subject` is what was wanted (a reference, a repository), `body` at most the first
    `ERROR_BODY_LIMIT` bytes. 401 and 403 become Unauthorized, 404 and 410 NotFound, 429 (and a
    disguised one) Throttled, a web page Misrouted, 5xx and what else makes no sense ServerFault.
    """
    if status < 400 and looks_like_html(headers.get("Content-Type", ""), body):  # noqa: PLR2004
        return no_registry(subject, url, status)
    code, words = _own_words(body, headers, secrets)
    kind = _kind(status, headers, body)
    said = f"{status}: {words}" if words else f"{status} {_phrase(status)}".rstrip()
    return kind(
        f"{subject}: {url.raw_host} answered {said}",
        status=status,
        url=redact(url),
        code=code,
        retry_after=retry_after(body, headers, now),
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _kind(status: int, headers: Mapping[str, str], body: bytes) -> type[RegistryError]:
    if is_throttle(status, headers, body):
        return Throttled
    match status:
        case 401 | 403:
            return Unauthorized
        case 404 | 410:
            return NotFound
        case 429:
            return Throttled
        case _ if 400 <= status < 500 and status not in (408, 421, 425):  # noqa: PLR2004
            return RegistryError
        case _:
            return ServerFault


def _own_words(
    body: bytes, headers: Mapping[str, str], secrets: Iterable[str]
) -> tuple[str | None, str]:
    """The first error's code, and its code and message in one line."""
    errors = parse_errors(body)
    if errors:
        code = sanitise(strike(errors[0].code, secrets), _MAX_CODE)
        message = sanitise(strike(errors[0].message, secrets))
        return code or None, " ".join(part for part in (code, message) if part)
    if headers.get("Content-Type", "").lower().startswith("text/plain"):
        return None, sanitise(strike(body.decode(errors="replace"), secrets))
    return None, ""


def header_digest(headers: Mapping[str, str], subject: str, url: URL) -> Digest | None:
    """`Docker-Content-Digest`, None when it is absent. Raises ServerFault for a malformed one."""
    value = headers.get("Docker-Content-Digest")
    if not value:
        return None
    try:
        return Digest.parse(value)
    except InvalidReference as error:
        raise ServerFault(
            f"{subject}: {url.raw_host} names an invalid digest: {sanitise(str(error))}",
            url=redact(url),
        ) from None
