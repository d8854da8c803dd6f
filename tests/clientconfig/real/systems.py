"""Systems on a node that pull images as the files say that `prefetch client-config` wrote there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from node_world import World

from prefetch.demo.images import Image
from support.clients import Clients
from support.containerd import Containerd
from support.gotools import path_of
from support.processes import Result, run

CERTS_D = Path("/etc/containerd/certs.d")

_LATER = pytest.mark.long
_CRI = pytest.mark.real("containerd", "ctr", "crictl")
_RANCHER = pytest.mark.real("containerd", "ctr", "crictl", "parse-k3s")
EVERYWHERE = pytest.mark.parametrize(
    "system",
    [
        pytest.param("containerd", marks=pytest.mark.real("containerd", "ctr")),
        pytest.param("podman", marks=pytest.mark.real("podman")),
        pytest.param("skopeo", marks=pytest.mark.real("skopeo")),
        # containerd again, over files that have the certificates beside them.
        pytest.param("kind", marks=[_LATER, pytest.mark.real("containerd", "ctr")]),
        # containerd again, as kubelet asks it.
        pytest.param("kubelet", marks=[_LATER, _CRI]),
        pytest.param("k3s", marks=[_LATER, _RANCHER]),
        pytest.param("rke2", marks=[_LATER, _RANCHER]),
    ],
    indirect=True,
)


class System(Protocol):
    """A system on a node; its programs find the files where they belong."""

    async def configure(self, *options: str | Path) -> None:
        """Let `prefetch client-config` write the files, and do what has to be done then."""
        ...

    async def pull(self, reference: str, login: str | None = None) -> Result:
        """Pull an image as its users would.

        `login` is `user:password` for the registry, for systems whose files have no place for it.
        """
        ...

    async def has(self, reference: str, made: Image) -> bool:
        """Whether what was pulled is this image."""
        ...


@dataclass(frozen=True, slots=True)
class ByContainerd:
    """containerd's own client, over the tree that a target wrote."""

    world: World
    daemon: Containerd
    target: str

    async def configure(self, *options: str | Path) -> None:
        await self.world.configure(self.target, *options)

    async def pull(self, reference: str, login: str | None = None) -> Result:
        return await self.daemon.pull(reference, login=login)

    async def has(self, reference: str, made: Image) -> bool:
        everything = {part.digest for part in made.walk()} | set(made.all_blobs())
        named = (await self.daemon.digests()).get(reference)
        return named == made.digest and everything <= await self.daemon.contents()


@dataclass(frozen=True, slots=True)
class ByKubelet:
    """containerd with its `config_path`, asked as kubelet does; a login is a pull secret."""

    world: World
    daemon: Containerd

    async def configure(self, *options: str | Path) -> None:
        await self.world.configure("containerd", *options)

    async def pull(self, reference: str, login: str | None = None) -> Result:
        shown = () if login is None else ("--creds", login)
        return await self._crictl("pull", *shown, reference)

    async def has(self, reference: str, made: Image) -> bool:
        told = await self._crictl("inspecti", "-o", "json", reference)
        digests = [] if told.code else json.loads(told.stdout)["status"]["repoDigests"]
        return _by_digest(reference, made) in digests

    async def _crictl(self, *words: str) -> Result:
        socket = f"unix://{self.daemon.socket}"
        places = ("--runtime-endpoint", socket, "--image-endpoint", socket, "--timeout", "60s")
        return await run(path_of("crictl"), *places, *words)


@dataclass(frozen=True, slots=True)
class ByPodman:
    """Podman as root."""

    world: World
    clients: Clients

    async def configure(self, *options: str | Path) -> None:
        await self.world.configure("podman", *options)

    async def pull(self, reference: str, login: str | None = None) -> Result:
        return await self.clients.podman("pull", reference)

    async def has(self, reference: str, made: Image) -> bool:
        told = await self.clients.podman("image", "inspect", reference)
        digests = [] if told.code else json.loads(told.stdout)[0]["RepoDigests"]
        return _by_digest(reference, made) in digests


@dataclass(frozen=True, slots=True)
class BySkopeo:
    """skopeo reads the same files as Podman. It copies into `directory`."""

    world: World
    clients: Clients
    directory: Path
    _copies: dict[str, Path] = field(default_factory=dict)

    async def configure(self, *options: str | Path) -> None:
        await self.world.configure("podman", *options)

    async def pull(self, reference: str, login: str | None = None) -> Result:
        copy = self.directory / f"copy-{len(self._copies)}"
        self._copies[reference] = copy
        return await self.clients.skopeo("copy", "--all", f"docker://{reference}", f"dir:{copy}")

    async def has(self, reference: str, made: Image) -> bool:
        return (self._copies[reference] / "manifest.json").read_bytes() == made.raw


def _by_digest(reference: str, made: Image) -> str:
    return f"{reference.rpartition(':')[0]}@{made.digest}"
