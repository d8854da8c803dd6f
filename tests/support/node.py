"""A node on an island: an `/etc` of its own, in which `prefetch client-config` writes."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.island import Hosts, bind
from support.processes import CommandLine, Result

ETC = Path("/etc")
# What programs need of the machine's; nothing of it says where images come from.
_KEPT = ("alternatives", "group", "ld.so.cache", "nsswitch.conf", "passwd")


class Node:
    """`root` has the node's `/etc` and `/run`, and the home of its user, which is `/root` there.

    `variables` are those of the node's programs, which trust `ca_file` and nobody else.
    """

    def __init__(self, root: Path, hosts: Hosts, ca_file: Path) -> None:
        self.root = root
        self.home = root / "root"
        self.home.mkdir(parents=True)
        _furnish(root / "etc")
        (root / "run").mkdir()
        bind(root / "run", Path("/run"))
        bind(root / "etc", ETC)
        bind(hosts.path, ETC / "hosts")
        self.variables = {"HOME": str(self.home), "SSL_CERT_FILE": str(ca_file)}

    async def configure(
        self, cli: CommandLine, target: str, *options: str | Path, config: Path
    ) -> Result:
        """Let `prefetch client-config` write a target's files where they belong."""
        written = await cli(
            *("--config", config, "client-config", target, "--out", self.root), *options
        )
        assert written.code == 0, written.stderr
        return written


def _furnish(etc: Path) -> None:
    etc.mkdir()
    for name in ("hosts", "resolv.conf"):
        (etc / name).touch()
    for name in _KEPT:
        source = ETC / name
        if source.is_dir():
            shutil.copytree(source, etc / name, symlinks=True)
        elif source.exists():
            shutil.copy(source, etc / name)
