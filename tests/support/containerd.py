"""containerd of a test's own: its data, its socket and its containers, and no systemd."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomlkit

from support.processes import Result, run, until_answers

_STARTING_SECONDS = 30.0
_CRI = "io.containerd.grpc.v1.cri"
_OPT = "io.containerd.internal.v1.opt"  # would make /opt/containerd
_CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = {disabled}
[grpc]
  address = "{state}/c.sock"
[ttrpc]
  address = "{state}/t.sock"
[debug]
  address = "{state}/d.sock"
"""


class Containerd:
    """The daemon, asked by `ctr`; each registry's hosts lie in `certs_d`, as on a node.

    It pulls over plain HTTP, where `hosts.toml` does not say otherwise; with `node`, which are
    variables for `ctr` and the daemon, as on a node.
    """

    def __init__(
        self,
        directory: Path,
        state: Path,
        process: subprocess.Popen[bytes],
        node: Mapping[str, str] | None = None,
    ) -> None:
        self.certs_d = directory / "certs.d"
        self.socket = state / "c.sock"
        self._directory = directory
        self._state = state
        self._process = process
        self._node = node
        # Control groups are named by it, which all daemons of the machine share.
        self._namespace = f"prefetch-{secrets.token_hex(4)}"
        self._containers = itertools.count()

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()

    def hosts(
        self,
        registry: str,
        mirror: str,
        *,
        server: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Write `certs.d/<registry>/hosts.toml`: ask `mirror` first, `server` after it.

        Without `server` containerd falls back to the registry itself; `settings` are further
        lines of the mirror's table, as TOML values.
        """
        directory = self.certs_d / registry
        directory.mkdir(parents=True, exist_ok=True)
        lines = [] if server is None else [f'server = "{server}"']
        lines += [f'[host."{mirror}"]', 'capabilities = ["pull", "resolve"]']
        lines += [f"{name} = {value}" for name, value in (settings or {}).items()]
        (directory / "hosts.toml").write_text("\n".join(lines) + "\n")

    async def ctr(self, *words: str | Path) -> Result:
        """Any command of `ctr`, to its end."""
        base = ("ctr", "--address", self.socket, "--namespace", self._namespace)
        return await run(*base, *words, env={"HOME": str(self._directory), **(self._node or {})})

    async def pull(
        self, reference: str, *, platforms: Iterable[str] = (), login: str | None = None
    ) -> Result:
        """Pull and unpack an image as `hosts.toml` says; every platform unless some are named.

        `login` is `user:password`, which `ctr` shows to every host that asks.
        """
        chosen = [word for each in platforms for word in ("--platform", each)]
        plain = ("--plain-http",) if self._node is None else ()
        shown = () if login is None else ("--user", login)
        return await self.ctr(
            *("images", "pull", "--hosts-dir", self.certs_d, *plain, *shown),
            *("--snapshotter", "native", *(chosen or ["--all-platforms"]), reference),
        )

    async def digests(self) -> dict[str, str]:
        """The digest of every image, by its reference."""
        listed = await self._told("images", "list")
        rows = [line.split() for line in listed.splitlines()[1:]]
        return {row[0]: row[2] for row in rows}

    async def contents(self) -> set[str]:
        """The digests of all that lies in the content store."""
        return set((await self._told("content", "list", "--quiet")).split())

    async def content(self, digest: str) -> str:
        return await self._told("content", "get", digest)

    async def run(self, reference: str, *command: str) -> Result:
        """Run a container to its end, with runc; its own command unless one is given."""
        name = f"c{next(self._containers)}"
        return await self.ctr("run", "--rm", "--snapshotter", "native", reference, name, *command)

    async def ready(self) -> None:
        """Wait until it answers; RuntimeError with its log if it ends before."""
        await until_answers(
            lambda: self.ctr("version"),
            self._process,
            self._directory / "log",
            seconds=_STARTING_SECONDS,
        )

    async def stop(self) -> None:
        """End whatever still runs in containers, then the daemon."""
        left = await self.ctr("tasks", "list", "--quiet")
        for name in left.stdout.split():
            await self.ctr("tasks", "delete", "--force", name)
        self._process.terminate()
        await asyncio.to_thread(self._process.wait, 20)
        shutil.rmtree(self._state, ignore_errors=True)

    async def _told(self, *words: str) -> str:
        answer = await self.ctr(*words)
        assert answer.code == 0, answer.stderr
        return answer.stdout


async def start_containerd(
    directory: Path,
    *,
    node: Mapping[str, str] | None = None,
    registry: Mapping[str, Any] | None = None,
) -> Containerd:
    """Start the daemon with its data in `directory`, and wait until it answers.

    With `registry`, which is that table of the CRI plugin, it speaks CRI, too.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # The paths of sockets must be short (unix(7)), which those of pytest are not.
    state = Path(tempfile.mkdtemp(prefix="containerd-"))
    config = directory / "config.toml"
    disabled = json.dumps([_OPT] if registry is not None else [_OPT, _CRI])
    text = _CONFIG.format(root=directory / "root", state=state, disabled=disabled)
    config.write_text(text + _cri(registry))
    environment = None if node is None else {"PATH": os.environ["PATH"], **node}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["containerd", "--config", config], stdout=log, stderr=log, env=environment
        )
    daemon = Containerd(directory, state, process, node)
    try:
        await daemon.ready()
    except BaseException:
        await daemon.stop()
        raise
    return daemon


def _cri(registry: Mapping[str, Any] | None) -> str:
    if registry is None:
        return ""
    table = {"containerd": {"snapshotter": "native"}, "registry": registry}
    return tomlkit.dumps({"plugins": {_CRI: table}})
