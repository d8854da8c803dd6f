"""Every error that prefetch raises on purpose.

    PrefetchError                    exit 1
    ├── UsageError                   exit 2   the command line
    │   └── ConfigError              exit 2   prefetch.yaml, an environment variable
    ├── InvalidReference                      a reference, a digest or a platform that cannot be parsed
    ├── SourceError                           an entry of an image list (`file:line: what is wrong`)
    ├── CredentialError                       an auth file or a credential helper
    ├── ContentError                          what a remote sent is not what it said
    │   ├── DigestMismatch           retry
    │   ├── SizeMismatch             retry
    │   └── InvalidManifest
    ├── RegistryError                         a registry's answer, with code, status and redacted URL
    │   ├── Unauthorized
    │   ├── NotFound
    │   ├── PullLimitReached                  429: the meter is empty
    │   ├── Throttled                retry    429: too many requests
    │   ├── ServerFault              retry    5xx, and answers that make no sense
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
    exit_code = 2
    code = "USAGE"


class ConfigError(UsageError):
    code = "CONFIG_INVALID"


class InvalidReference(PrefetchError):
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
    code = "CREDENTIALS_UNUSABLE"


class ContentError(PrefetchError):
    code = "CONTENT_INVALID"


class DigestMismatch(ContentError):
    retryable = True
    code = "DIGEST_MISMATCH"


class SizeMismatch(ContentError):
    retryable = True
    code = "SIZE_MISMATCH"


class InvalidManifest(ContentError):
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
    code = "UNAUTHORIZED"


class NotFound(RegistryError):
    code = "NOT_FOUND"


class PullLimitReached(RegistryError):
    code = "TOOMANYREQUESTS"


class Throttled(RegistryError):
    retryable = True
    code = "THROTTLED"


class ServerFault(RegistryError):
    retryable = True
    code = "SERVER_FAULT"


class ForbiddenAddress(RegistryError):
    code = "ADDRESS_FORBIDDEN"


class NetworkError(PrefetchError):
    retryable = True
    code = "UNREACHABLE"


class PlatformMissing(PrefetchError):
    code = "PLATFORM_MISSING"


class BudgetExhausted(PrefetchError):
    """No pulls are left above the reserve; `retry_at` is when the forecast has them back."""

    exit_code = 75
    code = "BUDGET_EXHAUSTED"

    def __init__(self, message: str, *, retry_at: datetime | None = None) -> None:
        super().__init__(message)
        self.retry_at = retry_at


class StoreError(PrefetchError):
    code = "STORE_ERROR"


class NoSpace(StoreError):
    code = "NO_SPACE"


class StateError(PrefetchError):
    code = "STATE_ERROR"


class StateLocked(StateError):
    code = "STATE_LOCKED"


class StateDamaged(StateError):
    code = "STATE_DAMAGED"
