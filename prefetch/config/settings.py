"""What the configuration says, checked and typed; without a file, the defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from prefetch.credentials.keychain import Account
from prefetch.oci.platform import Platform, PlatformSet
from prefetch.oci.registries import DEFAULT_REGISTRIES, endpoint_for
from prefetch.ratelimit.pace import Pace
from prefetch.remote.settings import RegistrySettings
from prefetch.server.settings import ServeSettings
from prefetch.sources.kinds import CustomKind
from prefetch.sync.hooks import Hook

DEFAULT_LEAD: Final = 86400.0
"""Seconds ahead of its deadline that an entry of the schedule comes, unless it says otherwise."""

ANY: Final = "*"
"""The key of `registries` that stands for every registry without one of its own."""


@dataclass(frozen=True, slots=True)
class ClusterSource:
    """A live cluster as a source; `platforms` "nodes" means those of its nodes."""

    namespaces: tuple[str, ...] = ()
    selector: str = ""
    platforms: PlatformSet | Literal["nodes"] = "nodes"


@dataclass(frozen=True, slots=True)
class ClusterReading:
    """What of live clusters is read besides what is always."""

    use_pull_secrets: bool = False
    running_digests: bool = False
    node_images: bool = False


SourceSpec: TypeAlias = Path | ClusterSource


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """A timed sync: by a crontab's five fields, or `every` so many seconds, or neither.

    `by`, five fields too, are moments that it is to be warm by; it then comes `lead` seconds ahead
    of them, unless it has a rhythm of its own. No sources, and no platforms: the file's. `jitter`
    is seconds; `timezone` an IANA name, None the process's local zone; `pace` None is the
    registries' own.
    """

    name: str
    cron: str | None = None
    sources: tuple[SourceSpec, ...] = ()
    jitter: float = 0.0
    timezone: str | None = None
    every: float | None = None
    by: str | None = None
    lead: float = DEFAULT_LEAD
    platforms: PlatformSet | None = None
    pace: Pace | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All of `prefetch.yaml`.

    `path` is the file, None without one. `state_url` None means the database in the data
    directory. `registries` holds the defaults and what the file adds; `any_registry`, if given,
    is what every other one gets (its name and endpoint are placeholders). `accounts` go to the
    keychain, by registry. `kinds` are custom resources that name images, in files and clusters.
    """

    data_dir: Path
    path: Path | None = None
    state_url: str | None = field(default=None, repr=False)
    platforms: PlatformSet = field(default_factory=lambda: (Platform.host(),))
    registries: Mapping[str, RegistrySettings] = field(
        default_factory=lambda: {
            name: RegistrySettings.default(name) for name in DEFAULT_REGISTRIES
        }
    )
    any_registry: RegistrySettings | None = None
    accounts: Mapping[str, Account] = field(default_factory=dict)
    sources: tuple[SourceSpec, ...] = ()
    cluster: ClusterReading = field(default_factory=ClusterReading)
    kinds: tuple[CustomKind, ...] = ()
    serve: ServeSettings = field(default_factory=ServeSettings)
    schedule: tuple[ScheduleEntry, ...] = ()
    notify: tuple[Hook, ...] = ()

    @property
    def database_url(self) -> str:
        """Where the state is, as an SQLAlchemy URL."""
        return self.state_url or f"sqlite:///{self.data_dir.absolute() / 'prefetch.db'}"

    def named(self, registry: str) -> bool:
        """Whether a registry is a default or has an entry of its own; `*` names none."""
        return registry in self.registries

    def serves(self, registry: str) -> bool:
        """Whether `serve` may contact a registry for its clients.

        One that it may contact and that is not `named` was chosen by a client, under `*`: it
        must not lead to private addresses. An alternate is no registry for clients, unless it is
        `named`.
        """
        if self.named(registry):
            return True
        return self.any_registry is not None and registry not in self._alternates()

    def _alternates(self) -> set[str]:
        """The registries that are somebody's alternates."""
        every = [self.any_registry] if self.any_registry is not None else []
        return {
            alternate.registry
            for registry in (*self.registries.values(), *every)
            for alternate in registry.alternates
        }

    def registry(self, name: str) -> RegistrySettings:
        """How the registry called `name` in references is spoken to."""
        if name in self.registries:
            return self.registries[name]
        if self.any_registry is None:
            return RegistrySettings.default(name)
        return replace(self.any_registry, name=name, endpoint=endpoint_for(name))


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """/var/lib/prefetch for root, else $XDG_DATA_HOME/prefetch (XDG Base Directory)."""
    if os.geteuid() == 0:
        return Path("/var/lib/prefetch")
    return xdg_home(environ, "XDG_DATA_HOME", ".local/share") / "prefetch"


def xdg_home(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    """A base directory; relative values are to be ignored (XDG Base Directory, "Basics")."""
    value = environ.get(variable, "")
    if value.startswith("/"):
        return Path(value)
    return Path(environ.get("HOME") or os.path.expanduser("~")) / fallback  # noqa: PTH111
