"""What a command asks of the application, in plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefetch.errors import UsageError


@dataclass(frozen=True, slots=True)
class Place:
    """Where the settings and the data are; None: the defaults.

    `reserve` and `pace` (`smooth` or `burst`) are for every registry, whatever the settings say.
    """

    config: Path | None = None
    data_dir: Path | None = None
    reserve: str | None = None
    pace: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """Which cluster, and what of it: no namespaces means all. None: what the configuration says."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespaces: tuple[str, ...] = ()
    selector: str = ""
    use_pull_secrets: bool | None = None
    running_digests: bool | None = None
    node_images: bool | None = None


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """Which images: sources (files or `-`), references by name, platforms (none: the default).

    `cluster` adds what a live cluster runs.
    """

    place: Place
    sources: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    cluster: ClusterRequest | None = None


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """A sync; `timeout` in seconds bounds the waiting for budget."""

    source: SourceRequest
    wait: bool = False
    timeout: float | None = None


def seconds(text: str, option: str = "--timeout") -> float:
    """`90s`, `1h30m`, `200ms`, or a number of seconds. Raises UsageError, naming the option."""
    from prefetch.config.values import duration

    try:
        return duration(float(text) if text.replace(".", "", 1).isdigit() else text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
