"""What the embedded registry is told: where it listens, who may ask, how patient it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

ANONYMOUS: Final = "anonymous"
"""The name of whoever shows no credentials that prove anything."""
EVERY_USER: Final = "*"
"""What stands for all authenticated users in an access rule."""

FileVersion: TypeAlias = tuple[int, ...] | None
"""Differs when a file has changed; None is a file that is not there."""


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate chain and its key, PEM files."""

    cert_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class Access:
    """Users (`anonymous` is one, `*` all others) who see private content of some repositories.

    `repositories` are patterns for `<registry>/<repository>`; what their `*` stands for,
    `access.AccessRules` says.
    """

    users: tuple[str, ...]
    repositories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """The embedded registry. Times are seconds; `access` None lets every authenticated user in.

    `tag_ttl` is how long a tag is served unasked, `tag_wait` how long an answer waits for asking,
    `negative_ttl` how long it holds that something does not exist. `workers` are processes.
    `reserve_for_sync` keeps clients' misses, too, out of the reserve. `drain` is what requests
    under way have left after SIGTERM. `client_timeout` is how long a client may take nothing, send
    nothing within a request, or be idle between two. `misses_per_second` are the new misses that
    one client address may cause (twice as many at once), `max_fetches` the fetches under way for
    clients.
    """

    listen: Listen = Listen("127.0.0.1", 5000)
    tls: Tls | None = None
    htpasswd_file: Path | None = None
    access: tuple[Access, ...] | None = None
    tag_ttl: float = 300.0
    tag_wait: float = 0.2
    negative_ttl: float = 60.0
    workers: int = 1
    reserve_for_sync: bool = False
    drain: float = 30.0
    client_timeout: float = 60.0
    misses_per_second: float = 200.0
    max_fetches: int = 64

    @property
    def admits_to_private(self) -> bool:
        """Whether anybody at all can see private content."""
        if self.htpasswd_file is not None:
            return True
        return any(ANONYMOUS in rule.users for rule in self.access or ())


def file_version(path: Path) -> FileVersion:
    """Which version of a file that a setting names is there now; one stat, following links."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
