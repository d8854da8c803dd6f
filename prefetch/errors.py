"""Every error that prefetch raises on purpose.

    PrefetchError                    exit 1
    ├── UsageError                   exit 2   the command line
    │   └── ConfigError              exit 2   prefetch.yaml, an environment variable
    ├── InvalidReference                      no reference, digest or platform
    ├── SourceError                           an entry of an image list (`file:line: what is wrong`)
    ├── CredentialError                       an auth file or a credential helper
    ├── ContentError                          what a remote sent is not what it said
    │   ├── DigestMismatch           retry
    │   ├── SizeMismatch             retry
    │   └── InvalidManifest
    ├── RegistryError                         a registry's answer: code, status, URL
    │   ├── Unauthorized
    │   ├── NotFound
    │   ├── PullLimitReached                  429: the meter is empty
    │   ├── Throttled                retry    429: too many requests
    │   ├── ServerFault              retry    5xx, and answers that make no sense
    │   │   └── Misrouted                         a web page, redirects without end
    │   └── ForbiddenAddress                  a realm, redirect or URL that we must not follow
    ├── NetworkError                 retry    no answer: refused, reset, stalled, timed out
    ├── PlatformMissing                       the image has none of the wanted platforms
    ├── BudgetExhausted              exit 75  no pulls left above the reserve (deferred, not failed)
    ├── StoreError                            the content store
    │   └── NoSpace
    └── StateError                            the database
        ├── StateLocked
        └── StateDamaged

`exit_code` is what the command exits with when nothing else went wrong; `retryable` says
whether the same request may succeed if sent again soon.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar


class PrefetchError(Exception):
    """Base of all. `code` is the machine-readable word that reports carry."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    code: str = "ERROR"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def advice(self) -> str:
        """The message, with what to do about it."""
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __str__(self) -> str:
        return self.advice


class UsageError(PrefetchError):
    """The command line asks for what cannot be done."""

    exit_code = 2
    code = "USAGE"


class ConfigError(UsageError):
    """prefetch.yaml, or a variable of the environment, is not what it should be."""

    code = "CONFIG_INVALID"


class InvalidReference(PrefetchError):
    """A reference, a digest or a platform that cannot be parsed."""

    code = "REFERENCE_INVALID"


class SourceError(PrefetchError):
    """A bad entry of a source; `line` is None when the whole source is at fault."""

    code = "SOURCE_INVALID"

    def __init__(
        self, source: str, line: int | None, message: str, *, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.source = source
        self.line = line

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{where}: {self.advice}"


class CredentialError(PrefetchError):
    """Credentials that are configured and cannot be had."""

    code = "CREDENTIALS_UNUSABLE"


class ContentError(PrefetchError):
    """What a remote sent is not what it said."""

    code = "CONTENT_INVALID"


class DigestMismatch(ContentError):
    """The bytes do not have the digest that they were asked for by."""

    retryable = True
    code = "DIGEST_MISMATCH"


class SizeMismatch(ContentError):
    """There are more or fewer bytes than the descriptor says."""

    retryable = True
    code = "SIZE_MISMATCH"


class InvalidManifest(ContentError):
    """A manifest that is none, or that could be read in two ways."""

    code = "MANIFEST_INVALID"


class RegistryError(PrefetchError):
    """An answer that is not what was asked for.

    `code` is the registry's own word (distribution-spec, "Error codes") where it gave one,
    `status` the HTTP status, `url` the request's URL without query, user or fragment.
    """

    code = "REGISTRY_ERROR"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        url: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.url = url
        self.retry_after = retry_after
        if code:
            self.code = code


class Unauthorized(RegistryError):
    """401 or 403: the identity may not do this."""

    code = "UNAUTHORIZED"


class NotFound(RegistryError):
    """404: no such repository, tag or content."""

    code = "NOT_FOUND"


class PullLimitReached(RegistryError):
    """429 by the pull limit: the meter is empty."""

    code = "TOOMANYREQUESTS"


class Throttled(RegistryError):
    """429 by the rate of requests: wait, then ask again."""

    retryable = True
    code = "THROTTLED"


class ServerFault(RegistryError):
    """5xx, or an answer that makes no sense."""

    retryable = True
    code = "SERVER_FAULT"


class Misrouted(ServerFault):
    """The way leads to no registry (a web page, redirects without end): no fault that passes."""

    retryable = False


class ForbiddenAddress(RegistryError):
    """A realm, redirect or URL leads where no request may go."""

    code = "ADDRESS_FORBIDDEN"


class NetworkError(PrefetchError):
    """No answer: refused, reset, stalled or timed out."""

    retryable = True
    code = "UNREACHABLE"


class PlatformMissing(PrefetchError):
    """The image has none of the wanted platforms."""

    code = "PLATFORM_MISSING"


class BudgetExhausted(PrefetchError):
    """No pulls are left above the reserve; `retry_at` is when the forecast has them back."""

    exit_code = 75
    code = "BUDGET_EXHAUSTED"

    def __init__(self, message: str, *, retry_at: datetime | None = None) -> None:
        super().__init__(message)
        self.retry_at = retry_at


class StoreError(PrefetchError):
    """The content store cannot do what it should."""

    code = "STORE_ERROR"


class NoSpace(StoreError):
    """The disk is full, or too full for what would come."""

    code = "NO_SPACE"


class StateError(PrefetchError):
    """The database cannot be used."""

    code = "STATE_ERROR"


class StateLocked(StateError):
    """Another process has kept the database locked for too long."""

    code = "STATE_LOCKED"


class StateDamaged(StateError):
    """The database is not one, or no longer."""

    code = "STATE_DAMAGED"
