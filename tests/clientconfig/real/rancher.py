"""K3s and RKE2: from `registries.yaml` to containerd as they do it, and kubelet's pulls."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import tomlkit
import yaml
from node_world import World
from systems import ByKubelet

from prefetch.demo.images import Image
from support.containerd import start_containerd
from support.parsers import parse
from support.processes import Result
from support.registries import REGISTRIES

_NO_DEFAULT = "disable-default-registry-endpoint"


class ByRancher:
    """`product` is `k3s` or `rke2`. It is started, with its containerd, once it is configured."""

    def __init__(self, world: World, product: str, directory: Path, stack: AsyncExitStack) -> None:
        self._world = world
        self._product = product
        self._directory = directory
        self._stack = stack
        self._node: ByKubelet | None = None

    async def configure(self, *options: str | Path) -> None:
        await self._world.configure(self._product, *options)
        certs_d = self._directory / f"var/lib/rancher/{self._product}/agent/etc/containerd/certs.d"
        logins = _lay_out(Path(f"/etc/rancher/{self._product}"), certs_d)
        daemon = await start_containerd(
            self._directory / "containerd",
            node=self._world.node.variables,
            registry=_registry_table(certs_d, logins),
        )
        self._stack.push_async_callback(daemon.stop)
        self._node = ByKubelet(self._world, daemon)

    async def pull(self, reference: str, login: str | None = None) -> Result:
        assert self._node is not None
        return await self._node.pull(reference)

    async def has(self, reference: str, made: Image) -> bool:
        assert self._node is not None
        return await self._node.has(reference, made)


def _lay_out(etc: Path, certs_d: Path) -> dict[str, Any]:
    """Write `certs.d` from what lies in the product's directory; returns logins by host."""
    found = [yaml.safe_load(path.read_text()) for path in (etc / "config.yaml.d").glob("*.yaml")]
    strict = any(each.get(_NO_DEFAULT, False) for each in found)
    flags = ["--no-default-endpoint"] if strict else []
    told = parse("parse-k3s", "--hosts", certs_d, *flags, etc / "registries.yaml")
    assert not told["ignored"]
    assert not told["unknown"]
    for name in REGISTRIES:
        assert (told["hosts"][name]["server"] is None) == strict
        _as_forked(Path(told["hosts"][name]["file"]))
    return dict(told["auth"])


def _registry_table(certs_d: Path, logins: dict[str, Any]) -> dict[str, Any]:
    """The table of containerd's configuration (k3s pkg/agent/templates/templates_linux.go)."""
    configs = {host: {"auth": login} for host, login in logins.items()}
    return {"config_path": str(certs_d), "configs": configs}


def _as_forked(path: Path) -> None:
    """Say as Debian's containerd has it what the file says to Rancher's.

    Without `server` Rancher's asks no registry, where Debian's does: so the last host stands in
    the registry's place as well.
    """
    data = tomlkit.parse(path.read_text()).unwrap()
    if "server" not in data:
        name, settings = list(data["host"].items())[-1]
        path.write_text(tomlkit.dumps({"server": name, **settings, **data}))
