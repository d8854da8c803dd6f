"""What is answered when a request cannot be answered: status, code, words, and when to come back.

Clients are never told 429: containerd asks again at once and podman gives up. What cannot be had
now is 503 with Retry-After, what does not exist is 404; after both they go on to their next host.
"""

from __future__ import annotations

import math
from datetime import datetime

from prefetch.clock import rfc3339_due
from prefetch.errors import (
    BudgetExhausted,
    ContentError,
    CredentialError,
    ForbiddenAddress,
    NetworkError,
    NotFound,
    PrefetchError,
    StateError,
    StoreError,
    Throttled,
    Unauthorized,
)
from prefetch.oci.distribution import EndpointKind, ErrorCode

_SHORTEST_WAIT = 1
_LONGEST_WAIT = 86400
# How long to stay away after a fault of which nobody says when it will pass.
_AFTER_FAULT = 10

_UNKNOWN = {
    EndpointKind.MANIFEST: ErrorCode.MANIFEST_UNKNOWN,
    EndpointKind.REFERRERS: ErrorCode.MANIFEST_UNKNOWN,
    EndpointKind.BLOB: ErrorCode.BLOB_UNKNOWN,
}


class Refusal(Exception):
    """An answer that is an error (distribution-spec, "Error Codes").

    `cause` is the word that metrics count it under, `retry_after` whole seconds, `size` the bytes
    of a blob whose range was asked for. The message goes to whoever asked: it names nothing that
    they have not named, and no secret.
    """

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        *,
        cause: str,
        retry_after: int | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.cause = cause
        self.retry_after = retry_after
        self.size = size

    def later(self, seconds: float) -> Refusal:
        """The same, told again so many seconds later."""
        wait = self.retry_after
        if wait is not None:
            wait = max(math.ceil(wait - seconds), _SHORTEST_WAIT)
        return Refusal(
            self.status, self.code, self.message, cause=self.cause, retry_after=wait, size=self.size
        )


def invalid(code: ErrorCode, message: str) -> Refusal:
    """400: what was asked makes no sense."""
    return Refusal(400, code, message, cause="bad_request")


def out_of_range(size: int) -> Refusal:
    """416: no byte of the blob is in the range (RFC 9110, section 15.5.17)."""
    return Refusal(
        416,
        ErrorCode.RANGE_INVALID,
        "the range lies outside the blob",
        cause="bad_request",
        size=size,
    )


def unknown(kind: EndpointKind) -> Refusal:
    """404: there is no such thing, or not for whoever asks."""
    code = _UNKNOWN.get(kind, ErrorCode.NAME_UNKNOWN)
    return Refusal(404, code, f"{kind} unknown to the registry", cause="not_found")


def no_registry() -> Refusal:
    """404: a registry that this cache neither contacts nor has anything of."""
    return Refusal(404, ErrorCode.NAME_UNKNOWN, "registry not known here", cause="not_found")


def not_cached() -> Refusal:
    """504 (RFC 9111, section 5.2.1.7): only-if-cached, and not all of it is here."""
    return Refusal(
        504, ErrorCode.UNAVAILABLE, "not whole in the cache, and only-if-cached", cause="not_cached"
    )


def frozen(until: datetime | None, now: datetime) -> Refusal:
    """503: the cache is frozen, and this is not whole in it."""
    when = "" if until is None else f" until {rfc3339_due(until)}"
    wait = 60.0 if until is None else (until - now).total_seconds()
    return unavailable(f"not in the cache, which is frozen{when}", "frozen", wait)


def unavailable(message: str, cause: str, seconds: float = _AFTER_FAULT) -> Refusal:
    """503, with when to come back."""
    wait = min(max(math.ceil(seconds), _SHORTEST_WAIT), _LONGEST_WAIT)
    return Refusal(503, ErrorCode.UNAVAILABLE, message, cause=cause, retry_after=wait)


def of_error(error: PrefetchError, kind: EndpointKind, registry: str, now: datetime) -> Refusal:
    """What a client is told of an error that fetching from `registry` has ended with.

    The upstream's own words stay in the log: they may tell of what this client must not know.
    """
    match error:
        case NotFound() | Unauthorized():
            return unknown(kind)
        case BudgetExhausted():
            retry_at = error.retry_at or now
            return unavailable(
                f"{registry} has no pulls left for this; expected back at {rfc3339_due(retry_at)}",
                "budget",
                (retry_at - now).total_seconds(),
            )
        case Throttled():
            return unavailable(f"{registry} throttles", "throttled", error.retry_after or 30)
        case NetworkError():
            return unavailable(f"{registry} cannot be reached", "upstream_down")
        case ContentError():
            return unavailable(f"{registry} sent something else", "digest_mismatch", 60)
        case StoreError() | StateError():
            return unavailable("the cache cannot write", "storage", 60)
        case CredentialError() | ForbiddenAddress():
            return unavailable(f"{registry} cannot be asked", "upstream_error", 300)
        case _:
            return unavailable(f"{registry} failed", "upstream_error")
