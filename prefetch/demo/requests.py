"""What the upstream was asked: the paths it knows, and the record of every request."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs

Kind = Literal["ping", "token", "manifest", "blob", "cdn", "tags", "referrers", "other"]

_KINDS: dict[str, Kind] = {
    "manifests": "manifest",
    "blobs": "blob",
    "tags": "tags",
    "referrers": "referrers",
}
_REGISTRY_PATH = re.compile(r"/v2/(.+)/(manifests|blobs|tags|referrers)/([^/]+)")
_CDN_PATH = re.compile(r"/cdn/(.+)/([^/]+)")


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names; `reference` is a tag or a digest."""

    kind: Kind
    repository: str = ""
    reference: str = ""

    @classmethod
    def of(cls, path: str) -> Target:
        """Read a path (distribution-spec, "Endpoints", and our own of the CDN and the tokens)."""
        if path in {"/v2", "/v2/"}:
            return cls("ping")
        if path == "/token":
            return cls("token")
        if match := _REGISTRY_PATH.fullmatch(path):
            return cls(_KINDS[match[2]], match[1], match[3])
        if match := _CDN_PATH.fullmatch(path):
            return cls("cdn", match[1], match[2])
        return cls("other")


@dataclass(slots=True)
class Request:
    """One request. Times are seconds since the upstream began.

    `authorization` is the scheme alone, never the secret. `counted` says that it cost a pull,
    `remaining` what its answer reported. `bytes_sent` were handed to the socket: the client
    may have read less. `faults` are the names of those that it met.
    """

    number: int
    method: str
    path: str
    target: Target
    started: float
    address: str = "127.0.0.1"
    query: str = ""
    authorization: str | None = None
    range: str | None = None
    accept_encoding: str | None = None
    identity: str | None = None
    status: int | None = None
    counted: bool = False
    remaining: int | None = None
    bytes_sent: int = 0
    ended: float | None = None
    faults: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        return self.target.kind

    @property
    def repository(self) -> str:
        return self.target.repository

    @property
    def reference(self) -> str:
        return self.target.reference

    @property
    def has_authorization(self) -> bool:
        return self.authorization is not None

    def parameter(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return parse_qs(self.query).get(name, [default])[0]

    def document(self) -> dict[str, Any]:
        """The record for JSON, with what the path names at its top level."""
        record = dataclasses.asdict(self)
        return {**record.pop("target"), **record}


class Log:
    """Every request since the last reset, in order of arrival."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def pulls(self) -> int:
        """Requests that cost a pull."""
        return sum(request.counted for request in self.requests)

    def select(
        self,
        *,
        kind: Kind | None = None,
        method: str | None = None,
        repository: str | None = None,
        reference: str | None = None,
        status: int | None = None,
    ) -> list[Request]:
        """The requests that match everything given."""
        wanted = {
            "kind": kind,
            "method": method,
            "repository": repository,
            "reference": reference,
            "status": status,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        return [
            request
            for request in self.requests
            if all(getattr(request, name) == value for name, value in given.items())
        ]

    def counts(
        self,
        *,
        kind: Kind | None = None,
        method: str | None = None,
        repository: str | None = None,
        status: int | None = None,
    ) -> int:
        """How many requests match."""
        return len(self.select(kind=kind, method=method, repository=repository, status=status))

    def peak(self, *, kind: Kind | None = None) -> int:
        """The most requests that were under way at one moment."""
        moments: list[tuple[float, int]] = []
        for request in self.select(kind=kind):
            moments.append((request.started, 1))
            if request.ended is not None:
                moments.append((request.ended, -1))
        running = peak = 0
        for _, change in sorted(moments):
            running += change
            peak = max(peak, running)
        return peak

    def summary(self) -> dict[str, int]:
        """Counts by `METHOD kind`."""
        return dict(Counter(f"{request.method} {request.kind}" for request in self.requests))

    def reset(self, keep: int = 0) -> None:
        """Forget all but the first `keep` requests."""
        self.requests = self.requests[:keep]
