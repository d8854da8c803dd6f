"""References and digests: `docker.io/library/nginx:1.27@sha256:…`, parsed and normalised.

The grammar and the normalisation are distribution/reference's (`ParseDockerRef`):

    reference := [ registry "/" ] path [ ":" tag ] [ "@" digest ]

A first part is a registry if it is `localhost`, holds a `.` or a `:`, or has an uppercase letter;
otherwise the registry is docker.io, where names of one part belong to `library/`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Protocol

from prefetch.errors import InvalidReference

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
MAX_PATH_LENGTH: Final = 255
"""Characters in a repository's path, registry not counted (RepositoryNameTotalLengthMax)."""

_LEGACY_REGISTRY: Final = "index.docker.io"
_OFFICIAL: Final = "library/"

_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])"
_PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REGISTRY = re.compile(rf"{_HOST}(?::[0-9]+)?")
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_HEX = {"sha256": re.compile("[0-9a-f]{64}"), "sha512": re.compile("[0-9a-f]{128}")}


class Hasher(Protocol):
    """The part of a hashlib object that verifying needs."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest (image-spec, "Digests"): sha256 or sha512, lowercase hex of exact length.

    Always valid: making one from anything else raises InvalidReference. Both fields are therefore
    safe as file names.
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        pattern = _HEX.get(self.algorithm)
        if pattern is None:
            raise InvalidReference(
                f"digest algorithm {_shown(self.algorithm)} is not supported",
                hint="sha256 and sha512 are",
            )
        if not pattern.fullmatch(self.hex):
            raise InvalidReference(
                f"digest {_shown(f'{self.algorithm}:{self.hex}')} is not valid",
                hint=f"{self.algorithm} takes {_hex_length(self.algorithm)} lowercase hex digits",
            )

    @classmethod
    def parse(cls, text: str) -> Digest:
        """From `algorithm:hex`. Raises InvalidReference."""
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise InvalidReference(f"digest {_shown(text)} is not of the form algorithm:hex")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
        """The digest of `data`. Raises InvalidReference for an unsupported algorithm."""
        if algorithm not in _HEX:
            raise InvalidReference(f"digest algorithm {_shown(algorithm)} is not supported")
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def hasher(self) -> Hasher:
        """A fresh hash of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A normalised repository: registry (host, with its port if any) and path."""

    registry: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Repository:
        """From `nginx`, `quay.io/org/app`, …; a tag or a digest is refused (InvalidReference)."""
        repository, tag, digest = _split(text)
        if tag is not None or digest is not None:
            raise InvalidReference(
                f"{_shown(text)} is a reference", hint="a repository has no tag and no digest"
            )
        return repository

    def tagged(self, tag: str) -> Reference:
        """The reference to one of its tags. Raises InvalidReference for an invalid tag."""
        return Reference(self, _checked_tag(tag, tag), None)

    def at(self, digest: Digest) -> Reference:
        """The reference to one of its digests."""
        return Reference(self, None, digest)

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised reference. It has a tag, a digest, or both; the digest wins when pulling.

    `str()` is canonical: parsing it gives an equal reference.
    """

    repository: Repository
    tag: str | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse and normalise; neither tag nor digest means `latest`. Raises InvalidReference."""
        repository, tag, digest = _split(text)
        if tag is None and digest is None:
            tag = DEFAULT_TAG
        return cls(repository, tag, digest)

    @property
    def name(self) -> str:
        """The reference without its digest, if a tag is there to name it by."""
        return f"{self.repository}:{self.tag}" if self.tag is not None else str(self)

    @property
    def target(self) -> str:
        """What a registry is asked for in its repository: the digest, else the tag."""
        return str(self.digest) if self.digest is not None else self.tag or DEFAULT_TAG

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.repository}{tag}{digest}"


def is_tag(text: str) -> bool:
    """Whether `text` can be a tag (distribution-spec, "Pulling manifests")."""
    return _TAG.fullmatch(text) is not None


def _split(text: str) -> tuple[Repository, str | None, Digest | None]:
    if _HEX["sha256"].fullmatch(text):
        raise InvalidReference(
            f"{text} reads as an image ID, not as a repository",
            hint=f"write {DEFAULT_REGISTRY}/library/… if it is one",
        )
    registry, rest = _split_registry(text)
    rest, at, digest = rest.partition("@")
    path, colon, tag = rest.partition(":")
    return (
        _checked_repository(registry, path, text),
        _checked_tag(tag, text) if colon else None,
        Digest.parse(digest) if at else None,
    )


def _split_registry(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not _names_registry(first):
        first, rest = DEFAULT_REGISTRY, text
    elif first == _LEGACY_REGISTRY:
        first = DEFAULT_REGISTRY
    if first == DEFAULT_REGISTRY and "/" not in rest:
        rest = _OFFICIAL + rest
    return first, rest


def _names_registry(part: str) -> bool:
    return part == "localhost" or "." in part or ":" in part or part.lower() != part


def _checked_repository(registry: str, path: str, text: str) -> Repository:
    if "://" in text:
        raise InvalidReference(f"{_shown(text)} is a URL", hint="write it without the scheme")
    if path.lower() != path:
        raise InvalidReference(
            f"{_shown(text)} is not a reference: the repository must be lowercase"
        )
    if not _REGISTRY.fullmatch(registry):
        raise InvalidReference(
            f"{_shown(text)} is not a reference: {_shown(registry)} cannot be a registry"
        )
    if not _PATH.fullmatch(path):
        raise InvalidReference(
            f"{_shown(text)} is not a reference", hint="expected registry/path:tag@digest"
        )
    if len(path) > MAX_PATH_LENGTH:
        raise InvalidReference(
            f"{_shown(text)} is too long: a repository has at most {MAX_PATH_LENGTH} characters"
        )
    return Repository(registry, path)


def _checked_tag(tag: str, text: str) -> str:
    if not is_tag(tag):
        raise InvalidReference(
            f"{_shown(text)} has an invalid tag",
            hint="1 to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'",
        )
    return tag


def _hex_length(algorithm: str) -> int:
    return hashlib.new(algorithm).digest_size * 2


def _shown(text: str, limit: int = 120) -> str:
    """Quoted for a message: one line, without control characters, not too long."""
    return ascii(text if len(text) <= limit else f"{text[:limit]}...")
